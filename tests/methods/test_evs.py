"""EVS as a whole against its reference and against what vLLM keeps, and what it promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given

import earlytom
from conftest import batch, clip
from earlytom import EVS, MethodError, Reduction
from earlytom.types import FrameGrid, VisualTokens
from reference.redundancy import evs_naively
from reference.scenes import EXTREMES, extreme_features, retentions, scene_clip, scene_clips
from reference.spacing import spaced_naively
from reference.strategies import quick
from reference.vllm_pruning import drawn, embeddings, kept_by_vllm, recorded


def kept_by(method: EVS, tokens: VisualTokens) -> list[int]:
    budget = method.budget(tokens.grid)
    reduction = method.select_tokens(tokens, budget).reduction
    assert reduction.outputs == budget
    assert reduction.weight is None
    kept = reduction.source.tolist()
    assert kept == sorted(set(kept))
    return kept


def without_repeats(tokens: VisualTokens) -> VisualTokens:
    """No token is equal in two frames, where rounding alone would tell cosines apart; those of black ones are 0."""
    change = 0.05 * torch.randn(tokens.features.shape, generator=torch.Generator().manual_seed(0))
    return replace(tokens, features=tokens.features + change * (tokens.features != 0))


def of_features(features: torch.Tensor, grid: tuple[int, int, int]) -> VisualTokens:
    frames, rows, columns = grid
    return VisualTokens(
        features=features,
        attention=None,
        grid=FrameGrid(frames=frames, rows=rows, columns=columns),
        origin=Reduction.identity(frames),
    )


@quick
@given(scene_clips(most=14, kinds=("noisy", "noisy", "black")).map(without_repeats), retentions)
def test_equals_the_naive_reference(tokens, retention) -> None:
    method, per_frame = EVS(retention=retention), tokens.grid.tokens_per_frame
    budget = method.budget(tokens.grid)
    if budget < per_frame:
        assert kept_by(method, tokens) == spaced_naively(budget, per_frame)
    else:
        assert kept_by(method, tokens) == evs_naively(tokens.features, budget)


@pytest.mark.parametrize("case", recorded(), ids=lambda case: "x".join(map(str, (*case["grid"], case["rate"]))))
def test_official_keeps_what_vllm_keeps(case) -> None:
    tokens = of_features(embeddings(case), case["grid"])
    assert kept_by(EVS(retention=1 - case["rate"], compat="official"), tokens) == case["kept"]["evs"]


def test_official_keeps_what_this_vllm_keeps() -> None:
    pytest.importorskip("vllm.multimodal.video_prune.evs", reason="vLLM is not installed here")
    for seed in range(20):
        grid, rate = (3 + seed % 7, 4, 3 + seed % 3), (0.25, 0.5, 0.75, 0.9)[seed % 4]
        features = (torch.tensor(drawn(seed, grid[0], grid[1] * grid[2], 16)) / 100).view(grid[0], -1, 16)
        kept = kept_by(EVS(retention=1 - rate, compat="official"), of_features(features, grid))
        assert kept == kept_by_vllm("evs", features, grid, rate)


@quick
@given(scene_clips(most=14), retentions)
def test_the_first_frame_stays_whole_where_the_budget_holds_it(tokens, retention) -> None:
    per_frame = tokens.grid.tokens_per_frame
    for method in (EVS(retention=retention), EVS(retention=retention, compat="official")):
        kept = kept_by(method, tokens)
        assert len(kept) < per_frame or kept[:per_frame] == list(range(per_frame))


def test_what_changed_most_stays() -> None:
    tokens = scene_clip(4, 2, 2, kind="identical")
    features = tokens.features.clone()
    features[1, 2], features[3, 1] = -features[1, 2], -features[3, 1]
    # The third frame differs from the second where that differs from the first.
    assert kept_by(EVS(visual_tokens=7), replace(tokens, features=features)) == [0, 1, 2, 3, 4 + 2, 8 + 2, 12 + 1]


def test_of_equals_the_earlier_stays() -> None:
    """Zeros are unlike everything, all to the same degree."""
    assert kept_by(EVS(visual_tokens=9), scene_clip(4, 2, 2, kind="black")) == list(range(9))
    assert kept_by(EVS(visual_tokens=9), scene_clip(4, 2, 2, kind="identical")) == list(range(9))


@pytest.mark.parametrize(("wanted", "kept"), [(1, [8]), (2, [4, 12]), (16, [*range(16)])])
def test_less_than_a_frame_is_spread_over_the_first(wanted, kept) -> None:
    assert kept_by(EVS(visual_tokens=wanted), scene_clip(5)) == kept


def test_one_frame() -> None:
    assert kept_by(EVS(retention=0.5), scene_clip(1, 1, 4)) == [1, 3]
    assert kept_by(EVS(retention=0.5, compat="official"), scene_clip(1, 1, 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("frames", "retention", "official", "exact"),
    [(12, 0.25, 48, 48), (8, 0.1, 16, 13), (125, 0.1, 199, 200), (1, 0.5, 16, 8), (3, 1.0, 48, 48)],
)
def test_counts(frames, retention, official, exact) -> None:
    grid = FrameGrid(frames=frames, rows=4, columns=4)
    assert EVS(retention=retention, compat="official").budget(grid) == official
    assert EVS(retention=retention).budget(grid) == exact


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("compat", ["default", "official"])
def test_extreme_clips_neither_crash_nor_miss_the_budget(name, compat) -> None:
    tokens = replace(scene_clip(7), features=extreme_features(name, 7, 16), attention=None)
    assert len(kept_by(EVS(retention=0.5, compat=compat), tokens)) == 56


def test_bfloat16_is_compared_in_float32() -> None:
    tokens = scene_clip(9)
    halved = replace(tokens, features=tokens.features.bfloat16())
    widened = replace(tokens, features=tokens.features.bfloat16().float())
    assert kept_by(EVS(), halved) == kept_by(EVS(), widened)


def test_merged_frames_are_compared_with_one_another() -> None:
    tokens = without_repeats(scene_clip(6))
    merged = replace(tokens, grid=FrameGrid(frames=10, rows=4, columns=4))
    assert kept_by(EVS(), merged) == evs_naively(tokens.features, 40)


def test_knobs_out_of_range_are_refused() -> None:
    with pytest.raises(MethodError, match="compat must be one of 'default', 'official', got 'paper'"):
        EVS(compat="paper")
    with pytest.raises(
        MethodError, match=r"takes no visual_tokens \(got 9\): compat='official' counts by a pruning rate"
    ):
        EVS(compat="official", visual_tokens=9)


@pytest.mark.parametrize("text", ["evs", "evs:compat=official", "evs:retention=0.05", "earlytom@encoder+evs"])
def test_answers_from_end_to_end(model, text) -> None:
    inputs = batch([[clip(12)], [clip(12, seed=1)]])
    with earlytom.compress(model, text) as trace:
        output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3
    assert [video.tokens for video in trace.videos] == [10 if "0.05" in text else 48] * 2
