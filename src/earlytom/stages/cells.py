"""Cells of a temporal grid: on which patches each rests, where these stand, and how they become one token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from earlytom.ops import apportion
from earlytom.types import CellWindows

__all__ = ["CellLayout", "CellLayouts", "take_rows"]

# Weighted rows held at once, in float32 values (256 MiB), and the fewest columns that are worth a pass.
_CHUNK_VALUES, _LEAST_COLUMNS = 1 << 26, 64


@dataclass(frozen=True, kw_only=True, eq=False)
class CellLayout:
    """The P cells of a temporal grid, each of which becomes one pooled token, on one device.

    Attributes:
        support: [P, S] int64, the patches that each cell in raster order rests on, in the order in which the encoder
            hands them on; patches are numbered as they stand in the encoder's sequence, class tokens not counted. A
            patch may belong to several cells.
        weight: [P, S] float32, their weights in the mean that the cell is.
        order: [P] int64, which cell stands at each place of the sequence; ``None``: they stand in raster order.
        windows: cells of each attention window, in the order of the sequence; ``None`` where all layers see the whole
            grid.
    """

    support: Tensor
    weight: Tensor
    order: Tensor | None = None
    windows: tuple[int, ...] | None = None

    @classmethod
    def of_pooling(
        cls, pool: Callable[[Tensor], Tensor], patches: tuple[int, int], cells: tuple[int, int]
    ) -> CellLayout:
        """The cells of a pooling that is a weighted mean along rows and along columns; on the host.

        Args:
            pool: [F, L] float32 maps of patches in raster order to [F, P].
            patches: rows and columns before pooling.
            cells: rows and columns behind it.
        """
        rows, columns = (torch.eye(size, dtype=torch.float32, device="cpu") for size in patches)
        # One row of patches lit up alone shows its weight in each row of cells; columns likewise.
        down = pool(rows.repeat_interleave(patches[1], dim=1)).unflatten(1, cells)[:, :, 0]
        across = pool(columns.repeat(1, patches[0])).unflatten(1, cells)[:, 0]
        (upper, by_row), (left, by_column) = _used(down), _used(across)
        support = upper[:, None, :, None] * patches[1] + left[None, :, None, :]
        weight = by_row[:, None, :, None] * by_column[None, :, None, :]
        return cls(support=support.flatten(2).flatten(0, 1), weight=weight.flatten(2).flatten(0, 1))

    def at(self, device: torch.device) -> CellLayout:
        """The same on a device."""
        if self.support.device == device:
            return self
        support, weight = (part.to(device, non_blocking=True) for part in (self.support, self.weight))
        order = None if self.order is None else self.order.to(device, non_blocking=True)
        return CellLayout(support=support, weight=weight, order=order, windows=self.windows)

    @cached_property
    def place(self) -> Tensor | None:
        """[P] int64: the place in the sequence of each cell in raster order; ``None``: its own number."""
        return None if self.order is None else torch.argsort(self.order)

    def kept_of_windows(self, kept: int) -> tuple[int, ...] | None:
        """How many cells of each window are left where ``kept`` of a grid are; ``None`` where there are no windows."""
        return None if self.windows is None else tuple(apportion(kept, self.windows))

    def windows_of_cells(self, kept: int) -> CellWindows | None:
        """What a method that keeps so many cells of a grid must know about windows."""
        counts = self.kept_of_windows(kept)
        if self.windows is None or counts is None:
            return None
        numbers = [number for number, size in enumerate(self.windows) for _ in range(size)]
        standing = torch.tensor(numbers, dtype=torch.int64, device="cpu").to(self.support.device, non_blocking=True)
        of = standing if self.place is None else standing[self.place]
        return CellWindows(of=of, sizes=self.windows, kept=counts)

    def means(self, rows: Tensor) -> Tensor:
        """What each cell is of the patches of whole grids: [F, L, ...] to [F, P, ...], summed in float32."""
        here = self.at(rows.device)
        taken = rows.index_select(1, here.support.flatten()).unflatten(1, here.support.shape)
        return _weighted(taken, here.weight[None])

    def in_sequence(self, cells: Tensor) -> Tensor:
        """[F, K] cells of each grid, brought from raster order into that of the sequence."""
        place = None if self.place is None else self.place.to(cells.device)
        return cells if place is None else cells.gather(1, place[cells].argsort(1))

    def raster(self, cells: Tensor) -> Tensor:
        """[F, K] cells of each grid, brought from the order of the sequence into raster order."""
        return cells if self.order is None else cells.sort(dim=1).values

    def patches(self, cells: Tensor) -> Tensor:
        """[F, K] cells to the [F, K * S] patches that they rest on."""
        return self.support[cells].flatten(1)

    def to_raster(self, rows: Tensor, cells: Tensor) -> Tensor:
        """Bring [F, K, ...] rows of ``cells``, which are in the order of the sequence, into raster order."""
        if self.order is None:
            return rows
        return take_rows(rows, cells.argsort(dim=1))

    def pooled(self, rows: Tensor, cells: Tensor) -> Tensor:
        """What each cell is of the patches that `patches` names: [F, K * S, ...] to [F, K, ...] in raster order.

        Summed in float32 and rounded once.
        """
        here = self.at(rows.device)
        cells = cells.to(rows.device, non_blocking=True)
        taken = rows.unflatten(1, (cells.shape[1], -1))
        return here.to_raster(_weighted(taken, here.weight[cells]), cells)


class CellLayouts:
    """The cells of a grid on any device, made when they are first asked for.

    Args:
        make: the layout, on whichever device.
    """

    def __init__(self, make: Callable[[], CellLayout]) -> None:
        self._make, self._made = make, dict[torch.device, CellLayout]()

    def at(self, device: torch.device) -> CellLayout:
        """Those on a device."""
        if device not in self._made:
            self._made[device] = self._make().at(device)
        return self._made[device]


def take_rows(rows: Tensor, index: Tensor, ahead: int = 0) -> Tensor:
    """[F, T + L, ...] rows to [F, T + M, ...]: of each grid those behind the first T that [F, M] ``index`` names.

    Args:
        rows: of grids.
        index: [F, M] int64, from 0 to L - 1.
        ahead: T, rows in front that stay.
    """
    index = index.to(rows.device, non_blocking=True) + ahead
    if ahead:
        index = torch.cat([torch.arange(ahead, device=index.device).expand(len(index), -1), index], dim=1)
    starts = torch.arange(rows.shape[0], device=index.device)[:, None] * rows.shape[1]
    return rows.flatten(0, 1).index_select(0, (index + starts).flatten()).unflatten(0, index.shape)


def _used(spread: Tensor) -> tuple[Tensor, Tensor]:
    """Which of n inputs each of m outputs uses, [m, s] ascending, and the weights, of their [n, m] weights."""
    weights = spread.t()
    most = int((weights != 0).sum(dim=1).max())
    inputs = (weights != 0).to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :most]
    return inputs, weights.gather(1, inputs)


def _weighted(rows: Tensor, weight: Tensor) -> Tensor:
    """[F, K, S, ...] rows weighed by [F, K, S] (or [1, K, S]) and summed over S, a part of the columns at a time."""
    columns = rows.reshape(*rows.shape[:3], -1)
    step = max(_LEAST_COLUMNS, _CHUNK_VALUES // max(1, columns[..., :1].numel()))
    sums = [(part.float() * weight[..., None]).sum(dim=2).to(rows.dtype) for part in columns.split(step, dim=3)]
    return (sums[0] if len(sums) == 1 else torch.cat(sums, dim=2)).reshape(*rows.shape[:2], *rows.shape[3:])
