"""Vision encoders of the Qwen-VL families: the patches of all temporal grids in one packed sequence.

Attention never crosses a grid, so that grids leave the sequence as blocks; what goes with it (rotary embeddings,
lengths of grids and windows) is that of one grid, repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from earlytom.types import FrameGrid

__all__ = ["CutLayout", "GridLayout", "grid_shape", "mean_of_patches"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GridLayout:
    """The sequence of one temporal grid.

    Attributes:
        patches: L, patches of a grid.
        unit: patches that are merged into one token of the language model; they lie behind one another.
        order: [P] int64, which merge unit in raster order stands at each place of the sequence; ``None``: they stand in
            raster order.
        windows: patches of each attention window of a grid, in the order of the sequence.
        cosines, sines: [L, E] float32, the rotary embedding.
    """

    patches: int
    unit: int
    order: Tensor | None
    windows: tuple[int, ...]
    cosines: Tensor
    sines: Tensor

    @cached_property
    def raster(self) -> Tensor | None:
        """[P] int64: the place in the sequence of each merge unit in raster order."""
        return None if self.order is None else torch.argsort(self.order)

    @cached_property
    def _tables(self) -> dict[int, tuple[Tensor, Tensor]]:
        """The last rotary embedding asked for: layers ask for the same one until grids merge."""
        return {}

    def to_sequence(self, patches: Tensor) -> Tensor:
        """Bring [F * L, D] patches into the order of the sequence."""
        if self.order is None:
            return patches
        units = patches.view(-1, self.patches // self.unit, self.unit, patches.shape[-1])
        return units[:, self.order.to(patches.device)].view(patches.shape)

    def to_raster(self, tokens: Tensor) -> Tensor:
        """Bring [F, P, ...] merge units from the order of the sequence into raster order."""
        return tokens if self.raster is None else tokens[:, self.raster.to(tokens.device)]

    def rotary(self, grids: int) -> tuple[Tensor, Tensor]:
        """The rotary embedding of a sequence of grids, [grids * L, E] each."""
        if grids not in self._tables:
            self._tables.clear()
            self._tables[grids] = (self.cosines.repeat(grids, 1), self.sines.repeat(grids, 1))
        return self._tables[grids]

    def lengths(self, grids: int, whole: bool, device: torch.device) -> dict[str, Tensor | int]:
        """The arguments that tell a block where attention ends: at grids (``whole``) or at windows."""
        return _lengths([self.patches] if whole else self.windows, grids, device)

    def angles(self, grids: slice) -> tuple[Tensor, Tensor]:
        """Cosines and sines for [F, H, L, E] queries or keys of some grids: those of all, [L, E] each."""
        return self.cosines, self.sines

    def cut(self, patches: Tensor, windows: Sequence[int]) -> CutLayout:
        """What is left where each grid has some of its patches only.

        Args:
            patches: [F, M] int64, of each grid, in the order of the sequence.
            windows: how many of these each attention window has.
        """
        patches = patches.to(self.cosines.device, non_blocking=True)
        windows = tuple(size for size in windows if size)
        return CutLayout(
            patches=patches.shape[1], windows=windows, cosines=self.cosines[patches], sines=self.sines[patches]
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class CutLayout:
    """The sequence of grids of which each has some patches left, equally many, but not the same ones.

    Attributes:
        patches: M, patches of a grid.
        windows: patches of each attention window of a grid, in the order of the sequence; of those that have any.
        cosines, sines: [F, M, E] float32, the rotary embedding.
    """

    patches: int
    windows: tuple[int, ...]
    cosines: Tensor
    sines: Tensor

    def rotary(self, grids: int) -> tuple[Tensor, Tensor]:
        """See `GridLayout.rotary`."""
        return self.cosines.flatten(0, 1), self.sines.flatten(0, 1)

    def lengths(self, grids: int, whole: bool, device: torch.device) -> dict[str, Tensor | int]:
        """See `GridLayout.lengths`."""
        return _lengths([self.patches] if whole else self.windows, grids, device)

    def angles(self, grids: slice) -> tuple[Tensor, Tensor]:
        """See `GridLayout.angles`; [F, 1, M, E] each."""
        return self.cosines[grids, None], self.sines[grids, None]


def _lengths(sizes: Sequence[int], grids: int, device: torch.device) -> dict[str, Tensor | int]:
    ends = torch.tensor([0, *[*sizes] * grids], dtype=torch.int64).cumsum(0).to(torch.int32)
    return {"cu_seqlens": ends.to(device, non_blocking=True), "max_seqlen": max(sizes)}


def mean_of_patches(scores: Tensor, layout: GridLayout) -> Tensor:
    """Mean over the patches of each merge unit, [F, L] in the order of the sequence to [F, P] in raster order."""
    return layout.to_raster(scores.unflatten(1, (-1, layout.unit)).mean(dim=2))


def grid_shape(grid: FrameGrid, merge: int) -> Tensor:
    """One grid of a clip as stock's ``grid_thw``, [1, 3] int64 on the host; ``merge`` patches a side make a token."""
    return torch.tensor([[1, grid.rows * merge, grid.columns * merge]])
