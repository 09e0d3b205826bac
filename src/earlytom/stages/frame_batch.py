"""The temporal grids of some clips between two layers of a vision encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor

from earlytom.errors import CompressionError

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

    Raises:
        CompressionError: the parts do not belong together.
    """

    hidden: Tensor
    grids_per_clip: tuple[int, ...]
    others: tuple[Tensor, ...] = ()
    class_tokens: int = 0

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
        for hidden, *others in zip(*cut, strict=True):
            yield replace(self, hidden=hidden, others=tuple(others), grids_per_clip=(hidden.shape[0],))

    @staticmethod
    def joined(parts: Sequence[FrameBatch], grids_per_clip: tuple[int, ...]) -> FrameBatch:
        """What `parts` cut, put together again as clips of so many temporal grids."""
        first = parts[0]
        if len(parts) == 1:
            return replace(first, grids_per_clip=grids_per_clip)
        columns = zip(*((part.hidden, *part.others) for part in parts), strict=True)
        hidden, *others = (torch.cat(rows) for rows in columns)
        return replace(first, hidden=hidden, others=tuple(others), grids_per_clip=grids_per_clip)

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
        grids, start = sum(grids_per_clip), 0
        whole = [] if over is None else [over.hidden, *over.others]
        for part in parts:
            rows, stop = [part.hidden, *part.others], start + part.hidden.shape[0]
            if start == 0:
                whole = [_room(like, grids, old) for like, old in zip_longest(rows, whole[: len(rows)])]
            for target, values in zip(whole, rows, strict=True):
                target[start:stop] = values
            last, start = part, stop
        hidden, *others = whole
        return replace(last, hidden=hidden, others=tuple(others), grids_per_clip=grids_per_clip)


def _room(like: Tensor, grids: int, old: Tensor | None) -> Tensor:
    """A tensor for ``grids`` rows like those of a part: ``old``, where that is one."""
    shape = (grids, *like.shape[1:])
    fits = old is not None and old.shape == shape and old.dtype == like.dtype and old.device == like.device
    return old if old is not None and fits else like.new_empty(shape)
