"""The generated clips: deterministic, and their truth agrees with their pixels."""

import numpy as np
import pytest

from earlytom.testbed.labels import IGNORED, patch_labels, token_labels
from earlytom.testbed.scene_sampling import sample_clip
from earlytom.testbed.scene_types import COLOURS, DIRECTIONS, SLOT_COUNT, Truth
from earlytom.testbed.scenes import draw_clip, generate_clip, uniform_slots

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


def test_every_visible_object_has_its_colour_at_its_centre() -> None:
    checked = 0
    for seed in SEEDS:
        frames, truth = generate_clip(seed, degrade=False)
        for frame, column in np.argwhere(truth.visible):
            x, y = truth.centres[frame, column].round().astype(int)
            pixel = frames[frame, y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(axis=0)
            assert nearest_colour(pixel) == truth.objects[column].colour, (seed, frame, column)
            checked += 1
    assert checked > 400


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
                assert np.abs(travelled).max() < 7
                continue
            assert float(travelled @ np.array(DIRECTIONS[item.direction])) > 20
            moved += 1
    assert moved > 10


def test_scenes_are_cut_hard_and_last_at_least_four_frames() -> None:
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


def test_objects_never_overlap_and_no_colour_is_used_twice() -> None:
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
            x, y = (truth.centres[frame, column] // 8).astype(int)
            colour = labels.colour[frame, 12 * y + x]
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
