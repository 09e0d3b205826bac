"""EarlyTom's merging of frames: how many are left of clips whose outcome the specification states, and of others."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earlytom import EarlyTom, MethodError, Reduction, VisionZip, compose
from earlytom.methods.presets import EVERYDAY
from earlytom.ops import frame_floor, frame_similarity
from earlytom.types import FrameGrid, FrameStates
from earlytom_passes import VARIANTS, run_passes, static_clip
from reference.merging import matrix_of, plan_naively
from reference.segmentation import segment_naively
from reference.strategies import quick, scene_clips, variants

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
    assert list(left.values()) == [18, 20, 26, 16]
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


@pytest.mark.parametrize(("frames", "alike", "near_duplicates"), [(2, 2, 2), (3, 3, 3), (4, 3, 3), (5, 3, 3)])
def test_short_clips_by_default(frames, alike, near_duplicates) -> None:
    assert run_passes(EarlyTom(tau_seg=0.3), slow_clip(frames))[1][-1] == alike
    assert run_passes(EarlyTom(), static_clip(frames))[1][-1] == near_duplicates


def test_a_composition_keeps_the_least_share_of_frames_over_all_passes() -> None:
    method = EarlyTom(tau_seg=0.3)
    composed = run_passes(compose(method, VisionZip()), slow_clip())[1]
    assert composed == run_passes(method, slow_clip())[1]
    assert composed[-1] == 18


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


def test_the_threshold_is_reported_and_comes_from_knob_or_preset_or_there_is_none() -> None:
    states = FrameStates(features=torch.randn(8, 9, 16), attention=None, origin=Reduction.identity(8))
    assert EarlyTom(tau_seg=0.42).merge_frames(states, 6, 1).details["tau_seg"] == 0.42
    assert EarlyTom(preset="mvbench", retention=0.1).merge_frames(states, 8, 1).details["tau_seg"] == 0.65
    assert EarlyTom(preset="mvbench", tau_seg=0.42).merge_frames(states, 6, 1).details["tau_seg"] == 0.42
    assert EarlyTom().merge_frames(states, 6, 1).details["tau_seg"] is None
    assert 0.5 <= EarlyTom(compat="paper").merge_frames(states, 6, 1).details["tau_seg"] <= 0.8
