"""DyCoke's temporal merging as a whole against its reference, and what it promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import earlytom
from conftest import batch, clip
from earlytom import DyCoke, MethodError
from earlytom.types import FrameGrid, VisualTokens
from reference.dycoke import exact_naively, official_naively
from reference.scenes import EXTREMES, extreme_features, scene_clip, scene_clips
from reference.spacing import shares_naively
from reference.strategies import quick

shares = st.sampled_from([0.25, 0.3, 0.475, 0.7, 0.99])


@st.composite
def changing_clips(draw: st.DrawFn) -> VisualTokens:
    """No token is equal in two frames: rounding alone would tell their cosines apart. Those of black ones are 0."""
    tokens = draw(scene_clips(most=14, kinds=("noisy", "noisy", "black")))
    change = 0.05 * torch.randn(tokens.features.shape, generator=torch.Generator().manual_seed(0))
    return replace(tokens, features=tokens.features + change * (tokens.features != 0))


def counts_of(frames: int, per_frame: int, budget: int) -> list[int]:
    """The first of four frames whole, the rest of the budget dealt out over the others."""
    others = [frame for frame in range(frames) if frame % 4]
    rest = budget - (frames - len(others)) * per_frame
    dealt = dict(zip(others, shares_naively(rest, len(others)), strict=True)) if others else {}
    return [dealt.get(frame, per_frame) for frame in range(frames)]


@quick
@given(changing_clips(), shares)
def test_equals_the_naive_reference(tokens, retention) -> None:
    method, (frames, per_frame) = DyCoke(retention=retention), tokens.attention.shape
    budget = method.budget(tokens.grid)
    decision = method.select_tokens(tokens, budget)
    counts = counts_of(frames, per_frame, budget)
    kept = decision.reduction.source.tolist()
    assert decision.details["tokens_per_frame"] == counts
    assert sum(counts) == budget
    assert kept == exact_naively(tokens.features, counts)


@quick
@given(changing_clips(), shares)
def test_official_equals_the_authors_two_passes(tokens, retention) -> None:
    method, frames = DyCoke(retention=retention, compat="official"), tokens.grid.frames
    if frames <= 4:
        assert "4 frames or fewer" in method.steps_aside(tokens.grid)
        assert method.budget(tokens.grid) == tokens.grid.tokens
        return
    reduction = method.select_tokens(tokens, method.budget(tokens.grid)).reduction
    assert reduction.outputs == method.budget(tokens.grid)
    assert reduction.source.tolist() == official_naively(tokens.features, round((4 - 4 * retention) / 3, 12))


@pytest.mark.parametrize(
    ("frames", "side", "rate", "tokens"),
    [(32, 14, 0.7, 3098), (32, 14, 0.9, 2201), (32, 14, 1.0, 1764), (64, 13, 0.7, 5223), (64, 13, 1.0, 2873)],
)
def test_official_counts_are_those_of_the_authors_code(frames, side, rate, tokens) -> None:
    """methods.md, section 7: 49.4, 35.1 and 28.1% of 32 frames; 48.3 and 26.6% of 64."""
    method = DyCoke(retention=(4 - 3 * rate) / 4, compat="official")
    assert method.budget(FrameGrid(frames=frames, rows=side, columns=side)) == tokens


@pytest.mark.parametrize(("retention", "rate", "tokens"), [(0.475, 0.7, 3), (0.325, 0.9, 0), (0.7, 0.4, 6)])
def test_official_counts_are_those_of_the_authors_own_knob(retention, rate, tokens) -> None:
    """Of ten tokens: 1 - 0.7 is a little more than 0.3, 1 - 0.9 a little less than 0.1, and they cut off."""
    assert int((1 - rate) * 10) == tokens
    counts = DyCoke(retention=retention, compat="official")._official_counts(8, 10)
    assert counts[1] == tokens


@quick
@given(scene_clips(most=14), shares | st.just(1.0))
def test_order_budget_and_whole_frames(tokens, retention) -> None:
    method = DyCoke(retention=retention)
    budget, per_frame = method.budget(tokens.grid), tokens.grid.tokens_per_frame
    reduction = method.select_tokens(tokens, budget).reduction
    kept = reduction.source.tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == budget
    assert reduction.weight is None
    whole = range(0, tokens.grid.frames, 4)
    assert {frame * per_frame + token for frame in whole for token in range(per_frame)} <= set(kept)
    asked = max(1, round(retention * tokens.grid.tokens))
    assert budget == max(asked, len(whole) * per_frame)


def test_a_quarter_of_a_multiple_of_four_frames_is_exact_and_other_clips_say_beforehand_what_they_keep() -> None:
    def budget(frames: int) -> int:
        return DyCoke().budget(FrameGrid(frames=frames, rows=14, columns=14))

    assert budget(32) == 1568
    assert budget(33) == 9 * 196
    assert budget(1) == 196
    assert DyCoke().exact_budget
    assert not DyCoke(compat="official").exact_budget


def test_what_changed_most_stays() -> None:
    tokens = scene_clip(4, 2, 2, kind="identical")
    features = tokens.features.clone()
    features[1, 2], features[2, 0], features[3, 1] = -features[1, 2], -features[2, 0], -features[3, 1]
    reduction = DyCoke(retention=7 / 16).select_tokens(replace(tokens, features=features), 7).reduction
    assert reduction.source.tolist() == [0, 1, 2, 3, 4 + 2, 8 + 0, 12 + 0]  # 12: the fourth frame against the third
    features[3, 0] = features[2, 0]
    reduction = DyCoke(retention=7 / 16).select_tokens(replace(tokens, features=features), 7).reduction
    assert reduction.source.tolist() == [0, 1, 2, 3, 4 + 2, 8 + 0, 12 + 1]


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("compat", ["default", "official"])
def test_extreme_clips_neither_crash_nor_miss_the_budget(name, compat) -> None:
    tokens = replace(scene_clip(7), features=extreme_features(name, 7, 16), attention=None)
    method = DyCoke(retention=0.5, compat=compat)
    reduction = method.select_tokens(tokens, method.budget(tokens.grid)).reduction
    assert reduction.outputs == method.budget(tokens.grid)
    assert len(set(reduction.source.tolist())) == reduction.outputs


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"retention": 0.2}, "keeps one frame in four whole, so retention must be at least 0.25, got 0.2"),
        ({"retention": 1.5}, "retention must be a number"),
        ({"compat": "paper"}, "compat must be one of 'default', 'official', got 'paper'"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message) -> None:
    with pytest.raises(MethodError, match=message):
        DyCoke(**knobs)


@pytest.mark.parametrize("text", ["dycoke", "dycoke:retention=0.475,compat=official", "earlytom@encoder+dycoke"])
def test_answers_from_end_to_end(model, text) -> None:
    inputs = batch([[clip(12)], [clip(12, seed=1)]])
    with earlytom.compress(model, text) as trace:
        output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3
    for video in trace.videos:
        assert video.tokens == video.budget == sum(video.details["tokens_per_frame"])
        assert video.tokens == (48 if "official" not in text else 4 * 16 + 8 * 4)
    assert trace.to_dict()["videos"][0]["selection"]["segments"][0] == (0, 3)


def test_a_clip_that_the_authors_code_cannot_take_is_left_alone(model) -> None:
    inputs = batch([[clip(4)]])
    with earlytom.compress(model, "dycoke:compat=official") as trace:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert trace.videos[0].tokens == 64
    assert "4 frames or fewer" in trace.videos[0].stepped_aside


def test_gradients_flow_through_the_kept_tokens(model) -> None:
    with earlytom.compress(model, "dycoke"):
        output = model(**batch([[clip(12)]]))
    projector = model.model.multi_modal_projector.linear_1.weight
    (gradient,) = torch.autograd.grad(output.logits[0, -1].square().sum(), projector)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
