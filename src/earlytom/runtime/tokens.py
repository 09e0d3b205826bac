"""Tokens that merge inside the layers of the vision encoder: what is left of each frame, and where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.reduction import Reduction
from earlytom.runtime.decisions import checked
from earlytom.trace import TokenMergeRecord
from earlytom.types import TokenStates

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.types import EncoderPlan, FrameGrid

__all__ = ["TokenMerging"]


class TokenMerging:
    """Asks the method inside each layer, and keeps where every patch of the frames of a call has ended."""

    def __init__(self, method: Method, grid: FrameGrid, plan: EncoderPlan, depth: int) -> None:
        self._method, self._grid, self._plan, self._depth = method, grid, plan, depth
        self.sizes: Tensor | None = None
        """[F, L] float32, patches that each token stands for; ``None`` as long as none have merged."""
        self.records: list[TokenMergeRecord] = []
        self._place: Tensor | None = None  # [F * patches], the row that each patch has ended in
        self.patches = 0
        """Tokens of a frame before any have merged."""

    def merge(self, layer: int, hidden: Tensor, keys: Tensor, others: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `FrameVisitor.merge_tokens`. Raises `CompressionError` when frames would be left unequal."""
        frames, tokens = hidden.shape[:2]
        if self.sizes is None:
            self.patches = tokens
        sizes = torch.ones(frames, tokens, dtype=torch.float32) if self.sizes is None else self.sizes
        sizes = sizes.to(hidden.device)  # the layers may lie on several devices
        states = TokenStates(
            features=hidden.detach(), keys=keys, sizes=sizes, grid=self._grid, patches=self.patches, depth=self._depth
        )
        with torch.no_grad():
            reduction = self._method.merge_tokens(states, layer)
        if reduction is None:
            return hidden, list(others)
        checked(self._method, reduction, frames * tokens, distinct=True)
        if reduction.outputs % frames:
            raise CompressionError(
                f"method {self._method.name!r} made {reduction.outputs} of {reduction.inputs} tokens in layer {layer}, "
                f"but {frames} frames of {tokens} tokens must be left with equally many each"
            )
        end, left = reduction.destination(), reduction.outputs // frames
        self.records.append(TokenMergeRecord(layer=layer, tokens_before=tokens, tokens_after=left))
        self.sizes = sizes.new_zeros(reduction.outputs).index_add_(0, end, sizes.flatten()).view(frames, left)
        self._place = end if self._place is None else end[self._place.to(end.device)]
        hidden, *carried = [
            reduction.apply(rows.flatten(0, 1)).unflatten(0, (frames, left)) for rows in (hidden, *others)
        ]
        return hidden, carried

    def finish(self, layer: int, hidden: Tensor, others: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Behind the last layer all patches take their places again, where the plan wants it."""
        if layer < self._depth - 1 or not self._plan.unmerge:
            return hidden, others
        return self.unmerge(hidden), [self.unmerge(rows) for rows in others]

    def unmerge(self, rows: Tensor) -> Tensor:
        """Give every patch the row that it has ended in: [F, K, ...] -> [F, patches, ...]."""
        if self._place is None:
            return rows
        place = self._place.to(rows.device)
        return rows.flatten(0, 1).index_select(0, place).unflatten(0, (rows.shape[0], -1))

    def unmerge_shares(self, rows: Tensor) -> Tensor:
        """Like `unmerge` for [F, K] of which a token's patches each get an equal share."""
        return self.unmerge(rows if self.sizes is None else rows / self.sizes.to(rows.device))

    def provenance(self, cells: Tensor, pooled: int, frames: slice) -> Reduction:
        """From the pooled tokens of some frames to those that have left the encoder instead.

        Args:
            cells: [patches] int64, the pooled token that each patch lies in.
            pooled: P, pooled tokens of a frame.
            frames: the frames of one clip.
        """
        if self._place is None or self.sizes is None:
            raise CompressionError("no tokens have merged, so there is nothing that left the encoder instead of them")
        left = self.sizes.shape[1]
        place = self._place.view(-1, self.patches)[frames]
        rows = (place - frames.start * left).flatten()
        count = place.shape[0]
        sizes = self.sizes[frames].flatten()
        ends = torch.cat([sizes.new_zeros(1), sizes]).cumsum(0).long()
        order = torch.argsort(rows, stable=True)
        source = (cells + torch.arange(count, device=cells.device)[:, None] * pooled).flatten()[order]
        return Reduction(offsets=ends, source=source, weight=1 / sizes[rows[order]], inputs=count * pooled)
