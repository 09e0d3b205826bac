"""The packed sequence of a vision encoder, frame by frame and patch by patch."""

from __future__ import annotations

import pytest
import torch

from earlytom.layouts.packed_vision import GridLayout, grid_shape, mean_of_patches
from earlytom.types import FrameGrid

UNIT, UNITS, WIDTH = 4, 6, 3
ORDER = torch.tensor([2, 0, 5, 1, 4, 3])


def layout(order: torch.Tensor | None) -> GridLayout:
    cosines, sines = torch.rand(2, UNIT * UNITS, WIDTH, generator=torch.Generator().manual_seed(0))
    return GridLayout(patches=UNIT * UNITS, unit=UNIT, order=order, windows=(8, 8, 8), cosines=cosines, sines=sines)


def test_merge_units_go_into_the_order_of_the_sequence_and_back() -> None:
    patches = torch.randn(2 * UNIT * UNITS, WIDTH)
    sequence = layout(ORDER).to_sequence(patches).view(2, UNITS, UNIT, WIDTH)
    raster = patches.view(2, UNITS, UNIT, WIDTH)
    for frame in range(2):
        for place, unit in enumerate(ORDER.tolist()):
            assert torch.equal(sequence[frame, place], raster[frame, unit])
    assert torch.equal(layout(ORDER).to_raster(sequence), raster)


def test_without_an_order_the_sequence_is_that_of_the_raster() -> None:
    patches = torch.randn(2 * UNIT * UNITS, WIDTH)
    assert layout(None).to_sequence(patches) is patches
    assert layout(None).to_raster(patches) is patches


@pytest.mark.parametrize("order", [ORDER, None], ids=["windows", "raster"])
def test_scores_of_a_unit_are_the_mean_of_its_patches(order) -> None:
    scores = torch.rand(2, UNIT * UNITS)
    found = mean_of_patches(scores, layout(order))
    for frame in range(2):
        for place, unit in enumerate(range(UNITS) if order is None else order.tolist()):
            expected = sum(scores[frame, UNIT * place + patch] for patch in range(UNIT)) / UNIT
            torch.testing.assert_close(found[frame, unit], expected)


def test_every_frame_has_the_rotary_embedding_of_one() -> None:
    made = layout(ORDER)
    for frames in (3, 1, 3, 2):  # as frames leave, and again for another batch
        for found, one in zip(made.rotary(frames), (made.cosines, made.sines), strict=True):
            assert torch.equal(found, torch.cat([one] * frames))
    assert made.rotary(2)[0] is made.rotary(2)[0]


def test_attention_ends_at_frames_or_at_windows() -> None:
    whole = layout(ORDER).lengths(2, True, torch.device("cpu"))
    assert (whole["cu_seqlens"].tolist(), whole["max_seqlen"]) == ([0, 24, 48], 24)
    windows = layout(ORDER).lengths(2, False, torch.device("cpu"))
    assert (windows["cu_seqlens"].tolist(), windows["max_seqlen"]) == ([0, 8, 16, 24, 32, 40, 48], 8)
    assert whole["cu_seqlens"].dtype == windows["cu_seqlens"].dtype == torch.int32


def test_a_frame_is_a_clip_of_one_grid_to_stock() -> None:
    assert grid_shape(FrameGrid(frames=5, rows=3, columns=4), 2).tolist() == [[1, 6, 8]]
