"""A clip with fewer of its frames: everything that is told frame by frame goes with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import earlytom

PLAIN = earlytom.read_video(np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3))
NEAR = dataclasses.replace(
    PLAIN,
    indices=(0, 10, 21, 30),
    timestamps=(0.0, 1.0, 2.1, 3.0),
    source_frames=40,
    asked=(0, 10, 20, 31),
    deviations=(0.0, 0.0, 0.1, -0.1),
)


def test_frames_keep_what_is_told_of_each() -> None:
    taken = NEAR.taking([0, 2])
    assert np.array_equal(taken.frames, NEAR.frames[[0, 2]])
    assert (taken.indices, taken.timestamps) == ((0, 21), (0.0, 2.1))
    assert (taken.asked, taken.deviations) == ((0, 20), (0.0, 0.1))
    assert taken.source_frames == 40


def test_where_only_frames_that_were_asked_for_are_left_none_is_told_to_be_near() -> None:
    taken = NEAR.taking([0, 1])
    assert taken.indices == (0, 10)
    assert (taken.asked, taken.deviations) == ((), ())


def test_what_is_not_told_stays_untold() -> None:
    taken = PLAIN.taking([3])
    assert np.array_equal(taken.frames, PLAIN.frames[3:])
    assert (taken.indices, taken.timestamps, taken.asked, taken.deviations) == ((3,), (), (), ())


def test_a_frame_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IndexError):
        NEAR.taking([4])
