"""PruneVid's first stage as a whole against its reference, and what it promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import earlytom
from conftest import batch, clip
from earlytom import MethodError, PruneVid, Reduction
from earlytom.ops import window_similarity
from reference.scenes import EXTREMES, extreme_features, retentions, scene_clip, scene_clips
from reference.strategies import quick
from reference.windows import alike_naively, prunevid_naively

# No mean cosine of small integers.
TAU = 0.8137


@quick
@given(scene_clips(most=6), retentions, st.sampled_from([0.25, 0.5, 1.0]), st.sampled_from([1, 4, 7]))
def test_equals_the_naive_reference(tokens, retention, segment_ratio, neighbours) -> None:
    method = PruneVid(retention=retention, tau=TAU, segment_ratio=segment_ratio, neighbours=neighbours)
    budget = method.budget(tokens.grid)
    decision = method.select_tokens(tokens, budget)
    if decision.reduction is None:
        assert budget == tokens.grid.tokens
        return
    segments, expected = prunevid_naively(tokens.features, budget, TAU, segment_ratio, neighbours)
    assert decision.details["segments"] == segments
    assert decision.reduction.survivors().tolist() == [place for place, _ in expected]
    values = decision.reduction.apply(tokens.features.flatten(0, 1)).double()
    torch.testing.assert_close(values, torch.stack([value for _, value in expected]), atol=1e-5, rtol=1e-5)


@quick
@given(scene_clips(most=12), retentions)
def test_every_token_is_used_once_and_the_budget_is_met_where_enough_is_left(tokens, retention) -> None:
    method = PruneVid(retention=retention)
    budget = method.budget(tokens.grid)
    decision = method.select_tokens(tokens, budget)
    reduction = decision.reduction or Reduction.identity(tokens.grid.tokens)
    sources = reduction.source.tolist()
    assert len(set(sources)) == len(sources)
    for row, place in zip(reduction.to_rows(), reduction.survivors().tolist(), strict=True):
        assert sum(weight for _, weight in row) == pytest.approx(1.0, abs=1e-5)
        assert place in [source for source, _ in row]
    assert reduction.apply(tokens.features.flatten(0, 1)).isfinite().all()
    if decision.reduction is None:
        return
    static = decision.details["static_tokens"]
    lengths = [last - first + 1 for first, last in decision.details["segments"]]
    per_frame = tokens.grid.tokens_per_frame
    left = sum(count + (per_frame - count) * length for count, length in zip(static, lengths, strict=True))
    assert reduction.outputs == min(budget, left)
    blocks = [*decision.details["tokens_per_window"], *decision.details["tokens_per_frame"]]
    if budget >= len(blocks):
        assert len(sources) == tokens.grid.tokens


@quick
@given(scene_clips(most=8))
def test_similarity_in_a_window_equals_all_pairs_one_by_one(tokens) -> None:
    frames = tokens.features.shape[0]
    segments = [(0, frames // 3), (frames // 3 + 1, frames - 1)] if frames > 2 else [(0, frames - 1)]
    expected = [
        [-1.0 if (alike := alike_naively(tokens.features, segment, place)) is None else alike for place in range(count)]
        for segment in segments
        for count in [tokens.features.shape[1]]
    ]
    torch.testing.assert_close(
        window_similarity(tokens.features, segments), torch.tensor(expected), atol=1e-5, rtol=1e-5
    )


def test_a_static_clip_keeps_the_tokens_of_one_frame_and_other_clips_the_budget() -> None:
    static = scene_clip(12, noise=0.0, scene=12)
    static = replace(static, features=static.features[:1].repeat(12, 1, 1))
    decision = PruneVid().select_tokens(static, 48)
    assert decision.details["segments"] == [(0, 11)]
    assert decision.details["static_tokens"] == [16]
    torch.testing.assert_close(decision.reduction.apply(static.features.flatten(0, 1)), static.features[0])
    assert PruneVid().select_tokens(scene_clip(12, noise=2.0), 48).reduction.outputs == 48
    assert not PruneVid().exact_budget


def test_single_frames_have_no_static_tokens() -> None:
    decision = PruneVid(segment_ratio=1.0).select_tokens(scene_clip(1), 4)
    assert decision.details == {
        "segments": [(0, 0)], "static_tokens": [0], "tokens_per_window": [0], "tokens_per_frame": [4]
    }  # fmt: skip


def test_scenes_become_windows() -> None:
    decision = PruneVid(neighbours=3).select_tokens(scene_clip(16, kind="repeated", scene=4), 64)
    assert decision.details["segments"] == [(0, 3), (4, 7), (8, 11), (12, 15)]
    assert decision.details["static_tokens"] == [16, 16, 16, 16]


def test_retention_one_leaves_everything() -> None:
    assert PruneVid(retention=1.0).select_tokens(scene_clip(4), 64).reduction is None


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_clips_neither_crash_nor_exceed_the_budget(name) -> None:
    tokens = replace(scene_clip(6), features=extreme_features(name, 6, 16), attention=None)
    reduction = PruneVid().select_tokens(tokens, 24).reduction
    assert 1 <= reduction.outputs <= 24
    values = reduction.apply(tokens.features.flatten(0, 1))
    assert values.isfinite().all() or name in ("nan", "some nan", "infinite")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"tau": 2}, r"tau must be a number in \[-1.0, 1.0\], got 2"),
        ({"segment_ratio": 0}, r"segment_ratio must be a number in \(0.0, 1.0\], got 0"),
        ({"neighbours": 0}, "neighbours must be an integer of at least 1, got 0"),
        ({"retention": -1}, "retention must be a number"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message) -> None:
    with pytest.raises(MethodError, match=message):
        PruneVid(**knobs)


def test_reads_and_writes_the_grammar() -> None:
    method = earlytom.parse_method("prunevid:retention=0.1,tau=0.7,segment_ratio=0.5,neighbours=5")
    assert method == PruneVid(retention=0.1, tau=0.7, segment_ratio=0.5, neighbours=5)
    assert earlytom.parse_method(method.describe()) == method


def test_answers_from_end_to_end(model) -> None:
    inputs = batch([[clip(12)], [clip(12, seed=1)]])
    with earlytom.compress(model, "prunevid") as trace:
        output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3
    for video in trace.videos:
        assert video.budget == 48
        assert 1 <= video.tokens <= 48
        assert sum(video.details["tokens_per_frame"]) + sum(video.details["tokens_per_window"]) == video.tokens
    assert trace.to_dict()["videos"][0]["tokens"] == trace.videos[0].tokens


def test_gradients_flow_through_the_kept_tokens(model) -> None:
    with earlytom.compress(model, "prunevid"):
        output = model(**batch([[clip(12)]]))
    projector = model.model.multi_modal_projector.linear_1.weight
    (gradient,) = torch.autograd.grad(output.logits[0, -1].square().sum(), projector)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
