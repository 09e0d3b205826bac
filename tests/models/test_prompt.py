"""Index arithmetic of shortened prompts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earlytom.errors import CompressionError
from earlytom.models.prompt import by_frame, check_placeholders, keep_first, shorten_prompt
from earlytom.types import FrameGrid, KeptTokens


@st.composite
def prompts(draw):
    """Rows of text runs and clips: per row a list of (text length, placeholders, kept placeholders)."""
    rows = draw(
        st.lists(
            st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 6)), max_size=3),
            min_size=1,
            max_size=3,
        )
    )
    return [[(text, size, min(size, kept)) for text, size, kept in row] for row in rows]


def naive(rows, length):
    """Positions that stay in each padded row."""
    expected = []
    for row in rows:
        cells = [(False, True)]  # one text token in front, so that no row is empty
        for text, size, kept in row:
            cells += [(False, True)] * text + [(True, index < kept) for index in range(size)]
        pad = length - len(cells)
        cells = [(False, True)] * pad + cells
        expected.append([index for index, (_, stays) in enumerate(cells) if stays])
    return expected


@given(prompts(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_shortened_rows_equal_a_naive_walk(rows, pad_right) -> None:
    cells = [[False] + [flag for text, size, _ in row for flag in [False] * text + [True] * size] for row in rows]
    length = max(map(len, cells))
    is_video = torch.tensor([[False] * (length - len(row)) + row for row in cells])
    before = [size for row in rows for _, size, _ in row]
    after = [kept for row in rows for _, _, kept in row]
    short = shorten_prompt(keep_first(is_video, before, after), is_video, pad_right=pad_right)
    expected = naive(rows, length)
    for number, positions in enumerate(expected):
        real = short.index[number][~short.filler[number]].tolist()
        assert real == positions
        assert short.dropped[number] == length - len(positions)
        gaps = short.filler[number].nonzero().flatten().tolist()
        size = short.index.shape[1]
        edge = range(len(positions), size) if pad_right else range(size - len(positions))
        assert gaps == list(edge)
        visual = [index for index in short.visual_positions[number]]
        assert [int(short.index[number, index]) for index in visual] == [
            position for position in positions if is_video[number, position]
        ]


def test_take_fills_the_gaps() -> None:
    is_video = torch.tensor([[False, True, True], [False, False, False]])
    short = shorten_prompt(keep_first(is_video, [2], [1]), is_video, pad_right=False)
    assert short.take(torch.tensor([[5, 6, 7], [1, 2, 3]]), -1).tolist() == [[-1, 5, 6], [1, 2, 3]]


def test_tokens_go_into_the_order_of_their_frames_and_each_needs_a_place() -> None:
    grid = FrameGrid(frames=3, rows=1, columns=2)
    tokens = KeptTokens(features=torch.arange(4.0)[:, None], places=torch.tensor([5, 0, 4, 1]))
    (ordered,), counts = by_frame([tokens], [grid])
    assert ordered.places.tolist() == [0, 1, 5, 4]
    assert ordered.features.flatten().tolist() == [1, 3, 0, 2]
    assert counts == [[2, 0, 2]]
    crowded = KeptTokens(features=torch.zeros(3, 1), places=torch.tensor([2, 2, 3]))
    with pytest.raises(CompressionError, match="3 tokens were kept in one frame of 2"):
        by_frame([crowded], [grid])


def test_placeholders_must_match() -> None:
    with pytest.raises(CompressionError, match="2 video placeholder tokens, but its 1 video"):
        check_placeholders(torch.tensor([[True, True, False]]), 3, 1)
    check_placeholders(torch.tensor([[True, True, False]]), 2, 1)
