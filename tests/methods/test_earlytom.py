"""EarlyTom as a whole: its three decisions, on clips whose outcome the specification states."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earlytom import EarlyTom, MethodError, Reduction, VisionZip, compose
from earlytom.methods.presets import EVERYDAY, PRESETS, preset_names
from earlytom.ops import frame_floor, frame_similarity
from earlytom.types import EncoderShape, FrameGrid, FrameStates, LanguageStates, VisualTokens
from reference.llm_merging import merge_dropped_naively
from reference.merging import matrix_of, plan_naively
from reference.segmentation import segment_naively
from reference.selection import select_naively, select_together_naively
from reference.strategies import quick, scene_clips, variants
from reference.token_clips import visual_tokens

VARIANTS = ["default", "official", "paper"]


def static_clip(frames: int = 32, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    frame = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(seed))
    return frame.expand(frames, 9, 16).contiguous().to(dtype)


def run_passes(
    method: EarlyTom, features: Tensor, passes: int = 3, floor: int = 1, attention: Tensor | None = None
) -> tuple[FrameStates, list[int]]:
    """The frames that are left after ``passes`` merge layers, and their number after each."""
    received = torch.full(features.shape[:2], 1 / features.shape[1]) if attention is None else attention
    states = FrameStates(features=features, attention=received, origin=Reduction.identity(len(features)))
    numbers = []
    for layer in range(passes):
        reduction = method.merge_frames(states, layer, floor).reduction
        if reduction is not None:
            states = FrameStates(
                features=reduction.apply(states.features),
                attention=reduction.apply(states.attention),
                origin=states.origin.then(reduction),
            )
        numbers.append(len(states.features))
    return states, numbers


def tokens_of(states: FrameStates, grid: FrameGrid, attention: Tensor | None = None) -> VisualTokens:
    """What stage II sees: here pooling is the identity."""
    return VisualTokens(
        features=states.features,
        attention=states.attention if attention is None else attention,
        grid=grid,
        origin=states.origin,
        frame_similarity=frame_similarity(states.features),
    )


def pooled_tokens(frames_left: int, frames: int, similarity: Tensor, side: int = 14) -> VisualTokens:
    """Stage II alone, on random scores."""
    generator = torch.Generator().manual_seed(0)
    return VisualTokens(
        features=torch.zeros(frames_left, side * side, 1),
        attention=torch.rand(frames_left, side * side, generator=generator),
        grid=FrameGrid(frames=frames, rows=side, columns=side),
        origin=Reduction.identity(frames_left),
        frame_similarity=similarity,
    )


# Stage I


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(8))
def test_default_shrinks_a_static_clip_from_32_to_20_to_12_to_8(dtype, seed) -> None:
    _, numbers = run_passes(EarlyTom(), static_clip(dtype=dtype, seed=seed))
    assert numbers == [20, 12, 8]


def test_one_default_pass_over_a_static_clip_takes_the_mean_of_three_middle_frames() -> None:
    states, _ = run_passes(EarlyTom(), static_clip(10), passes=1)
    rows = [[0], [1, 2, 3], [4], [5], [6, 7, 8], [9]]
    assert [[source for source, _ in row] for row in states.origin.to_rows()] == rows
    torch.testing.assert_close(states.features, static_clip(6))


def test_official_shrinks_32_identical_frames_to_26_21_17_with_final_segments_5_5_5_2() -> None:
    """methods.md 15.1."""
    method = EarlyTom(compat="official", max_window=6, tau_seg=0.8)
    states, numbers = run_passes(method, static_clip())
    assert numbers == [26, 21, 17]
    segments = method.merge_frames(states, 20, 1).details["segments"]
    assert [last - first + 1 for first, last in segments] == [5, 5, 5, 2]
    assert states.origin.weight is None  # only discarded, never averaged


def test_official_keeps_the_first_five_of_six_identical_middle_frames() -> None:
    states, _ = run_passes(EarlyTom(compat="official", max_window=9, tau_seg=0.8), static_clip(8), passes=1)
    assert states.origin.source.tolist() == [0, 1, 2, 3, 4, 5, 7]


@pytest.mark.parametrize("compat", VARIANTS)
def test_unrelated_frames_stay_as_they_are(compat) -> None:
    features = torch.randn(32, 9, 16)
    states, numbers = run_passes(EarlyTom(compat=compat, tau_seg=0.8), features)
    assert numbers == [32, 32, 32]
    assert torch.equal(states.features, features)


@pytest.mark.parametrize("compat", VARIANTS)
def test_clips_of_unrelated_frames_stay_with_the_threshold_of_the_clip_too(compat) -> None:
    assert run_passes(EarlyTom(compat=compat), torch.randn(32, 9, 16))[1] == [32, 32, 32]


def test_paper_leaves_a_static_clip_as_it_is_and_retention_one_leaves_every_clip() -> None:
    assert run_passes(EarlyTom(compat="paper", tau_seg=0.8), static_clip(), passes=1)[1] == [32]
    method = EarlyTom(retention=1.0)
    floor = frame_floor(method.budget(FrameGrid(frames=32, rows=3, columns=3)), 9)
    assert floor == 32
    assert run_passes(method, static_clip(), floor=floor)[1] == [32, 32, 32]


@quick
@given(scene_clips(), variants, st.sampled_from([0.3, 0.6, 0.8, 0.95]), st.integers(1, 24), st.booleans())
def test_one_pass_equals_the_naive_references(features, compat, tau_seg, floor, weighted) -> None:
    method = EarlyTom(compat=compat, tau_seg=tau_seg, weighted_merging=weighted)
    attention = torch.rand(features.shape[:2], generator=torch.Generator().manual_seed(1))
    origin = Reduction.identity(len(features))
    states = FrameStates(features=features, attention=attention, origin=origin)
    decision = method.merge_frames(states, 6, floor)
    # Decisions are compared on the same table: a table of other rounding may decide ties otherwise.
    table = frame_similarity(features).tolist()
    segments = segment_naively(table, tau_seg, 0.9, 6)
    bounds = {"floor": floor}
    if compat == "default":
        bounds |= {"soft_floor": math.ceil(0.7 * len(features)), "duplicate_similarity": 0.98}
    plan = plan_naively(table, segments, compat, weighted=weighted, **bounds)
    assert decision.details == {"segments": segments, "tau_seg": tau_seg}
    reduction = decision.reduction or origin
    assert reduction.outputs == len(plan)
    expected = matrix_of(plan, len(features))
    torch.testing.assert_close(
        reduction.apply(features).double(),
        torch.einsum("kn,nld->kld", expected, features.double()),
        atol=1e-4,
        rtol=1e-5,
    )
    torch.testing.assert_close(reduction.apply(attention).double(), expected @ attention.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("compat", VARIANTS)
def test_long_clips_are_decided_as_by_the_whole_table(compat) -> None:
    """Clips of several blocks of similarities, of scenes that last 1 to 12 grids."""
    generator = torch.Generator().manual_seed(3)
    scene = torch.repeat_interleave(torch.randint(1, 13, (60,), generator=generator))[:300]
    features = torch.randn(60, 9, 16, generator=generator)[scene] + 0.2 * torch.randn(300, 9, 16, generator=generator)
    states = FrameStates(features=features, attention=None, origin=Reduction.identity(300))
    method = EarlyTom(compat=compat)
    found = method.merge_frames(states, 6, 30)
    whole = method.merge_frames(replace(states, similarity=frame_similarity(features)), 6, 30)
    assert whole.reduction.outputs < 280
    assert found.details["segments"] == whole.details["segments"]
    assert found.reduction.offsets.tolist() == whole.reduction.offsets.tolist()
    assert found.reduction.source.tolist() == whole.reduction.source.tolist()
    torch.testing.assert_close(found.reduction.weight, whole.reduction.weight, atol=1e-6, rtol=0)


@quick
@given(scene_clips(), st.sampled_from(["default", "paper"]))
def test_every_input_frame_is_part_of_exactly_one_frame_that_is_left(features, compat) -> None:
    states, _ = run_passes(EarlyTom(compat=compat, tau_seg=0.6), features)
    assert [source for row in states.origin.to_rows() for source, _ in row] == list(range(len(features)))
    assert all(sum(weight for _, weight in row) == pytest.approx(1, abs=1e-5) for row in states.origin.to_rows())


def slow_clip(frames: int = 32) -> Tensor:
    """A clip that turns slowly: neighbours are alike (0.97), none is a duplicate."""
    angles = torch.arange(frames) * 0.25
    return torch.stack([angles.cos(), angles.sin()], -1).unsqueeze(1).expand(-1, 9, -1).contiguous()


@pytest.mark.parametrize(("least_frames", "left"), [(0.5, 16), (0.6, 20), (0.61, 20), (0.95, 31), (1.0, 32)])
def test_merging_stops_when_the_least_share_of_frames_is_left(least_frames, left) -> None:
    method = EarlyTom(retention=0.25, least_frames=least_frames, tau_seg=0.3)
    floor = frame_floor(method.budget(FrameGrid(frames=32, rows=3, columns=3)), 9)
    assert run_passes(replace(method, least_frames=0.0), slow_clip(), passes=6, floor=floor)[1][-1] < left
    assert run_passes(method, slow_clip(), passes=6, floor=floor)[1][-1] == left


def test_duplicates_merge_whatever_share_of_frames_is_wanted_but_within_the_budget() -> None:
    method = EarlyTom(least_frames=1.0, tau_seg=0.3)
    assert run_passes(method, static_clip())[1] == [20, 12, 8]
    assert run_passes(method, static_clip(), floor=15)[1] == [20, 15, 15]
    assert run_passes(method, slow_clip())[1] == [32, 32, 32]
    assert run_passes(replace(method, duplicate_similarity=0.95), slow_clip(), passes=1)[1][0] < 32
    assert run_passes(EarlyTom(least_frames=1.0, duplicate_similarity=1.0), static_clip())[1] == [20, 12, 8]
    for value in (1.5, -1.1, "much"):
        with pytest.raises(MethodError, match=r"duplicate_similarity must be a number in \[-1.0, 1.0\]"):
            EarlyTom(duplicate_similarity=value)


def test_the_least_share_of_frames_is_checked_and_comes_from_knob_preset_or_default() -> None:
    left = {
        knobs: run_passes(EarlyTom(tau_seg=0.3, **dict(knobs)), slow_clip(), passes=6)[1][-1]
        for knobs in (
            (),
            (("preset", "fast"),),
            (("preset", "quality"),),
            (("preset", "quality"), ("least_frames", 0.5)),
        )
    }
    assert list(left.values()) == [23, 20, 26, 16]
    for bounded in ({"least_frames": 0.0}, {"preset": "mvbench"}):
        assert run_passes(EarlyTom(tau_seg=0.3, **bounded), slow_clip(), passes=6)[1][-1] < 16
    for value in (1.5, -0.1, "much", True):
        with pytest.raises(MethodError, match=r"least_frames must be a number in \[0.0, 1.0\]"):
            EarlyTom(least_frames=value)
    with pytest.raises(MethodError, match=r"least_frames does not go with compat='official'.*least_frames=0 takes"):
        EarlyTom(compat="official", least_frames=0.4)
    for preset in EVERYDAY:
        with pytest.raises(MethodError, match=rf"least_frames \(here set by preset '{preset}'\) does not go with"):
            EarlyTom(compat="official", preset=preset)
        EarlyTom(compat="official", preset=preset, least_frames=0.0)
    EarlyTom(compat="official", least_frames=0.0)


@pytest.mark.parametrize(("frames", "alike", "near_duplicates"), [(2, 2, 2), (3, 3, 3), (4, 3, 3), (5, 4, 3)])
def test_short_clips_by_default(frames, alike, near_duplicates) -> None:
    assert run_passes(EarlyTom(tau_seg=0.3), slow_clip(frames))[1][-1] == alike
    assert run_passes(EarlyTom(), static_clip(frames))[1][-1] == near_duplicates


def test_a_composition_keeps_the_least_share_of_frames_over_all_passes() -> None:
    method = EarlyTom(tau_seg=0.3)
    composed = run_passes(compose(method, VisionZip()), slow_clip())[1]
    assert composed == run_passes(method, slow_clip())[1]
    assert composed[-1] == 23


@quick
@given(scene_clips(), st.sampled_from(["default", "paper"]), st.integers(1, 24), st.sampled_from([None, 0.0, 0.4]))
def test_the_floor_holds_over_all_passes(features, compat, floor, least_frames) -> None:
    method = EarlyTom(compat=compat, tau_seg=0.3, least_frames=least_frames)
    _, numbers = run_passes(method, features, floor=floor)
    assert numbers[-1] >= min(floor, len(features))
    assert numbers == sorted(numbers, reverse=True)


@quick
@given(scene_clips(), variants)
def test_runs_repeat_bit_for_bit(features, compat) -> None:
    method = EarlyTom(compat=compat)
    first, second = run_passes(method, features)[0], run_passes(method, features)[0]
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.attention, second.attention)
    assert first.origin.to_rows() == second.origin.to_rows()


def test_a_left_over_frame_is_weighed_by_the_input_frames_of_earlier_passes() -> None:
    origin = Reduction.from_rows([[(0, 1.0)], [(1, 0.5), (2, 0.5)], [(3, 1.0)], [(4, 1.0)], [(5, 1.0)]], 6)
    states = FrameStates(features=static_clip(5), attention=None, origin=origin)
    reduction = EarlyTom().merge_frames(states, 14, 1).reduction
    assert [weight for _, weight in reduction.to_rows()[1]] == pytest.approx([0.375, 0.375, 0.25])


@pytest.mark.parametrize("compat", VARIANTS)
def test_a_clip_of_one_frame_is_not_merged(compat) -> None:
    assert run_passes(EarlyTom(compat=compat), torch.randn(1, 9, 16))[1] == [1, 1, 1]


def test_the_threshold_is_reported_and_comes_from_knob_preset_or_clip() -> None:
    states = FrameStates(features=torch.randn(8, 9, 16), attention=None, origin=Reduction.identity(8))
    assert EarlyTom(tau_seg=0.42).merge_frames(states, 6, 1).details["tau_seg"] == 0.42
    assert EarlyTom(preset="mvbench", retention=0.1).merge_frames(states, 8, 1).details["tau_seg"] == 0.65
    assert EarlyTom(preset="mvbench", tau_seg=0.42).merge_frames(states, 6, 1).details["tau_seg"] == 0.42
    assert 0.5 <= EarlyTom().merge_frames(states, 6, 1).details["tau_seg"] <= 0.8


# Stage II


@pytest.mark.parametrize("compat", ["default", "paper"])
@pytest.mark.parametrize("retention", [0.001, 0.05, 0.1, 0.137, 0.15, 0.2, 0.25, 0.5, 0.77, 0.9, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5, 3.0])
def test_the_budget_is_exact_for_every_retention_and_merging_outcome(compat, retention, noise) -> None:
    generator = torch.Generator().manual_seed(0)
    features = static_clip(32) + noise * torch.randn(32, 9, 16, generator=generator)
    method = EarlyTom(compat=compat, retention=retention, tau_seg=0.3)
    grid = FrameGrid(frames=32, rows=3, columns=3)
    budget = method.budget(grid)
    assert budget == max(1, round(retention * 32 * 9))
    states, _ = run_passes(method, features, floor=frame_floor(budget, 9), attention=torch.rand(32, 9))
    reduction = method.select_tokens(tokens_of(states, grid), budget).reduction
    kept = reduction.source.tolist()
    assert len(kept) == budget
    assert kept == sorted(set(kept))
    assert reduction.weight is None


@quick
@given(scene_clips(), st.floats(0.01, 1), variants, st.booleans(), st.booleans())
def test_whole_clips_keep_the_budget_the_order_and_no_token_twice(
    features, retention, compat, merges, decoupled
) -> None:
    frames, per_frame = features.shape[:2]
    method = EarlyTom(retention=retention, compat=compat, decoupled_selection=decoupled, tau_seg=0.6)
    grid = FrameGrid(frames=frames, rows=3, columns=3)
    budget = max(1, round(retention * grid.tokens))
    attention = torch.rand(frames, per_frame, generator=torch.Generator().manual_seed(0))
    states, _ = run_passes(
        method, features, passes=3 if merges else 0, floor=frame_floor(budget, per_frame), attention=attention
    )
    decision = method.select_tokens(tokens_of(states, grid), budget)
    kept = decision.reduction.source.tolist()
    assert kept == sorted(set(kept))
    assert sum(decision.details["tokens_per_frame"]) == len(kept)
    if compat != "official":
        assert len(kept) == budget


@quick
@given(scene_clips(), st.floats(0.05, 1), variants)
def test_selection_equals_the_naive_reference(features, retention, compat) -> None:
    frames, per_frame = features.shape[:2]
    grid = FrameGrid(frames=frames, rows=3, columns=3)
    method = EarlyTom(retention=retention, compat=compat, tau_seg=0.6)
    attention = torch.randint(0, 4, (frames, per_frame), generator=torch.Generator().manual_seed(0)).float()
    states = FrameStates(features=features, attention=attention, origin=Reduction.identity(frames))
    decision = method.select_tokens(tokens_of(states, grid), max(1, round(retention * grid.tokens)))
    segments = segment_naively(frame_similarity(features).tolist(), 0.6, 0.9, 6)
    static = [first < frame < last for first, last in segments for frame in range(first, last + 1)]
    assert decision.details["segments"] == segments
    assert decision.details["dynamic"] == [not flag for flag in static]
    counts = decision.details["tokens_per_frame"]
    if compat == "official":
        counts = [max(1, round(per_frame * retention)) if flag else math.ceil(per_frame * retention) for flag in static]
    assert decision.reduction.source.tolist() == select_naively(attention.tolist(), counts, static)


@pytest.mark.parametrize(("retention", "total"), [(0.10, 640), (0.15, 960), (0.20, 1280), (0.25, 1568)])
def test_official_counts_drift_as_published_when_nothing_merges(retention, total) -> None:
    """methods.md 2.4: 640 tokens at 10% of 32 frames, where 627 were asked for."""
    method = EarlyTom(retention=retention, compat="official", tau_seg=0.8)
    decision = method.select_tokens(
        pooled_tokens(32, 32, torch.eye(32)), method.budget(FrameGrid(frames=32, rows=14, columns=14))
    )
    assert decision.reduction.outputs == total


@pytest.mark.parametrize(
    ("retention", "dynamic", "static"), [(0.1, 20, 20), (0.15, 30, 29), (0.2, 40, 39), (0.25, 49, 49)]
)
def test_official_static_frames_round_where_dynamic_frames_round_up(retention, dynamic, static) -> None:
    method = EarlyTom(retention=retention, compat="official", tau_seg=0.8)
    counts = method.select_tokens(pooled_tokens(5, 5, torch.ones(5, 5)), 1).details["tokens_per_frame"]
    assert counts == [dynamic, static, static, static, dynamic]


def test_official_gives_what_merging_saved_to_the_frames_that_are_left() -> None:
    method = EarlyTom(retention=0.1, compat="official", tau_seg=0.8)
    counts = method.select_tokens(pooled_tokens(17, 32, torch.eye(17)), 627).details["tokens_per_frame"]
    assert counts == [math.ceil(196 * 0.1 * 32 / 17)] * 17
    everything = EarlyTom(retention=0.25, compat="official", tau_seg=0.8)
    assert everything.select_tokens(pooled_tokens(4, 32, torch.eye(4)), 1568).reduction.outputs == 4 * 196


@pytest.mark.parametrize("compat", VARIANTS)
@pytest.mark.parametrize("decoupled", [True, False])
def test_dynamic_frames_may_share_what_they_keep(compat, decoupled) -> None:
    tokens = visual_tokens(9, 6, 6)
    similarity = torch.block_diag(torch.ones(4, 4), torch.ones(5, 5))
    tokens = replace(tokens, frame_similarity=similarity if decoupled else None)
    by_grid, by_clip = (
        EarlyTom(retention=0.3, compat=compat, tau_seg=0.8, decoupled_selection=decoupled, dynamic_selection=reading)
        for reading in ("frame", "clip")
    )
    budget = by_clip.budget(tokens.grid)
    counts = by_grid.select_tokens(tokens, budget).details["tokens_per_frame"]
    decision = by_clip.select_tokens(tokens, budget)
    static = [not flag for flag in decision.details["dynamic"]]
    assert any(static) == decoupled
    assert "tokens_per_frame" not in decision.details
    assert decision.reduction.source.tolist() == select_together_naively(tokens.attention.tolist(), counts, static)
    if compat != "official":
        assert decision.reduction.outputs == budget


def test_official_rounds_the_retention_itself_where_nothing_merged() -> None:
    """0.1 * 24 / 24 is more than 0.1: a static frame of 25 tokens would keep round(2.5000000000000004) = 3 of them."""
    tokens = replace(visual_tokens(24, 5, 5), frame_similarity=torch.ones(24, 24))
    method = EarlyTom(retention=0.1, compat="official", tau_seg=0.8, max_window=25)
    assert method.select_tokens(tokens, 60).details["tokens_per_frame"] == [3, *[2] * 22, 3]


@pytest.mark.parametrize("compat", VARIANTS)
def test_segments_of_one_or_two_frames_are_dynamic_and_longer_ones_have_static_middles(compat) -> None:
    similarity = torch.block_diag(torch.ones(1, 1), torch.ones(2, 2), torch.ones(3, 3), torch.ones(4, 4))
    decision = EarlyTom(compat=compat, tau_seg=0.8).select_tokens(pooled_tokens(10, 10, similarity), 500)
    assert decision.details["segments"] == [(0, 0), (1, 2), (3, 5), (6, 9)]
    assert decision.details["dynamic"] == [True, True, True, True, False, True, True, False, False, True]


def test_attention_ties_keep_the_lowest_index() -> None:
    method = EarlyTom(tau_seg=0.8)
    tokens = replace(pooled_tokens(3, 3, torch.ones(3, 3), side=4), attention=torch.full((3, 16), 0.5))
    kept = method.select_tokens(tokens, 12).reduction.source.tolist()
    assert kept == [0, 1, 2, 3, 16, 20, 24, 28, 32, 33, 34, 35]


def test_selection_needs_attention() -> None:
    tokens = replace(pooled_tokens(3, 3, torch.ones(3, 3)), attention=None)
    with pytest.raises(MethodError, match="received attention"):
        EarlyTom().select_tokens(tokens, 10)


# Extreme clips


def extreme_clips() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    different = torch.randn(12, 9, 16, generator=generator)
    some_nan = static_clip(12)
    some_nan[5:8] = float("nan")
    return {
        "black": torch.zeros(12, 9, 16),
        "black with a flash": torch.zeros(12, 9, 16).index_fill(0, torch.tensor([6]), 1.0),
        "nan": torch.full((12, 9, 16), float("nan")),
        "some nan": some_nan,
        "infinite": torch.full((12, 9, 16), float("inf")),
        "identical": static_clip(12),
        "different": different,
        "opposite": static_clip(12) * torch.tensor([1.0, -1.0] * 6)[:, None, None],
        "tiny": different * 1e-30,
        "huge": different * 1e18,
        "one frame": different[:1],
        "two frames": different[:2],
    }


@pytest.mark.parametrize("tau_seg", [None, -1.0, 0.5, 1.0])
@pytest.mark.parametrize("compat", VARIANTS)
@pytest.mark.parametrize("name", extreme_clips())
def test_extreme_clips_neither_crash_nor_miss_the_budget(name, compat, tau_seg) -> None:
    features = extreme_clips()[name]
    method = EarlyTom(compat=compat, tau_seg=tau_seg)
    grid = FrameGrid(frames=len(features), rows=3, columns=3)
    budget = max(1, round(0.25 * grid.tokens))
    attention = torch.full(features.shape[:2], float("nan")) if "nan" in name else None
    states, numbers = run_passes(method, features, floor=frame_floor(budget, 9), attention=attention)
    kept = method.select_tokens(tokens_of(states, grid), budget).reduction.source.tolist()
    assert kept == sorted(set(kept))
    assert 1 <= len(kept) <= numbers[-1] * 9
    if compat != "official":
        assert len(kept) == budget


@pytest.mark.parametrize("compat", VARIANTS)
def test_a_black_clip_has_similarity_zero_so_nothing_merges(compat) -> None:
    assert run_passes(EarlyTom(compat=compat), torch.zeros(12, 9, 16))[1] == [12, 12, 12]


# Stepping aside


@pytest.mark.parametrize(
    ("frames", "side", "compat", "reason"),
    [
        (1, 14, "default", "one frame"), (1, 14, "paper", "one frame"), (1, 14, "official", None),
        (2, 5, "default", "50 visual tokens"), (4, 4, "default", None), (2, 5, "official", None),
        (32, 14, "default", None),
    ],
)  # fmt: skip
def test_steps_aside_for_single_frames_and_short_prompts_only(frames, side, compat, reason) -> None:
    grid = FrameGrid(frames=frames, rows=side, columns=side)
    method = EarlyTom(compat=compat, retention=0.25)
    said = method.steps_aside(grid)
    assert said is None if reason is None else reason in said
    assert method.budget(grid) == (grid.tokens if reason else max(1, round(0.25 * grid.tokens)))


@quick
@given(st.floats(0.001, 1), st.integers(1, 64), st.integers(1, 27), variants)
def test_the_budget_is_the_rounded_share_unless_it_steps_aside(retention, frames, side, compat) -> None:
    grid = FrameGrid(frames=frames, rows=side, columns=side)
    method = EarlyTom(retention=retention, compat=compat)
    share = min(grid.tokens, max(1, round(retention * frames * side * side)))
    assert method.budget(grid) == (grid.tokens if method.steps_aside(grid) else share)
    assert method.exact_budget == (compat != "official")


# Plans and ablations


@pytest.mark.parametrize(
    ("compat", "layers"), [("default", (3, 10, 16)), ("official", (6, 14, 20)), ("paper", (6, 14, 20))]
)
def test_plan_without_knobs(compat, layers) -> None:
    plan = EarlyTom(compat=compat).encoder_plan(EncoderShape(depth=26))
    assert (plan.merge_layers, plan.attention_layer, plan.frame_similarity) == (layers, layers[-1], True)
    assert EarlyTom(compat=compat).llm_plan(28).reduce_before == ()


@pytest.mark.parametrize("depth", range(1, 60))
def test_default_layers_fit_every_encoder(depth) -> None:
    plan = EarlyTom().encoder_plan(EncoderShape(depth=depth))
    assert plan.attention_layer == plan.merge_layers[-1] < depth


def test_layers_that_the_encoder_lacks_are_refused() -> None:
    with pytest.raises(MethodError, match=r"merge_layers 26 does not fit a vision encoder of 26 layers.*0 to 25"):
        EarlyTom(merge_layers=(6, 26)).encoder_plan(EncoderShape(depth=26))
    assert EarlyTom(merge_layers=(6, 25)).encoder_plan(EncoderShape(depth=26)).attention_layer == 25


def test_without_frame_merging_the_attention_still_comes_from_the_last_merge_layer() -> None:
    plan = EarlyTom(frame_merging=False, merge_layers=(3, 7)).encoder_plan(EncoderShape(depth=26))
    assert (plan.merge_layers, plan.attention_layer, plan.frame_similarity) == ((), 7, True)


def scene_of_five() -> FrameStates:
    """One segment whose middle pair (1, 2) is more alike than its ends."""
    start, end = torch.tensor([1.0, 0.0]), torch.tensor([0.7, 0.714])
    frames = torch.stack([start + (end - start) * share for share in (0.0, 0.5, 0.52, 0.8, 1.0)])[:, None]
    return FrameStates(features=frames, attention=None, origin=Reduction.identity(5))


def middle_weights(method: EarlyTom) -> list[tuple[int, float]]:
    return method.merge_frames(scene_of_five(), 6, 1).reduction.to_rows()[1]


def test_unweighted_merging_takes_the_plain_mean() -> None:
    paper = EarlyTom(compat="paper", tau_seg=0.5)
    (_, first), (_, second) = middle_weights(paper)
    assert first > second
    assert [weight for _, weight in middle_weights(replace(paper, weighted_merging=False))] == [0.5, 0.5]


def test_the_three_variants_differ_on_one_segment() -> None:
    outcomes = {
        compat: [[s for s, _ in row] for row in method.merge_frames(scene_of_five(), 6, 1).reduction.to_rows()]
        for compat in VARIANTS
        for method in [EarlyTom(compat=compat, tau_seg=0.5, least_frames=0.0)]
    }
    assert outcomes == {
        "default": [[0], [1, 2, 3], [4]],
        "official": [[0], [1, 2], [4]],
        "paper": [[0], [1, 2], [3], [4]],
    }


def test_all_dynamic_selection_takes_the_highest_scores_of_every_frame() -> None:
    tokens = pooled_tokens(5, 5, torch.ones(5, 5))
    method = EarlyTom(tau_seg=0.8, decoupled_selection=False)
    assert not method.encoder_plan(EncoderShape(depth=26)).frame_similarity
    decision = method.select_tokens(tokens, 245)
    assert decision.details["dynamic"] == [True] * 5
    expected = select_naively(tokens.attention.tolist(), [49] * 5, [False] * 5)
    assert decision.reduction.source.tolist() == expected
    decoupled = replace(method, decoupled_selection=True).select_tokens(tokens, 245).reduction.source.tolist()
    assert decoupled != expected
    assert len(decoupled) == len(expected)


@pytest.mark.parametrize(
    ("knobs", "longest"),
    [({}, 2), ({"ema": 0.3}, 5), ({"tau_seg": 0.95}, 1), ({"tau_seg": 0.6}, 5), ({"tau_seg": 0.6, "max_window": 4}, 3)],
)
def test_segmentation_knobs_change_the_segments(knobs, longest) -> None:
    similarity = torch.full((12, 12), 0.7).fill_diagonal_(1.0)
    method = replace(EarlyTom(tau_seg=0.72, ema=0.9, max_window=6), **knobs)
    segments = method.select_tokens(pooled_tokens(12, 12, similarity), 500).details["segments"]
    assert max(last - first + 1 for first, last in segments) == longest


def test_inner_merging_is_off_by_default_on_with_the_papers_presets_and_obeys_its_knobs() -> None:
    acting = {name for name in preset_names() if EarlyTom(preset=name).llm_plan(28).reduce_before}
    assert acting == {"paper", *PRESETS}
    assert EarlyTom(inner_merging=True).llm_plan(28).reduce_before == (18,)
    assert EarlyTom(inner_merging=True).llm_plan(24).reduce_before == (18,)
    assert EarlyTom(inner_merging=True, inner_layer=3).llm_plan(28).reduce_before == (3,)
    assert EarlyTom(inner_merging=True, inner_ratio=0.0).llm_plan(28).reduce_before == ()
    assert EarlyTom(inner_layer=3).llm_plan(28).reduce_before == ()
    with pytest.raises(MethodError, match="inner_layer 28 does not fit a language model of 28 layers"):
        EarlyTom(inner_merging=True, inner_layer=28).llm_plan(28)


@pytest.mark.parametrize("depth", range(2, 19))
def test_the_inner_layer_scales_to_shallow_language_models(depth) -> None:
    (layer,) = EarlyTom(inner_merging=True).llm_plan(depth).reduce_before
    assert 1 <= layer < depth
    assert abs(layer - 18 / 28 * depth) <= 1


@pytest.mark.parametrize(("compat", "sequential"), [("default", False), ("paper", False), ("official", True)])
@pytest.mark.parametrize("ratio", [0.5, 0.7])
def test_inner_merging_equals_the_naive_loop(compat, sequential, ratio) -> None:
    hidden, attention = torch.randn(30, 8), torch.rand(30)
    states = LanguageStates(features=hidden, attention=attention, entered=30, depth=28)
    reduction = EarlyTom(compat=compat, inner_merging=True, inner_ratio=ratio).reduce_in_llm(states, 18)
    kept, expected = merge_dropped_naively(hidden, attention, ratio, sequential)
    assert reduction.survivors().tolist() == kept
    torch.testing.assert_close(reduction.apply(hidden).double(), expected, atol=1e-5, rtol=1e-5)
