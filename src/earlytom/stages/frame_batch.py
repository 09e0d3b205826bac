"""The temporal grids of some clips between two layers of a vision encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.stages.cells import CellLayout, CellLayouts, take_rows

__all__ = ["FrameBatch"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameBatch:
    """F temporal grids, those of each clip behind those of the clip before, equally many tokens each.

    Attributes:
        hidden: [F, T + L, D] hidden states: T class tokens, and L patches (fewer once tokens have merged).
        grids_per_clip: the temporal grids of each clip; their sum is F.
        others: earlier hidden states that the model will need besides, [F, ...] each; whatever merges or leaves does so
            in them alike.
        class_tokens: T, tokens in front that are no patches (CLS). They go along with their grid; decisions never see
            them.
        cell_layout: where the cells of a grid lie, if cells can go on alone.
        cells: [F, K] int64, the cells of each grid that are left, in the order in which they stand in ``hidden``, by
            their numbers in raster order; ``None``: grids are whole.

    Raises:
        CompressionError: the parts do not belong together.
    """

    hidden: Tensor
    grids_per_clip: tuple[int, ...]
    others: tuple[Tensor, ...] = ()
    class_tokens: int = 0
    cell_layout: CellLayouts | None = None
    cells: Tensor | None = None

    def __post_init__(self) -> None:
        rows = [part.shape[0] for part in (self.hidden, *self.others)]
        if self.hidden.dim() != 3 or set(rows) != {sum(self.grids_per_clip)}:
            raise CompressionError(
                f"a batch of clips with {self.grids_per_clip} temporal grids needs [{sum(self.grids_per_clip)}, L, D] "
                f"hidden states, and as many rows of what goes along; got {tuple(self.hidden.shape)} and {rows[1:]} "
                "rows"
            )

    @property
    def patches(self) -> Tensor:
        """[F, L, D]: the hidden states without class tokens."""
        return self.hidden[:, self.class_tokens :] if self.class_tokens else self.hidden

    @property
    def layout(self) -> CellLayout:
        """The cells of a grid, on the device of ``hidden``. Raises `CompressionError` where nobody has said."""
        if self.cell_layout is None:
            raise CompressionError(
                "cells of a temporal grid are to go on alone, but the batch has no cell_layout that says where they lie"
            )
        return self.cell_layout.at(self.hidden.device)

    def only(self, cells: Tensor) -> FrameBatch:
        """The same grids with no patches but those of some cells.

        Args:
            cells: [F, K] int64, of each grid, ascending in raster order.
        """
        layout = self.layout
        standing = layout.in_sequence(cells.to(self.hidden.device, non_blocking=True))
        take = partial(take_rows, index=layout.patches(standing), ahead=self.class_tokens)
        return replace(self.changed(take), cells=standing)

    def with_hidden(self, hidden: Tensor, *aside: Tensor) -> FrameBatch:
        """The same grids with other hidden states, and with ``aside`` behind the others."""
        return replace(self, hidden=hidden, others=(*self.others, *aside))

    def changed(self, change: Callable[[Tensor], Tensor], left: tuple[int, ...] | None = None) -> FrameBatch:
        """The same change of rows in the hidden states and all others; ``left``: grids of each clip that are left."""
        others = tuple(change(rows) for rows in self.others)
        return replace(self, hidden=change(self.hidden), others=others, grids_per_clip=left or self.grids_per_clip)

    def parts(self, grids: int) -> Iterator[FrameBatch]:
        """Cut into batches of at most ``grids`` temporal grids, whose they are left aside."""
        cut = [part.split(grids) for part in (self.hidden, *self.others)]
        cells = [None] * len(cut[0]) if self.cells is None else self.cells.split(grids)
        for (hidden, *others), left in zip(zip(*cut, strict=True), cells, strict=True):
            yield replace(self, hidden=hidden, others=tuple(others), grids_per_clip=(hidden.shape[0],), cells=left)

    @staticmethod
    def joined(parts: Sequence[FrameBatch], grids_per_clip: tuple[int, ...]) -> FrameBatch:
        """What `parts` cut, put together again as clips of so many temporal grids."""
        first = parts[0]
        if len(parts) == 1:
            return replace(first, grids_per_clip=grids_per_clip)
        columns = zip(*((part.hidden, *part.others) for part in parts), strict=True)
        hidden, *others = (torch.cat(rows) for rows in columns)
        return first._whole(hidden, others, grids_per_clip, [part.cells for part in parts])

    def _whole(
        self, hidden: Tensor, others: Sequence[Tensor], grids_per_clip: tuple[int, ...], cells: Sequence[Tensor | None]
    ) -> FrameBatch:
        """A batch of several parts, of which this is one."""
        known = [left for left in cells if left is not None]
        return replace(
            self,
            hidden=hidden,
            others=tuple(others),
            grids_per_clip=grids_per_clip,
            cells=torch.cat(known) if known else None,
        )

    @staticmethod
    def gathered(
        parts: Iterable[FrameBatch], grids_per_clip: tuple[int, ...], over: FrameBatch | None = None
    ) -> FrameBatch:
        """`joined` for parts that are made one by one, each of which goes as soon as it is copied; no gradients.

        Args:
            parts: made when asked for, in order.
            grids_per_clip: of all of them together.
            over: the batch that the parts were cut from, which ends here: what has its shape is written over it.
        """
        grids, start, cells = sum(grids_per_clip), 0, list[Tensor | None]()
        whole = [] if over is None else [over.hidden, *over.others]
        for part in parts:
            rows, stop = [part.hidden, *part.others], start + part.hidden.shape[0]
            if start == 0:
                whole = [_room(like, grids, old) for like, old in zip_longest(rows, whole[: len(rows)])]
            # What has just been set aside may still be the hidden states of ``over``: those are written last.
            for target, values in reversed([*zip(whole, rows, strict=True)]):
                target[start:stop] = values
            last, start = part, stop
            cells.append(part.cells)
        hidden, *others = whole
        return last._whole(hidden, others, grids_per_clip, cells)


def _room(like: Tensor, grids: int, old: Tensor | None) -> Tensor:
    """A tensor for ``grids`` rows like those of a part: ``old``, where that is one."""
    shape = (grids, *like.shape[1:])
    fits = old is not None and old.shape == shape and old.dtype == like.dtype and old.device == like.device
    return old if old is not None and fits else like.new_empty(shape)
