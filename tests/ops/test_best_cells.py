"""The best cells of each grid, or of each of its windows, against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from claimed_device import ClaimedDevice, claim
from earlytom.ops import best_cells
from earlytom.types import CellWindows


def slow(scores: list[list[float]], kept: list[int], windows: list[list[int]]) -> list[int]:
    """The ``kept[i]`` highest of each window of each grid; ties to the lower cell, what is no number last."""
    rows = []
    for number, grid in enumerate(scores):
        chosen: list[int] = []
        for count, window in zip(kept, windows, strict=True):
            values = {cell: grid[cell] if grid[cell] == grid[cell] else float("-inf") for cell in window}
            chosen += sorted(window, key=lambda cell: (-values[cell], cell))[:count]
        rows += [number * len(grid) + cell for cell in sorted(chosen)]
    return rows


@st.composite
def cases(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    cells = sum(sizes)
    kept = [draw(st.integers(0, size)) for size in sizes]
    values = st.sampled_from([0.0, -1.5, 2.0, 2.5, 1e-3, float("nan")])
    grids = draw(st.integers(1, 4))
    scores = [[draw(values) for _ in range(cells)] for _ in range(grids)]
    places = draw(st.permutations(range(cells)))
    windows, start = [], 0
    for size in sizes:
        windows.append(sorted(places[start : start + size]))
        start += size
    return scores, kept, windows


@settings(deadline=None, max_examples=150)
@given(cases())
def test_windows_keep_their_best(case) -> None:
    scores, kept, windows = case
    of = torch.empty(len(scores[0]), dtype=torch.int64)
    for number, window in enumerate(windows):
        of[window] = number
    told = CellWindows(of=of, sizes=tuple(map(len, windows)), kept=tuple(kept))
    found = best_cells(torch.tensor(scores), sum(kept), told)
    assert found.tolist() == slow(scores, kept, windows)
    whole = sum(kept)
    assert best_cells(torch.tensor(scores), whole).tolist() == slow(scores, [whole], [list(range(len(scores[0])))])


@pytest.mark.parametrize("windowed", [False, True])
def test_nothing_waits_for_the_device(windowed) -> None:
    with ClaimedDevice() as device:
        scores, of = claim(torch.rand(3, 8)), claim(torch.arange(8) % 2)
        device.reset()
        windows = CellWindows(of=of, sizes=(4, 4), kept=(1, 2)) if windowed else None
        assert best_cells(scores, 3, windows).shape == (9,)
        assert sum(device.waits.values()) == 0
        assert device.uploads == int(windowed)
