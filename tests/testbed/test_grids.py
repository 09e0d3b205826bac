"""Grids of several frames: their truth, labels, features and the encoder's heads."""

import numpy as np
import pytest
import torch

from earlytom.testbed.event_heads import _EVENT_CLASSES, event_labels
from earlytom.testbed.labels import IGNORED, PatchLabels, patch_labels, token_labels
from earlytom.testbed.pool import ClipPool, View
from earlytom.testbed.scene_types import SLOT_COUNT, ByteArray, Truth
from earlytom.testbed.scenes import generate_clip
from earlytom.testbed.training_encoder import DenseHeads, _slots, frame_batch

SEEDS = range(944_000_000, 944_000_012)


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    """Return the truth of a dozen clips."""
    return [generate_clip(seed, degrade=False)[1] for seed in SEEDS]


def test_a_grid_shows_what_either_frame_shows(truths: list[Truth]) -> None:
    for truth in truths:
        grids = truth.in_grids(2)
        assert len(grids.scene) == SLOT_COUNT // 2
        for grid in range(SLOT_COUNT // 2):
            first, second = 2 * grid, 2 * grid + 1
            assert grids.scene[grid] == truth.scene[second]
            for column in range(len(truth.objects)):
                seen = [frame for frame in (first, second) if truth.visible[frame, column]]
                assert grids.visible[grid, column] == bool(seen)
                where = truth.centres[seen[-1] if seen else second, column]
                assert np.array_equal(grids.centres[grid, column], where)
            most = np.maximum(truth.coverage[first], truth.coverage[second])
            assert np.array_equal(grids.coverage[grid], most)


def test_grids_of_one_frame_change_nothing(truths: list[Truth]) -> None:
    assert truths[0].in_grids(1) is truths[0]


def test_what_one_frame_of_a_pair_shows_alone_is_labelled(truths: list[Truth]) -> None:
    found = 0
    for truth in truths:
        frames, grids = token_labels(truth), token_labels(truth, 2)
        for grid in range(SLOT_COUNT // 2):
            first, second = 2 * grid, 2 * grid + 1
            for shown, other in ((first, second), (second, first)):
                alone = (frames.object[shown] == 1) & (frames.object[other] == 0)
                found += int((alone & (frames.brief[shown] == 1)).sum())
                for name in ("colour", "shape", "brief", "object"):
                    assert np.array_equal(getattr(grids, name)[grid][alone], getattr(frames, name)[shown][alone])
    assert found > 0


def test_motion_is_known_at_the_end_of_a_grid(truths: list[Truth]) -> None:
    known = 0
    for truth in truths:
        frames, grids = token_labels(truth), token_labels(truth, 2)
        still = {0} if not any(item.direction for item in truth.objects) else set(range(5))
        assert set(grids.motion.ravel().tolist()) <= still | {IGNORED}
        for grid in range(SLOT_COUNT // 2):
            later = frames.motion[2 * grid + 1]
            same = (later != IGNORED) & (frames.colour[2 * grid + 1] == grids.colour[grid])
            known += int(same.sum())
            assert np.array_equal(grids.motion[grid][same], later[same])
    assert known > 50


def test_a_cut_inside_a_grid_leaves_labels_within_their_classes() -> None:
    most = 0
    for seed in range(944_000_200, 944_000_260):
        truth = generate_clip(seed, degrade=False)[1]
        most = max(most, int(truth.in_grids(2).visible.sum(axis=1).max()))
        labels = event_labels([View(torch.zeros(8, 144, 128), truth)])
        for name, classes in _EVENT_CLASSES.items():
            assert labels[name].shape == (1, 8 * 36)
            assert int(labels[name].max()) < classes, name
    assert most >= _EVENT_CLASSES["count"]


def index_features(frames: ByteArray) -> torch.Tensor:
    """Return features whose values are the numbers of the grids, [8, 144, 128]."""
    numbers = torch.arange(len(frames) // 2, dtype=torch.float32)
    return numbers[:, None, None].expand(-1, 144, 128)


@pytest.mark.parametrize(("frames", "grids"), [(1, 1), (2, 1), (4, 2), (8, 4), (16, 8)])
def test_a_view_holds_whole_pairs(frames: int, grids: int) -> None:
    pool = ClipPool(index_features, capacity=2)
    pool.add(1)
    whole = generate_clip(100_000_000)[1]
    for seed in range(4):
        view = pool.draw(1, frames, np.random.default_rng(seed))[0]
        assert view.features.shape == (grids, 144, 128)
        chosen = [int(value) for value in view.features[:, 0, 0]]
        assert chosen == sorted(set(chosen))
        index = [frame for grid in chosen for frame in (2 * grid, 2 * grid + 1)]
        assert np.array_equal(view.truth.coverage, whole.coverage[index])


def test_the_heads_of_a_pair_equal_two_sets_of_heads() -> None:
    truth = generate_clip(944_000_100, degrade=False)[1].select([2, 3, 8, 9])
    labels = patch_labels(truth)
    heads, hidden = DenseHeads(16, 2), torch.randn(2, 144, 16, generator=torch.Generator().manual_seed(1))
    total, _ = heads.losses(hidden, labels)
    parts = []
    for frame in range(2):
        single = DenseHeads(16)
        for name, head in single.named_children():
            source, width = getattr(heads, name), head.out_features
            head.weight.data = source.weight.data[frame * width : (frame + 1) * width]
            head.bias.data = source.bias.data[frame * width : (frame + 1) * width]
        parts.append(single)
    in_turn = torch.stack([head(hidden) for head in (parts[0].colour, parts[1].colour)], dim=1).flatten(0, 1)
    assert torch.allclose(heads._by_frame(heads.colour(hidden)), in_turn, atol=1e-6)
    # Labels of the first frames alone, twice, give the loss of the first heads.
    firsts = PatchLabels(*(np.repeat(values[::2], 2, axis=0) for values in vars(labels).values()))
    twice = DenseHeads(16, 2)
    for name, head in parts[0].named_children():
        getattr(twice, name).weight.data = head.weight.data.repeat(2, 1)
        getattr(twice, name).bias.data = head.bias.data.repeat(2)
    alone = PatchLabels(*(values[::2] for values in vars(labels).values()))
    assert torch.allclose(twice.losses(hidden, firsts)[0], parts[0].losses(hidden, alone)[0], atol=1e-5)
    assert not torch.allclose(total, parts[0].losses(hidden, alone)[0], atol=1e-3)


def test_frames_of_a_grid_lie_close_and_in_the_order_of_time() -> None:
    for seed in range(50):
        slots = _slots(np.random.default_rng(seed), 2)
        gaps = np.diff(slots)
        assert (gaps > 0).all()
        assert slots[0] >= 0
        assert slots[-1] <= SLOT_COUNT - 1
        assert ((gaps[::2] >= 0.5 - 1e-9) & (gaps[::2] <= 2.0 + 1e-9)).all()


def test_a_step_of_the_encoder_has_a_label_for_every_frame() -> None:
    frames, labels = frame_batch(3, clips=2, frames_per_grid=2)
    assert frames.shape == (2 * 3 * 2, 96, 96, 3)
    assert labels.colour.shape == (12, 144)
    assert labels.count.shape == (12,)
