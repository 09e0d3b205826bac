"""VidCom2 as a whole against its reference and against what vLLM keeps, and what it promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given

import earlytom
from conftest import batch, clip
from earlytom import MethodError, Reduction, VidCom2
from earlytom.types import FrameGrid, VisualTokens
from reference.redundancy import vidcom2_naively
from reference.scenes import EXTREMES, extreme_features, retentions, scene_clip, scene_clips
from reference.strategies import quick
from reference.vllm_pruning import drawn, embeddings, kept_by_vllm, recorded


def kept_by(method: VidCom2, tokens: VisualTokens) -> list[int]:
    budget = method.budget(tokens.grid)
    reduction = method.select_tokens(tokens, budget).reduction
    assert reduction.outputs == budget
    assert reduction.weight is None
    kept = reduction.source.tolist()
    assert kept == sorted(set(kept))
    return kept


def wide_clip(frames: int, seed: int = 0, width: int = 16) -> VisualTokens:
    """Scenes of three frames of 4 x 4 tokens; wide enough that no two of them are equally distinct."""
    features = (torch.tensor(drawn(seed, frames, 16, width)) / 100).view(frames, 16, width)
    return of_features(features, (frames, 4, 4))


def of_features(features: torch.Tensor, grid: tuple[int, int, int]) -> VisualTokens:
    frames, rows, columns = grid
    return VisualTokens(
        features=features,
        attention=None,
        grid=FrameGrid(frames=frames, rows=rows, columns=columns),
        origin=Reduction.identity(frames),
    )


@pytest.mark.parametrize("retention", [0.02, 0.1, 0.25, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("frames", [1, 2, 5, 12])
def test_equals_the_naive_reference(frames, retention) -> None:
    for seed in range(4):
        tokens, method = wide_clip(frames, seed), VidCom2(retention=retention)
        expected = vidcom2_naively(tokens.features, retention, method.budget(tokens.grid))
        assert kept_by(method, tokens) == expected


@pytest.mark.parametrize("case", recorded(), ids=lambda case: "x".join(map(str, (*case["grid"], case["rate"]))))
def test_official_keeps_what_vllm_keeps(case) -> None:
    tokens = of_features(embeddings(case), case["grid"])
    assert kept_by(VidCom2(retention=1 - case["rate"], compat="official"), tokens) == case["kept"]["vidcom2"]


def test_official_keeps_what_this_vllm_keeps() -> None:
    pytest.importorskip("vllm.multimodal.video_prune.vidcom2", reason="vLLM is not installed here")
    for seed in range(20):
        tokens, rate = wide_clip(3 + seed % 7, seed), (0.25, 0.5, 0.75, 0.9)[seed % 4]
        kept = kept_by(VidCom2(retention=1 - rate, compat="official"), tokens)
        assert kept == kept_by_vllm("vidcom2", tokens.features, (tokens.grid.frames, 4, 4), rate)


@quick
@given(scene_clips(most=14), retentions)
def test_the_budget_is_met_whatever_the_clip(tokens, retention) -> None:
    assert len(kept_by(VidCom2(retention=retention), tokens)) == max(1, round(retention * tokens.grid.tokens))
    assert len(kept_by(VidCom2(retention=retention, compat="official"), tokens)) >= tokens.grid.frames


def test_a_token_unlike_all_others_stays_and_its_frame_keeps_more() -> None:
    features = torch.ones(6, 4, 8) + 0.01 * torch.randn(6, 4, 8, generator=torch.Generator().manual_seed(0))
    features[3, 2] = -features[3, 2]
    kept = kept_by(VidCom2(retention=0.25), of_features(features, (6, 2, 2)))
    assert 3 * 4 + 2 in kept
    frames = [place // 4 for place in kept]
    assert max(frames, key=frames.count) == 3
    assert kept_by(VidCom2(visual_tokens=1), of_features(features, (6, 2, 2))) == [3 * 4 + 2]


def test_of_equals_the_earlier_stays() -> None:
    same = scene_clip(4, 2, 2, kind="identical")
    assert kept_by(VidCom2(retention=0.5), same) == [0, 1, 4, 5, 8, 9, 12, 13]
    assert kept_by(VidCom2(visual_tokens=1), same) == [0]
    assert kept_by(VidCom2(visual_tokens=9), same) == [0, 1, 2, 4, 5, 8, 9, 12, 13]


@pytest.mark.parametrize(
    ("frames", "retention", "official", "exact"),
    [(12, 0.25, 48, 48), (8, 0.1, 12, 13), (125, 0.1, 199, 200), (20, 0.05, 20, 16), (3, 1.0, 48, 48)],
)
def test_counts(frames, retention, official, exact) -> None:
    grid = FrameGrid(frames=frames, rows=4, columns=4)
    assert VidCom2(retention=retention, compat="official").budget(grid) == official
    assert VidCom2(retention=retention).budget(grid) == exact


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("compat", ["default", "official"])
def test_extreme_clips_neither_crash_nor_miss_the_budget(name, compat) -> None:
    tokens = replace(scene_clip(7), features=extreme_features(name, 7, 16), attention=None)
    assert len(kept_by(VidCom2(retention=0.5, compat=compat), tokens)) == 56


def test_bfloat16_is_compared_in_float32() -> None:
    tokens = wide_clip(9)
    halved = replace(tokens, features=tokens.features.bfloat16())
    widened = replace(tokens, features=tokens.features.bfloat16().float())
    assert kept_by(VidCom2(), halved) == kept_by(VidCom2(), widened)


def test_what_merging_saved_goes_back_to_the_frames_that_are_left() -> None:
    tokens = wide_clip(6)
    merged = replace(tokens, grid=FrameGrid(frames=10, rows=4, columns=4))
    assert kept_by(VidCom2(), merged) == vidcom2_naively(tokens.features, 0.25 * 10 / 6, 40)


def test_knobs_out_of_range_are_refused() -> None:
    with pytest.raises(MethodError, match="compat must be one of 'default', 'official', got 'paper'"):
        VidCom2(compat="paper")
    with pytest.raises(
        MethodError, match=r"takes no visual_tokens \(got 9\): compat='official' counts by a pruning rate"
    ):
        VidCom2(compat="official", visual_tokens=9)


@pytest.mark.parametrize(
    "text", ["vidcom2", "vidcom2:compat=official", "vidcom2:retention=0.05", "earlytom@encoder+vidcom2"]
)
def test_answers_from_end_to_end(model, text) -> None:
    inputs = batch([[clip(12)], [clip(12, seed=1)]])
    with earlytom.compress(model, text) as trace:
        output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3
    assert [video.tokens for video in trace.videos] == [10 if "0.05" in text else 48] * 2
