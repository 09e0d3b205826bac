"""Index arithmetic of shortened prompts."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from claimed_device import ClaimedDevice, claim
from earlytom.errors import CompressionError
from earlytom.layouts.prompt import (
    HostPrompt,
    by_grid,
    check_placeholders,
    clip_positions,
    keep_first,
    on_host,
    shorten_prompt,
    spans,
)
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
    (ordered,), counts = by_grid([tokens], [grid])
    assert ordered.places.tolist() == [0, 1, 5, 4]
    assert ordered.features.flatten().tolist() == [1, 3, 0, 2]
    assert counts == [[2, 0, 2]]
    crowded = KeptTokens(features=torch.zeros(3, 1), places=torch.tensor([2, 2, 3]))
    with pytest.raises(CompressionError, match="3 tokens were kept in one frame of 2"):
        by_grid([crowded], [grid])


def test_placeholders_must_match() -> None:
    with pytest.raises(CompressionError, match="2 video placeholder tokens, but its 1 video"):
        check_placeholders(torch.tensor([[True, True, False]]), 3, 1)
    check_placeholders(torch.tensor([[True, True, False]]), 2, 1)


def test_the_prompt_of_a_call_lies_on_the_host_with_what_else_is_asked_for() -> None:
    inputs = {"input_ids": torch.tensor([[5, 6]]), "seconds": [0.5, 1.0], "unasked": torch.ones(1), "absent": None}
    prompt = HostPrompt.of(inputs, "seconds", "absent", "unknown")
    assert (prompt.ids.tolist(), prompt.mask.tolist(), prompt.right_padded) == ([[5, 6]], [[1, 1]], False)
    assert prompt.mask.dtype == torch.int64
    assert {name: value.tolist() for name, value in prompt.others.items()} == {"seconds": [0.5, 1.0]}
    padded = HostPrompt.of(inputs | {"attention_mask": torch.tensor([[1, 0]])}, ids=torch.tensor([[7, 8]]))
    assert (padded.ids.tolist(), padded.mask.tolist(), padded.right_padded) == ([[7, 8]], [[1, 0]], True)


@given(st.lists(st.booleans(), max_size=12))
def test_spans_are_the_runs_of_what_is_marked(marks) -> None:
    found = spans(torch.tensor(marks, dtype=torch.bool))
    assert [place for start, stop in found for place in range(start, stop)] == [
        place for place, mark in enumerate(marks) if mark
    ]
    assert all(stop < start for (_, stop), (start, _) in pairwise(found))


def test_placeholders_of_a_clip_are_found_across_samples() -> None:
    is_video = torch.tensor([[False, True, True], [True, True, True]])
    grids = [FrameGrid(frames=2, rows=1, columns=1), FrameGrid(frames=1, rows=1, columns=3)]
    assert [clip.tolist() for clip in clip_positions(is_video, grids)] == [[1, 2], [3, 4, 5]]


def test_where_shortened_positions_come_from_is_known_outside_the_padding() -> None:
    is_video = torch.tensor([[False, True, True], [False, False, False]])
    short = shorten_prompt(keep_first(is_video, [2], [1]), is_video, pad_right=False)
    assert short.prompt_positions.tolist() == [[-1, 0, 1], [0, 1, 2]]


SMALL = [
    torch.tensor([[3, -1], [2**40, 0]]),
    torch.tensor([[True], [False], [True]]),
    torch.tensor([1.5, -0.1, float("inf")]),
    torch.tensor([1.5, -0.1], dtype=torch.bfloat16),
    torch.tensor([7], dtype=torch.int32),
    torch.zeros(0, 3, dtype=torch.int64),
]


def test_small_tensors_come_to_the_host_in_one_copy_as_they_are() -> None:
    with ClaimedDevice() as device:
        there = [claim(part) for part in SMALL]
        device.reset()
        found = on_host(there)
        assert sum(device.waits.values()) == 1
    for part, expected in zip(found, SMALL, strict=True):
        assert part.device.type == "cpu"
        assert part.dtype == expected.dtype
        assert torch.equal(part, expected)


def test_what_does_not_fit_into_the_copy_comes_by_itself_and_what_is_there_stays() -> None:
    long = torch.tensor([0.1, 2.0**-1060], dtype=torch.float64)
    with ClaimedDevice() as device:
        there = [claim(SMALL[0]), SMALL[1], claim(long), claim(SMALL[4])]
        device.reset()
        found = on_host(there)
        assert sum(device.waits.values()) == 2
    assert found[1] is SMALL[1]
    assert all(torch.equal(part, like) for part, like in zip(found, [SMALL[0], SMALL[1], long, SMALL[4]], strict=True))
    assert [part.dtype for part in found] == [torch.int64, torch.bool, torch.float64, torch.int32]
