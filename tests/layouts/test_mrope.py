"""Positions with three axes of shortened prompts, against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom.errors import CompressionError
from earlytom.layouts.mrope import given_positions, next_positions, short_positions, text_positions
from earlytom.layouts.prompt import clip_positions, keep_first, shorten_prompt
from earlytom.types import FrameGrid
from reference.strategies import quick

CPU = torch.device("cpu")


@st.composite
def prompts(draw: st.DrawFn) -> list[list[tuple[int, list[int]]]]:
    """Samples: for each of their clips the text before it, and in any order which of its six tokens are kept."""
    kept = st.permutations(range(6)).flatmap(lambda order: st.integers(1, 6).map(lambda count: order[:count]))
    clips = st.lists(st.tuples(st.integers(0, 3), kept), max_size=3)
    return draw(st.lists(clips, min_size=1, max_size=3).filter(any))


@quick
@given(prompts(), st.booleans(), st.integers(0, 1000))
def test_what_stays_keeps_its_positions(samples, pad_right, seed) -> None:
    """Of each clip the positions of the very tokens that are kept, in their order; of text all; none in the padding."""
    grid = FrameGrid(frames=2, rows=1, columns=3)
    marks = [[False, *(mark for text, _ in clips for mark in [False] * text + [True] * 6)] for clips in samples]
    length = max(map(len, marks))
    offsets = [0 if pad_right else length - len(row) for row in marks]
    is_video = torch.zeros(len(marks), length, dtype=torch.bool)
    for number, (row, offset) in enumerate(zip(marks, offsets, strict=True)):
        is_video[number, offset : offset + len(row)] = torch.tensor(row)
    positions = torch.randint(0, 99, (3, len(marks), length), generator=torch.Generator().manual_seed(seed))
    kept = [torch.tensor(places) for clips in samples for _, places in clips]
    keep = keep_first(is_video, [6] * len(kept), list(map(len, kept)))
    for number, (row, offset) in enumerate(zip(marks, offsets, strict=True)):
        keep[number, :offset] = keep[number, offset + len(row) :] = False
    short = shorten_prompt(keep, is_video, pad_right=pad_right)
    clips = clip_positions(is_video, [grid] * len(kept))
    found = short_positions(positions, clips, kept, short, CPU)
    for number, (sample, offset) in enumerate(zip(samples, offsets, strict=True)):
        stay, place = [offset], offset + 1
        for text, places in sample:
            stay += [*range(place, place + text), *(place + text + token for token in places)]
            place += text + 6
        shown = ~short.filler[number]
        assert torch.equal(found[:, number, shown], positions[:, number, stay])
        assert not found[:, number, ~shown].any()


def test_text_is_counted_and_padding_is_not() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    assert text_positions(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 0, 0]]


def test_decoding_goes_on_behind_the_highest_position_that_is_shown() -> None:
    positions = torch.tensor([[[9, 0, 1], [0, 7, 2]], [[9, 4, 1], [0, 3, 2]], [[9, 0, 2], [0, 1, 30]]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 0]])
    assert next_positions(positions, mask).tolist() == [[5], [8]]


@pytest.mark.parametrize("axes", [3, 4])
def test_given_positions_are_the_last_three_axes(axes) -> None:
    given = torch.arange(axes * 10).view(axes, 2, 5)
    assert torch.equal(given_positions(given, (2, 5)), given[axes - 3 :])


@pytest.mark.parametrize("shape", [(2, 5), (2, 2, 5), (5, 2, 5), (3, 2, 4), (3, 1, 5), (1, 3, 2, 5)])
def test_given_positions_of_another_shape_are_refused(shape) -> None:
    found = ", ".join(map(str, shape))
    with pytest.raises(CompressionError, match=rf"position_ids must be \[3, 2, 5\].*got \({found}\)"):
        given_positions(torch.zeros(shape, dtype=torch.int64), (2, 5))
