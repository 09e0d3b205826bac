"""PyramidDrop: where it drops, how many tokens stay, and what retention means."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import earlytom
from conftest import batch, clip, tiny_model
from earlytom import MethodError, parse_method
from earlytom.methods.pyramiddrop import PyramidDrop
from earlytom.types import FrameGrid, LanguagePlan, LanguageStates
from reference.pruning import keep_best, pyramid_counts, tokens_by_layer
from reference.strategies import quick


def run(method: PyramidDrop, attentions: list[torch.Tensor], depth: int) -> tuple[list[int], list[list[int]]]:
    """The boundaries, and which of the tokens that entered are left behind each; one [V] row of scores a boundary."""
    boundaries = method.llm_plan(depth).reduce_before
    left = list(range(len(attentions[0])))
    kept = []
    for layer, scores in zip(boundaries, attentions, strict=False):
        attention = scores[left]
        states = LanguageStates(
            features=torch.randn(len(left), 4), attention=attention, entered=len(scores), depth=depth
        )
        reduction = method.reduce_in_llm(states, layer)
        assert reduction.weight is None
        expected = keep_best(attention.tolist(), reduction.outputs)
        assert reduction.source.tolist() == expected
        left = [left[index] for index in expected]
        kept.append(left)
    return list(boundaries), kept


@st.composite
def attention_rows(draw: st.DrawFn) -> list[torch.Tensor]:
    """Scores for up to five boundaries, with ties or all equal."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    tokens, levels = draw(st.integers(1, 60)), draw(st.sampled_from([1, 2, 5, 10_000]))
    return list(torch.randint(0, levels, (5, tokens), generator=generator) / 100)


ratio_lists = st.lists(st.sampled_from([1.0, 0.9, 0.7, 0.5, 0.3, 0.25, 0.1]), min_size=1, max_size=5).map(
    lambda ratios: tuple(sorted(ratios, reverse=True))
)


@quick
@given(attention_rows(), ratio_lists)
def test_ratios_count_from_the_tokens_that_entered(rows, ratios) -> None:
    method = PyramidDrop(layers=tuple(range(2, 2 + len(ratios))), ratios=ratios)
    _, kept = run(method, rows, depth=12)
    assert [len(tokens) for tokens in kept] == pyramid_counts(len(rows[0]), ratios)
    for before, after in itertools.pairwise(kept):
        assert set(after) <= set(before)
    assert all(tokens == sorted(tokens) for tokens in kept)


@quick
@given(
    attention_rows(),
    st.floats(0.05, 0.99),
    st.lists(st.integers(1, 20), min_size=1, max_size=4, unique=True).map(sorted),
)
def test_retention_is_the_mean_over_the_layers(rows, retention, layers) -> None:
    depth = layers[-1] + 4
    assume(retention * depth > layers[0] + 0.01)
    method, tokens = PyramidDrop(retention=retention, layers=tuple(layers)), len(rows[0])
    boundaries, kept = run(method, rows, depth)
    each = tokens_by_layer(tokens, boundaries, [len(left) for left in kept], depth)
    assert abs(sum(each) / depth / tokens - retention) <= 1 / tokens + 1e-9


def test_published_counts_at_28_layers() -> None:
    """6272 visual tokens and a newline: 3136, 1568 and 784 left behind layers 7, 14 and 21."""
    boundaries, kept = run(PyramidDrop(), [torch.rand(6273)] * 3, depth=28)
    assert boundaries == [7, 14, 21]
    assert [len(tokens) for tokens in kept] == [3136, 1568, 784]
    assert PyramidDrop().llm_plan(32).reduce_before == (8, 16, 24)
    assert PyramidDrop().llm_plan(28) == LanguagePlan(
        reduce_before=(7, 14, 21), attention_of="layer behind", renumber=True
    )


def test_half_of_an_even_number_is_half_of_it() -> None:
    for tokens in (2, 100, 6272):
        _, kept = run(PyramidDrop(), [torch.rand(tokens)] * 3, depth=28)
        assert [len(left) for left in kept] == [max(1, tokens // 2), max(1, tokens // 4), max(1, tokens // 8)]


def test_ratios_solved_for_cut_off_like_ratios_written_out() -> None:
    """0.7 squared is 0.48999999999999994 in floats; 0.29 of 100 stays 28 as in the authors' code."""
    retention = (1 + 0.7 + 0.49 + 0.343) / 4
    for tokens in (100, 1000):
        solved, written = (
            run(method, [torch.arange(tokens) / tokens] * 3, depth=28)[1]
            for method in (PyramidDrop(retention=retention), PyramidDrop(ratios=(0.7, 0.49, 0.343)))
        )
        assert solved == written
    _, kept = run(PyramidDrop(layers=(7,), ratios=(0.29,)), [torch.rand(100)], depth=28)
    assert len(kept[0]) == 28


def test_the_schedule_of_the_tables() -> None:
    """The counting that reproduces the other published rows, MACs of 28 layers of width 3584, gives about 10.5 T."""
    method = PyramidDrop(schedule="tables", retention=0.27176)
    boundaries, kept = run(method, [torch.rand(6272)] * 3, depth=28)
    assert boundaries == [5, 13, 21]
    assert [len(tokens) / 6272 for tokens in kept] == pytest.approx([1 / 4, 1 / 16, 1 / 64], abs=1e-3)
    width, hidden = 3584, 18944
    macs = sum(
        4 * n * width**2 + 2 * n**2 * width + 2 * n * width * hidden
        for n in tokens_by_layer(6272, boundaries, [len(tokens) for tokens in kept], 28)
    )
    assert macs / 1e12 == pytest.approx(10.49, abs=0.1)


def test_everything_enters_the_language_model() -> None:
    assert PyramidDrop().budget(FrameGrid(frames=32, rows=14, columns=14)) == 6272


def test_nothing_is_planned_at_full_retention() -> None:
    for depth in (1, 2, 28):
        assert PyramidDrop(retention=1.0).llm_plan(depth) == LanguagePlan()


@pytest.mark.parametrize(("depth", "layers"), [(2, (1,)), (3, (1, 2)), (4, (1, 2, 3)), (5, (1, 2, 4)), (6, (2, 3, 4))])
def test_shallow_language_models_have_the_boundaries_that_they_have_room_for(depth, layers) -> None:
    assert PyramidDrop(retention=0.9).llm_plan(depth).reduce_before == layers


@pytest.mark.parametrize(
    ("method", "depth", "message"),
    [
        (PyramidDrop(layers=(2, 5)), 5, r"layers \(2, 5\) do not fit a language model of 5 layers: allowed are 1 to 4"),
        (PyramidDrop(), 1, r"layers \(\) do not fit a language model of 1 layers"),
        (PyramidDrop(retention=0.25), 28, r"retention 0.25 cannot be reached .* layers 7/14/21 of 28: .* above 0.250"),
        (PyramidDrop(ratios=(0.5, 0.25)), 28, r"ratios \(0.5, 0.25\) must be as many .* \(7, 14, 21\)"),
    ],
)
def test_what_a_language_model_cannot_do_is_refused(method, depth, message) -> None:
    with pytest.raises(MethodError, match=message):
        method.llm_plan(depth)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"layers": ()}, r"layers must be ascending layer indices from 1, .* got \(\)"),
        ({"layers": (0, 3)}, "layers must be ascending"),
        ({"layers": (3, 3)}, "layers must be ascending"),
        ({"layers": (7, 3)}, "layers must be ascending"),
        ({"layers": (True, 3)}, "layers must be ascending"),
        ({"layers": 7}, "layers must be ascending"),
        ({"ratios": ()}, r"ratios must be falling shares .* got \(\)"),
        ({"ratios": (0.25, 0.5)}, "ratios must be falling shares"),
        ({"ratios": (0.5, 0.0)}, r"each of ratios must be a number in \(0.0, 1.0\], got 0.0"),
        ({"ratios": (1.5,)}, "each of ratios must be a number"),
        ({"schedule": "steep"}, "schedule must be one of 'paper', 'tables', got 'steep'"),
        ({"retention": 0.5, "ratios": (0.5, 0.25, 0.125)}, r"ratios .* and retention \(0.5\) both say"),
    ],
    ids=str,
)
def test_knobs_out_of_range_are_refused(knobs, message) -> None:
    with pytest.raises(MethodError, match=message):
        PyramidDrop(**knobs)


@pytest.mark.parametrize(
    "method",
    [
        PyramidDrop(),
        PyramidDrop(retention=0.3, schedule="tables"),
        PyramidDrop(layers=[3, 9], ratios=[0.5, 0.125]),
        PyramidDrop(retention=0.6, layers=(4,)),
    ],
    ids=str,
)
def test_a_method_survives_its_own_description(method) -> None:
    assert parse_method(method.describe()) == method
    assert ("retention" in method.describe()) == (method.ratios is None)


def test_text_that_is_no_list_of_numbers_says_so() -> None:
    with pytest.raises(MethodError, match=r"option ratios cannot be read as numbers like 0.5/0.25: '0.5/half'"):
        parse_method("pyramiddrop:ratios=0.5/half")


@pytest.mark.parametrize(
    "method", ["pyramiddrop", "pyramiddrop:layers=1/3,ratios=0.5/0.2", "pyramiddrop:retention=0.7"]
)
def test_the_trace_measures_the_mean_over_the_layers(method) -> None:
    model = tiny_model()
    with earlytom.compress(model, method) as trace:
        model.generate(**batch([[clip(12, 0)], [clip(12, 1), clip(12, 2)]]), max_new_tokens=3, do_sample=False)
    call, made = trace.last, parse_method(method)
    entered = (12 * 16 + 1, 2 * (12 * 16 + 1))
    assert call.visual_tokens == entered
    boundaries = made.llm_plan(5).reduce_before
    assert tuple(step.layer for step in call.language) == boundaries
    assert [video.tokens for video in trace.videos] == [12 * 16] * 3
    each = [
        tokens_by_layer(tokens, boundaries, [step.tokens_after[number] for step in call.language], 5)
        for number, tokens in enumerate(entered)
    ]
    assert call.average_visual_tokens == pytest.approx(sum(map(sum, each)) / 5)
    if made.ratios is None:
        assert call.average_visual_tokens / sum(entered) == pytest.approx(made.retention, abs=1 / entered[0])
    else:
        assert [step.tokens_after for step in call.language] == [(96, 193), (38, 77)]


def test_full_retention_is_bit_identical_to_stock() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)], [clip(12, 1)]])
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, PyramidDrop(retention=1.0)):
            assert torch.equal(model(**inputs).logits, plain)


def test_ratios_are_as_many_as_layers() -> None:
    with pytest.raises(MethodError, match=r"ratios \(0.5,\) must be as many as layers \(7, 14\)"):
        PyramidDrop(layers=(7, 14), ratios=(0.5,))
