"""Which cells of a temporal grid are chosen by their scores: equally many of each grid, and of each window."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from earlytom.ops.selection import ranks
from earlytom.types import CellWindows

__all__ = ["best_cells"]


def best_cells(scores: Tensor, kept: int, windows: CellWindows | None = None) -> Tensor:
    """The cells with the highest scores of each grid, or of each window of a grid; ties and NaN as in `ranks`.

    Only sorts and gathers of known size, so nothing waits for the device.

    Args:
        scores: [N, P] float.
        kept: K, cells of a grid, 1 to P.
        windows: the attention windows, and how many cells of each are kept; ``None``: the best of the whole grid.

    Returns:
        [N * K] int64 rows of the flattened N * P cells, ascending: temporal, then raster order.
    """
    grids, cells = scores.shape
    order = torch.argsort(ranks(scores), dim=1, stable=True)
    if windows is not None:
        # A stable sort by windows puts each window's own behind one another, from the highest on.
        order = order.gather(1, torch.argsort(windows.of[order], dim=1, stable=True))
        order = order[:, _first_of_each(windows).to(scores.device, non_blocking=True)]
    starts = torch.arange(grids, device=scores.device)[:, None] * cells
    return (torch.sort(order[:, :kept], dim=1).values + starts).flatten()


def _first_of_each(windows: CellWindows) -> Tensor:
    """[K] int64 on the host: the first places of each window, as many as are kept of it."""
    begins = accumulate(windows.sizes, initial=0)
    return torch.tensor(
        [begin + place for begin, kept in zip(begins, windows.kept, strict=False) for place in range(kept)],
        dtype=torch.int64,
        device="cpu",
    )
