"""FastV: how many tokens stay, which, and what retention means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import earlytom
from conftest import batch, clip, tiny_model
from earlytom import MethodError, parse_method
from earlytom.methods.fastv import FastV
from earlytom.types import FrameGrid, LanguagePlan, LanguageStates
from reference.pruning import fastv_share, keep_best
from reference.strategies import quick


def states(attention: torch.Tensor, depth: int = 28) -> LanguageStates:
    tokens = len(attention)
    return LanguageStates(features=torch.randn(tokens, 4), attention=attention, entered=tokens, depth=depth)


def kept(method: FastV, attention: torch.Tensor, depth: int = 28) -> list[int]:
    (layer,) = method.llm_plan(depth).reduce_before
    reduction = method.reduce_in_llm(states(attention, depth), layer)
    assert reduction.weight is None
    assert reduction.inputs == len(attention)
    return reduction.source.tolist()


@st.composite
def attentions(draw: st.DrawFn) -> torch.Tensor:
    """[V] attention with ties, all equal, or with a value that is not a number."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    tokens, levels = draw(st.integers(1, 60)), draw(st.sampled_from([1, 2, 5, 10_000]))
    attention = torch.randint(0, levels, (tokens,), generator=generator) / 100
    if draw(st.booleans()):
        attention[draw(st.integers(0, tokens - 1))] = torch.nan
    return attention


@quick
@given(attentions(), st.sampled_from([0.1, 0.3, 0.5, 0.75, 0.8, 0.99]), st.integers(1, 20))
def test_a_given_ratio_keeps_the_most_attended_tokens_in_order(attention, ratio, layer) -> None:
    expected = keep_best(attention.tolist(), max(1, round(len(attention) * (1 - ratio))))
    assert kept(FastV(layer=layer, ratio=ratio), attention) == expected


@quick
@given(attentions(), st.floats(0.01, 0.99), st.integers(1, 6), st.integers(4, 40))
def test_retention_is_the_mean_over_the_layers(attention, retention, layer, depth) -> None:
    assume(layer < depth and retention * depth > layer)
    tokens = len(attention)
    found = kept(FastV(retention=retention, layer=layer), attention, depth)
    assert found == keep_best(attention.tolist(), len(found))
    assert abs(len(found) - fastv_share(retention, layer, depth) * tokens) <= (1 if len(found) == 1 else 0.5001)
    mean = (layer * tokens + (depth - layer) * len(found)) / (depth * tokens)
    assert abs(mean - retention) <= (1 if len(found) == 1 else 0.5001) / tokens


@pytest.mark.parametrize(("retention", "share"), [(0.25, 0.192), (0.20, 0.138), (0.15, 0.085), (0.10, 0.031)])
def test_kept_shares_at_28_layers(retention, share) -> None:
    """The shares that spend what methods before the language model spend at this retention."""
    assert len(kept(FastV(retention=retention), torch.rand(10_000))) == pytest.approx(share * 10_000, abs=10)


def test_published_settings() -> None:
    """K = 2 and 20% kept over 6272 visual tokens and a newline: the 9.3 TFLOPs of the published tables."""
    assert FastV(ratio=0.8).llm_plan(28) == LanguagePlan(reduce_before=(2,))
    assert len(kept(FastV(ratio=0.8), torch.rand(6273))) == 1255
    assert FastV().retention == 0.25


def test_the_kept_share_is_one_less_the_ratio_in_floats() -> None:
    """1 - 0.7 is 0.30000000000000004, and 15 of it round to 5."""
    assert len(kept(FastV(ratio=0.7), torch.rand(15))) == 5 > round(15 * 0.3)


def test_everything_enters_the_language_model() -> None:
    grid = FrameGrid(frames=32, rows=14, columns=14)
    assert FastV(retention=0.1).budget(grid) == 6272
    assert not FastV(retention=0.1).steps_aside(grid)


@pytest.mark.parametrize("method", [FastV(retention=1.0), FastV(ratio=0.0)], ids=str)
def test_nothing_is_planned_where_everything_is_kept(method) -> None:
    for depth in (1, 2, 28):
        assert method.llm_plan(depth) == LanguagePlan()


def test_the_layer_moves_forward_in_a_shallow_model_only_where_it_must() -> None:
    assert FastV(retention=0.25).llm_plan(28).reduce_before == (2,)
    assert FastV(retention=0.25).llm_plan(9).reduce_before == (2,)
    assert FastV(retention=0.25).llm_plan(8).reduce_before == (1,)
    assert FastV(ratio=0.5).llm_plan(3).reduce_before == (2,)
    assert FastV(ratio=0.5).llm_plan(2).reduce_before == (1,)


@pytest.mark.parametrize(
    ("method", "depth", "message"),
    [
        (FastV(layer=5, ratio=0.5), 5, "layer 5 does not fit a language model of 5 layers: allowed are 1 to 4"),
        (FastV(layer=28), 28, "layer 28 does not fit"),
        (FastV(ratio=0.5), 1, "layer 1 does not fit a language model of 1 layers"),
        (FastV(retention=0.1, layer=3), 28, r"retention 0.1 cannot be reached .* layer 3 of 28: .* above 0.107"),
        (FastV(retention=0.1), 6, r"retention 0.1 cannot be reached .* layer 1 of 6: .* above 0.167"),
        (FastV(retention=0.5, layer=2), 4, r"retention 0.5 cannot be reached .* above 0.500"),
    ],
)
def test_what_a_language_model_cannot_do_is_refused(method, depth, message) -> None:
    with pytest.raises(MethodError, match=message):
        method.llm_plan(depth)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"layer": 0}, "layer must be an integer of at least 1, got 0"),
        ({"layer": 2.0}, "layer must be an integer"),
        ({"layer": True}, "layer must be an integer"),
        ({"ratio": 1.0}, "ratio must be less than 1, got 1.0"),
        ({"ratio": -0.1}, r"ratio must be a number in \[0.0, 1.0\], got -0.1"),
        ({"ratio": "0.5"}, "ratio must be a number"),
        ({"retention": 0.0}, "retention must be a number in"),
        ({"retention": 0.1, "ratio": 0.5}, r"ratio \(0.5\) and retention \(0.1\) both say"),
    ],
    ids=str,
)
def test_knobs_out_of_range_are_refused(knobs, message) -> None:
    with pytest.raises(MethodError, match=message):
        FastV(**knobs)


@quick
@given(
    st.builds(FastV, retention=st.floats(0, 1, exclude_min=True), layer=st.none() | st.integers(1, 60))
    | st.builds(FastV, ratio=st.floats(0, 1, exclude_max=True), layer=st.none() | st.integers(1, 60))
)
def test_a_method_survives_its_own_description(method) -> None:
    assert parse_method(method.describe()) == method
    assert ("retention" in method.describe()) == (method.ratio is None)


@pytest.mark.parametrize("method", ["fastv", "fastv:ratio=0.5,layer=3", "fastv:retention=0.7"])
def test_the_trace_measures_the_mean_over_the_layers(method) -> None:
    model = tiny_model()
    with earlytom.compress(model, method) as trace:
        model.generate(**batch([[clip(12, 0)], [clip(12, 1), clip(12, 2)]]), max_new_tokens=3, do_sample=False)
    call, fastv = trace.last, parse_method(method)
    (layer,) = fastv.llm_plan(5).reduce_before
    entered = (12 * 16 + 1, 2 * (12 * 16 + 1))
    (step,) = call.language
    assert (step.layer, step.tokens_before, call.visual_tokens) == (layer, entered, entered)
    assert [video.tokens for video in trace.videos] == [12 * 16] * 3
    assert call.average_visual_tokens == (layer * sum(entered) + (5 - layer) * sum(step.tokens_after)) / 5
    if fastv.ratio is None:
        assert call.average_visual_tokens / sum(entered) == pytest.approx(fastv.retention, abs=1 / entered[0])
    else:
        assert step.tokens_after == tuple(round(tokens * (1 - fastv.ratio)) for tokens in entered)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_full_retention_is_bit_identical_to_stock(attention) -> None:
    model, inputs = tiny_model(attention), batch([[clip(12, 0)], [clip(12, 1)]])
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, FastV(retention=1.0)) as trace:
            assert torch.equal(model(**inputs).logits, plain)
    assert trace.last.language == []
    assert trace.last.average_visual_tokens == 2 * 193


def test_a_layer_that_the_language_model_lacks_is_refused_before_anything_runs() -> None:
    with pytest.raises(MethodError, match="layer 5 does not fit"), earlytom.compress(tiny_model(), FastV(layer=5)):
        pass
