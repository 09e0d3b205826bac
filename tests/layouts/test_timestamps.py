"""Prompts whose temporal grids stand behind timestamps, by ids alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from earlytom.errors import CompressionError
from earlytom.layouts.timestamps import VisionTokens, check_grids, keep_grids
from earlytom.types import FrameGrid
from families.qwen2_5_vl import END, START, VIDEO
from reference.strategies import quick

TOKENS = VisionTokens(video=VIDEO, start=START, end=END)
PER_FRAME = 2


def frame(stamp: list[int], tokens: int = PER_FRAME) -> list[int]:
    return [*stamp, START, *[VIDEO] * tokens, END]


def grids(*frames: int) -> list[FrameGrid]:
    return [FrameGrid(frames=count, rows=1, columns=PER_FRAME) for count in frames]


def left(row: list[int], counts: list[list[int]]) -> list[int]:
    """What stays of one prompt."""
    ids = torch.tensor([row])
    (keep,) = keep_grids(ids, TOKENS, grids(*map(len, counts)), counts)
    return ids[0, keep].tolist()


clips = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, PER_FRAME), min_size=1, max_size=4)), max_size=3)


@quick
@given(st.lists(clips, min_size=1, max_size=3).filter(any))
@example([[(True, [0, 1, 0]), (False, [0, 0, 2])], [(False, [1, 0, 0]), (True, [0, 2])], [(True, [0, 0])]])
def test_what_stays_is_the_prompt_written_anew(samples) -> None:
    """Each clip as the chat template writes it, or bare behind text; samples of unequal length, padded on the left."""
    before, after, counts = [], [], []
    for number, sample in enumerate(samples):
        whole, short = [7], [7]
        for framed, left_of_frames in sample:
            whole += [START] * framed
            short += [START] * framed
            for index, count in enumerate(left_of_frames):
                stamp = [100 + 10 * number + index, 8]
                whole += frame(stamp)
                # The first timestamp of a clip without a frame around it may as well be the user's text.
                short += frame(stamp, count) if count else stamp if index == 0 and not framed else []
            whole += [*[END] * framed, 9]
            short += [*[END] * framed, 9]
            counts.append(left_of_frames)
        before.append(whole)
        after.append(short)
    length = max(map(len, before))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in before])
    check_grids(ids, TOKENS, grids(*map(len, counts)))
    keep = keep_grids(ids, TOKENS, grids(*map(len, counts)), counts)
    for row, kept, whole, short in zip(ids, keep, before, after, strict=True):
        assert row[kept].tolist() == [0] * (length - len(whole)) + short


def test_a_first_grid_behind_an_image_leaves_its_timestamp_and_the_image() -> None:
    image = [START, 1, 1, END]
    row = [7, *image, 8, *frame([30]), *frame([31]), 9]
    assert left(row, [[0, 1]]) == [7, *image, 8, 30, *frame([31], 1), 9]
    assert left(row, [[2, 0]]) == [7, *image, 8, *frame([30]), 9]


@pytest.mark.parametrize(
    "row",
    [
        [7, START, VIDEO, VIDEO, 8, *frame([30])],
        [7, VIDEO, VIDEO, END, *frame([30])],
        [7, START, VIDEO, 8, VIDEO, END, *frame([30])],
        [VIDEO, VIDEO, END, *frame([30])],
        [*frame([30]), START, VIDEO, VIDEO],
        [7, START, VIDEO, VIDEO, VIDEO, END, 30, START, VIDEO, END],
    ],
    ids=["no end", "no start", "apart", "at the start", "at the end", "uneven"],
)
def test_placeholders_that_are_not_one_run_a_grid_are_refused(row) -> None:
    with pytest.raises(CompressionError, match=r"each of the 2 temporal grids of video 1 together, 2 between"):
        check_grids(torch.tensor([[*frame([1]), *row]]), TOKENS, grids(1, 2))


def test_a_run_from_one_sample_into_the_next_is_refused() -> None:
    ids = torch.tensor([[7, START, VIDEO], [VIDEO, END, 8]])
    with pytest.raises(CompressionError, match=f"vision_start .id {START}. and a vision_end .id {END}."):
        check_grids(ids, TOKENS, grids(1))
