"""The generated clips: deterministic, and their truth agrees with their pixels."""

import numpy as np
import pytest

from earlytom.testbed.labels import IGNORED, patch_labels, token_labels
from earlytom.testbed.scene_sampling import sample_clip
from earlytom.testbed.scene_types import COLOURS, DIRECTIONS, SLOT_COUNT, Truth
from earlytom.testbed.scenes import code_video, draw_clip, generate_clip, uniform_slots

SEEDS = range(940_000_000, 940_000_025)


def nearest_colour(pixel: np.ndarray) -> str:
    """Name the object colour whose hue is nearest to ``pixel``, brightness aside."""
    direction = pixel / np.linalg.norm(pixel)
    names = list(COLOURS)
    table = np.array([COLOURS[name] for name in names], dtype=np.float64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    return names[int((table @ direction).argmax())]


def changed(truth: Truth, column: int) -> np.ndarray:
    """Return the centres of one object in the frames that show it, [n, 2]."""
    return truth.centres[truth.visible[:, column], column]


def test_equal_seeds_give_equal_clips_and_other_seeds_others() -> None:
    first, _ = generate_clip(11)
    again, _ = generate_clip(11)
    other, _ = generate_clip(12)
    assert first.shape == (SLOT_COUNT, 96, 96, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_visible_object_has_its_colour_where_it_is() -> None:
    checked = 0
    for seed in SEEDS:
        frames, truth = generate_clip(seed, degrade=False)
        for frame, column in np.argwhere(truth.visible):
            row, across = np.unravel_index(truth.coverage[frame, column].argmax(), (12, 12))
            if truth.coverage[frame, column, row, across] < 0.95:
                continue
            patch = frames[frame, 8 * row : 8 * row + 8, 8 * across : 8 * across + 8]
            pixel = patch.reshape(-1, 3).mean(axis=0)
            assert nearest_colour(pixel) == truth.objects[column].colour, (seed, frame, column)
            checked += 1
    assert checked > 300


def test_an_object_that_is_not_visible_leaves_no_trace() -> None:
    for seed in SEEDS:
        clip = sample_clip(seed)
        brief = [column for column, item in enumerate(clip.objects) if item.brief]
        if not brief:
            continue
        frames, truth = draw_clip(clip, uniform_slots(SLOT_COUNT), degrade=False)
        shown = truth.visible[:, brief[0]]
        assert 1 <= shown.sum() <= 2
        same_scene = np.flatnonzero((truth.scene == clip.objects[brief[0]].scene) & ~shown)
        x, y = changed(truth, brief[0])[0].round().astype(int)
        seen = frames[np.flatnonzero(shown)[0], y, x].astype(float)
        gone = frames[same_scene, y, x].astype(float)
        assert (np.abs(gone - seen).sum(axis=1) > 30).all()


def test_the_centre_moves_the_way_the_truth_says() -> None:
    moved = 0
    for seed in SEEDS:
        _, truth = generate_clip(seed)
        for column, item in enumerate(truth.objects):
            path = changed(truth, column)
            travelled = path[-1] - path[0]
            if item.direction is None:
                assert np.abs(travelled).max() < 16
                continue
            along = float(travelled @ np.array(DIRECTIONS[item.direction]))
            if len(path) < 3 or np.ptp(path, axis=0).max() < 14:
                continue
            assert along > 8
            moved += 1
    assert moved > 10


def test_cuts_change_more_than_anything_between_them_and_scenes_last_four_frames() -> None:
    lengths: set[int] = set()
    for seed in SEEDS:
        frames, truth = generate_clip(seed, degrade=False)
        counts = np.bincount(truth.scene)
        assert counts.min() >= 4
        lengths.add(len(counts))
        change = np.abs(np.diff(frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
        cuts = np.diff(truth.scene) > 0
        if cuts.any():
            assert change[cuts].min() > np.median(change[~cuts])
    assert lengths == {1, 2, 3}


def test_a_cross_fade_shows_both_scenes() -> None:
    found = 0
    for seed in SEEDS:
        clip = sample_clip(seed)
        for before, scene in zip(clip.scenes, clip.scenes[1:], strict=False):
            if not scene.fade:
                continue
            cut = scene.first_slot - 0.5
            slots = np.array([cut - 1.5, cut, cut + 1.5], dtype=np.float32)
            if slots[0] < before.first_slot or slots[2] > scene.end_slot - 1:
                continue
            first, middle, last = draw_clip(clip, slots, degrade=False)[0].astype(float)
            distance = np.abs(first - last).mean()
            assert np.abs(middle - (first + last) / 2).mean() < 0.5 * distance + 4
            found += 1
    assert found > 3


def test_what_makes_clips_hard_occurs() -> None:
    clips = [sample_clip(seed) for seed in range(940_000_000, 940_000_200)]
    scenes = [scene for clip in clips for scene in clip.scenes]
    shares = {
        "fade": np.mean([scene.fade > 0 for scene in scenes if scene.first_slot]),
        "zoom": np.mean([scene.zoom != 1.0 for scene in scenes]),
        "haze": np.mean([scene.haze_share > 0 for scene in scenes]),
        "shake": np.mean([scene.shake > 0 for scene in scenes]),
        "bar": np.mean([scene.occluder is not None for scene in scenes]),
        "h264": np.mean([clip.rate_factor is not None for clip in clips]),
        "brief": np.mean([any(item.brief for item in clip.objects) for clip in clips]),
    }
    assert all(0.12 < share < 0.6 for share in shares.values()), shares
    radii = [item.radius for clip in clips for item in clip.objects]
    assert max(radii) > 1.6 * min(radii)


def test_moving_objects_pass_before_each_other_and_behind_bars() -> None:
    hidden = crossed = 0
    for seed in range(940_000_000, 940_000_060):
        clip = sample_clip(seed)
        _, truth = draw_clip(clip, uniform_slots(SLOT_COUNT), degrade=False)
        area = truth.coverage.sum(axis=(2, 3))
        for column, item in enumerate(truth.objects):
            seen = area[truth.visible[:, column], column]
            if item.direction and len(seen) and seen.min() < 0.7 * seen.max():
                hidden += clip.scenes[item.scene].occluder is not None
                crossed += clip.scenes[item.scene].occluder is None
    assert hidden >= 3
    assert crossed >= 3


def test_coding_a_video_keeps_its_frames() -> None:
    frames, _ = generate_clip(940_000_002, degrade=False)
    fine, coarse = code_video(frames, 18), code_video(frames, 34)
    assert fine.shape == frames.shape
    assert np.array_equal(coarse, code_video(frames, 34))
    errors = [np.abs(coded.astype(float) - frames).mean() for coded in (fine, coarse)]
    assert 0 < errors[0] < errors[1] < 12


def test_no_pixel_shows_two_objects_and_no_colour_is_used_twice() -> None:
    for seed in SEEDS:
        _, truth = generate_clip(seed)
        colours = [item.colour for item in truth.objects]
        assert len(set(colours)) == len(colours)
        assert float(truth.coverage.sum(axis=1).max()) <= 1.001


def test_truth_does_not_depend_on_the_resolution() -> None:
    _, small = generate_clip(940_000_003, size=96)
    frames, large = generate_clip(940_000_003, size=192)
    assert frames.shape == (SLOT_COUNT, 192, 192, 3)
    assert np.array_equal(small.visible, large.visible)
    assert np.allclose(small.centres, large.centres)
    assert np.abs(small.coverage - large.coverage).max() < 0.06


def test_size_must_fit_the_patches() -> None:
    with pytest.raises(ValueError, match="multiple of 12"):
        generate_clip(1, size=100)


def test_patch_labels_name_the_object_under_the_patch() -> None:
    for seed in SEEDS:
        _, truth = generate_clip(seed)
        labels = patch_labels(truth)
        for frame, column in np.argwhere(truth.visible):
            colour = labels.colour[frame, int(truth.coverage[frame, column].argmax())]
            assert colour in (IGNORED, 1 + list(COLOURS).index(truth.objects[column].colour))
        assert np.array_equal(labels.count, truth.visible.sum(axis=1))


def test_token_labels_know_motion_only_after_it_has_begun() -> None:
    found = 0
    for seed in SEEDS:
        _, truth = generate_clip(seed)
        motion = token_labels(truth).motion
        assert (motion[0] == IGNORED).all()
        moving = {1 + list(DIRECTIONS).index(item.direction) for item in truth.objects if item.direction}
        assert set(np.unique(motion)) - {IGNORED, 0} <= moving
        found += int((motion > 0).any())
    assert found > 8


def test_selected_frames_number_their_scenes_from_zero() -> None:
    _, truth = next(generate_clip(seed) for seed in SEEDS if generate_clip(seed)[1].scene[-1] == 2)
    third = truth.select(np.flatnonzero(truth.scene == 2))
    assert set(third.scene.tolist()) == {0}
    assert len(third.visible) == int((truth.scene == 2).sum())
