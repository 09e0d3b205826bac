"""HoliTom as a whole against its reference, and what it promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import earlytom
from conftest import batch, clip
from earlytom import HoliTom, MethodError, Reduction
from earlytom.types import EncoderShape, FrameGrid
from reference.scenes import EXTREMES, extreme_features, retentions, scene_clip, scene_clips
from reference.strategies import quick
from reference.windows import apportion_naively, best_windows_naively, holitom_naively, static_naively

compats = st.sampled_from(["default", "official"])
# No cosine of small integers.
TAU = 0.8137


def rounded_counts(method, tokens, static, dynamic) -> tuple[list[int], list[int]]:
    """Specification: round and ceil with the rescaled retention, or the largest remainders of the budget."""
    left, whole = sum(static) + sum(dynamic), tokens.grid.tokens
    if method.compat == "default":
        shares = apportion_naively(min(method.budget(tokens.grid), left), [*static, *dynamic])
        return shares[: len(static)], shares[len(static) :]
    rescaled = min(1.0, method.retention / (left / whole))
    few, several = [round(n * rescaled) for n in static], [min(n, -int(-n * rescaled // 1)) for n in dynamic]
    return few, several


@quick
@given(scene_clips(), retentions, compats, st.sampled_from([0.6, None, 1.0]), st.sampled_from([2, 3, 1024]))
def test_equals_the_naive_reference(tokens, retention, compat, centre_weight, max_window) -> None:
    method = HoliTom(retention=retention, compat=compat, centre_weight=centre_weight, max_window=max_window, tau=TAU)
    budget = method.budget(tokens.grid)
    decision = method.select_tokens(tokens, budget)
    if decision.reduction is None:
        assert compat == "default"
        assert budget == tokens.grid.tokens
        return
    segments = best_windows_naively(tokens.features, TAU, max_window)
    static = [static_naively(tokens.features, segment, TAU) for segment in segments]
    per_frame = tokens.grid.tokens_per_frame
    dynamic = [per_frame - len(s) for s, (a, b) in zip(static, segments, strict=True) for _ in range(a, b + 1)]
    counts = rounded_counts(method, tokens, [len(s) for s in static], dynamic)
    if not any(counts[0]) and not any(counts[1]):
        assert decision.reduction.outputs == 1
        return
    expected = holitom_naively(
        tokens.features, tokens.attention, segments, static, counts, method.neighbours, centre_weight
    )
    assert decision.details["segments"] == segments
    assert decision.details["static_tokens"] == [len(tokens) for tokens in static]
    assert (decision.details["tokens_per_window"], decision.details["tokens_per_frame"]) == counts
    assert decision.reduction.survivors().tolist() == [place for place, _ in expected]
    values = decision.reduction.apply(tokens.features.flatten(0, 1)).double()
    torch.testing.assert_close(values, torch.stack([value for _, value in expected]), atol=1e-5, rtol=1e-5)


@quick
@given(scene_clips(most=12), retentions, compats)
def test_no_token_is_used_twice_weights_sum_to_one_and_the_budget_is_not_exceeded(tokens, retention, compat) -> None:
    method = HoliTom(retention=retention, compat=compat)
    budget = method.budget(tokens.grid)
    reduction = method.select_tokens(tokens, budget).reduction or Reduction.identity(tokens.grid.tokens)
    sources = reduction.source.tolist()
    assert len(set(sources)) == len(sources)
    assert len(set(reduction.survivors().tolist())) == reduction.outputs >= 1
    for row, place in zip(reduction.to_rows(), reduction.survivors().tolist(), strict=True):
        assert sum(weight for _, weight in row) == pytest.approx(1.0, abs=1e-5)
        assert place in [source for source, _ in row]
    if compat == "default":
        assert reduction.outputs <= budget
    assert reduction.apply(tokens.features.flatten(0, 1)).isfinite().all()


def test_the_budget_is_met_wherever_enough_is_left_and_a_static_clip_keeps_one_frame() -> None:
    noisy = scene_clip(12, noise=1.5)
    method = HoliTom(retention=0.25)
    assert method.select_tokens(noisy, 48).reduction.outputs == 48
    static = scene_clip(12, kind="repeated", scene=12)
    decision = method.select_tokens(static, 48)
    zeros = int((static.features[0].abs().sum(dim=1) == 0).sum())  # their cosine is 0: never static
    assert decision.details["static_tokens"] == [16 - zeros]
    if not zeros:
        assert decision.reduction.outputs == 16
    assert not method.exact_budget


def test_static_tokens_are_the_mean_over_the_window_in_its_first_frame() -> None:
    tokens = scene_clip(3, 2, 2, noise=0.01, scene=3, seed=5)
    tokens = replace(tokens, features=tokens.features[:1] + 0.01 * torch.randn(3, 4, 4))
    decision = HoliTom(retention=0.999, tau=0.5).select_tokens(tokens, 11)
    assert decision.details["segments"] == [(0, 2)]
    assert decision.reduction.survivors().tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(decision.reduction.apply(tokens.features.flatten(0, 1)), tokens.features.mean(dim=0))


def test_the_authors_thresholds_are_the_default() -> None:
    assert [HoliTom()._threshold(retention) for retention in (0.05, 0.10, 0.15, 0.25)] == [0.65, 0.65, 0.8, 0.8]
    assert HoliTom(tau=0.3)._threshold(0.5) == 0.3


@pytest.mark.parametrize("retention", [0.1, 0.11])
def test_a_number_of_tokens_decides_like_the_retention_that_it_is_of_the_clip(retention) -> None:
    """The authors' threshold changes behind 10%."""
    tokens = scene_clip(20, 10, 10, noise=0.6)
    number = round(retention * 2000)
    of_share, of_number = (
        method.select_tokens(tokens, number).reduction
        for method in (HoliTom(retention=retention), HoliTom(visual_tokens=number))
    )
    assert of_share.to_rows() == of_number.to_rows()


def test_official_divides_the_retention_by_the_share_that_is_left() -> None:
    """4 frames of 25 tokens, 70 left: 7 * (0.1 / (70 / 100)) is a little more than 1, 7 * (0.1 * 100 / 70) is 1."""
    method = HoliTom(retention=0.1, compat="official")
    grid = FrameGrid(frames=4, rows=5, columns=5)
    assert method._counts(10, grid, [(0, 1), (2, 3)], [18, 12]) == ([3, 2], [2, 2, 2, 2])
    assert math.ceil(7 * (0.1 / (70 / 100))) == 2 > math.ceil(7 * (0.1 * 100 / 70))


def test_attention_comes_from_the_last_layer_and_is_needed() -> None:
    plan = HoliTom().encoder_plan(EncoderShape(depth=26))
    assert (plan.attention_layer, plan.merge_layers, plan.keys) == (25, (), False)
    with pytest.raises(MethodError, match="received attention"):
        HoliTom().select_tokens(replace(scene_clip(3), attention=None), 5)


def test_all_tokens_stay_as_they_are_at_retention_one_by_default_only() -> None:
    static = scene_clip(8, kind="repeated", scene=8)
    assert HoliTom(retention=1.0).select_tokens(static, 128).reduction is None
    assert HoliTom(retention=1.0, compat="official").select_tokens(static, 128).reduction.outputs < 128


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("compat", ["default", "official"])
def test_extreme_clips_neither_crash_nor_exceed_the_budget(name, compat) -> None:
    tokens = scene_clip(6)
    attention = torch.full((6, 16), float("nan")) if "nan" in name else tokens.attention
    tokens = replace(tokens, features=extreme_features(name, 6, 16), attention=attention)
    reduction = HoliTom(compat=compat).select_tokens(tokens, 24).reduction
    assert 1 <= reduction.outputs <= 24 + 6
    values = reduction.apply(tokens.features.flatten(0, 1))
    assert values.isfinite().all() or name in ("nan", "some nan", "infinite")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_accumulated_in_float32(dtype) -> None:
    tokens = scene_clip(8, noise=0.0)
    low = replace(tokens, features=tokens.features.to(dtype))
    exact = replace(tokens, features=low.features.float())
    ours, other = (HoliTom().select_tokens(part, 32).reduction for part in (low, exact))
    assert ours.to_rows() == other.to_rows()
    assert ours.apply(low.features.flatten(0, 1)).dtype == dtype


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"tau": 1.5}, r"tau must be a number in \[-1.0, 1.0\], got 1.5"),
        ({"max_window": 0}, "max_window must be an integer of at least 1, got 0"),
        ({"neighbours": 2.5}, "neighbours must be an integer of at least 1, got 2.5"),
        ({"centre_weight": 0.0}, r"centre_weight must be a number in \(0.0, 1.0\], got 0.0"),
        ({"compat": "paper"}, "compat must be one of 'default', 'official', got 'paper'"),
        ({"retention": 0.0}, "retention must be a number"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message) -> None:
    with pytest.raises(MethodError, match=message):
        HoliTom(**knobs)


def test_reads_and_writes_the_grammar() -> None:
    method = earlytom.parse_method("holitom:retention=0.1,tau=0.65,centre_weight=none,compat=official")
    assert method == HoliTom(retention=0.1, tau=0.65, centre_weight=None, compat="official")
    assert earlytom.parse_method(method.describe()) == method


@pytest.mark.parametrize("text", ["holitom:retention=0.25", "holitom+inner-merging:retention=0.25"])
def test_answers_from_end_to_end(model, text) -> None:
    inputs = batch([[clip(12)], [clip(12, seed=1)]])
    with earlytom.compress(model, text) as trace:
        output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3
    for video in trace.videos:
        assert video.budget == 48
        assert 1 <= video.tokens <= 48
        assert video.details["segments"][-1][1] == 11
        assert sum(video.details["tokens_per_frame"]) + sum(video.details["tokens_per_window"]) == video.tokens
    assert (len(trace.last.language) == 1) == ("inner" in text)
    assert trace.to_dict()["videos"][0]["tokens"] == trace.videos[0].tokens


def test_gradients_flow_through_the_kept_tokens(model) -> None:
    with earlytom.compress(model, "holitom"):
        output = model(**batch([[clip(12)]]))
    projector = model.model.multi_modal_projector.linear_1.weight
    (gradient,) = torch.autograd.grad(output.logits[0, -1].square().sum(), projector)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
