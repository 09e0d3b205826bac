"""Tokens that merge inside the vision encoder's layers: what is left of each temporal grid, and where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.reduction import Reduction
from earlytom.stages.decisions import checked
from earlytom.stages.frame_batch import FrameBatch
from earlytom.trace import TokenMergeRecord
from earlytom.types import TokenStates

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.stages.session import Decide
    from earlytom.types import EncoderPlan, FrameGrid

__all__ = ["TokenMerging"]


class TokenMerging:
    """Asks the method inside each layer, and keeps where every patch of the grids of a batch has ended."""

    def __init__(self, method: Method, grid: FrameGrid, plan: EncoderPlan, depth: int, decide: Decide) -> None:
        self._method, self._grid, self._plan, self._depth, self._decide = method, grid, plan, depth, decide
        self.sizes: Tensor | None = None
        """[F, L] float32, patches that each token stands for; ``None`` as long as none have merged."""
        self.records: list[TokenMergeRecord] = []
        self._place: Tensor | None = None  # [F * patches], the row that each patch has ended in
        self.patches = 0
        """Tokens of a grid before any have merged."""

    def merge(self, layer: int, batch: FrameBatch, keys: Tensor) -> FrameBatch:
        """See `FrameVisitor.merge_tokens`. Raises `CompressionError` when grids would be left unequal."""
        hidden = batch.patches
        grids, tokens = hidden.shape[:2]
        if self.sizes is None:
            self.patches = tokens
        sizes = torch.ones(grids, tokens, dtype=torch.float32) if self.sizes is None else self.sizes
        sizes = sizes.to(hidden.device)  # the layers may lie on several devices
        states = TokenStates(
            features=hidden.detach(), keys=keys, sizes=sizes, grid=self._grid, patches=self.patches, depth=self._depth
        )
        with torch.no_grad():
            reduction = self._decide(lambda: self._method.merge_tokens(states, layer))
        return batch if reduction is None else self._apply(layer, batch, reduction, sizes)

    def _apply(self, layer: int, batch: FrameBatch, reduction: Reduction, sizes: Tensor) -> FrameBatch:
        grids, tokens = sizes.shape
        checked(self._method, reduction, grids * tokens, distinct=True)
        if reduction.outputs % grids:
            raise CompressionError(
                f"method {self._method.name!r} made {reduction.outputs} of {reduction.inputs} tokens in layer {layer}, "
                f"but {grids} frames of {tokens} tokens must be left with equally many each"
            )
        end, left = reduction.destination(), reduction.outputs // grids
        self.records.append(TokenMergeRecord(layer=layer, tokens_before=tokens, tokens_after=left))
        self.sizes = sizes.new_zeros(reduction.outputs).index_add_(0, end, sizes.flatten()).view(grids, left)
        self._place = end if self._place is None else end[self._place.to(end.device)]
        return batch.changed(lambda rows: reduction.apply(rows.flatten(0, 1)).unflatten(0, (grids, left)))

    def finish(self, layer: int, batch: FrameBatch) -> FrameBatch:
        """Behind the last layer all patches take their places again, where the plan wants it."""
        return batch if layer < self._depth - 1 or not self._plan.unmerge else batch.changed(self.unmerge)

    def unmerge(self, rows: Tensor) -> Tensor:
        """Give every patch the row that it has ended in: [F, K, ...] -> [F, patches, ...]."""
        if self._place is None:
            return rows
        place = self._place.to(rows.device)
        return rows.flatten(0, 1).index_select(0, place).unflatten(0, (rows.shape[0], -1))

    def unmerge_shares(self, rows: Tensor) -> Tensor:
        """Like `unmerge` for [F, K] of which a token's patches each get an equal share."""
        return self.unmerge(rows if self.sizes is None else rows / self.sizes.to(rows.device))

    def provenance(self, cells: Tensor, pooled: int, grids: slice) -> Reduction:
        """From the pooled tokens of some grids to those that have left the encoder instead.

        Args:
            cells: [patches] int64, the pooled token that each patch lies in.
            pooled: P, pooled tokens of a grid.
            grids: the grids of one clip.
        """
        if self._place is None or self.sizes is None:
            raise CompressionError("no tokens have merged, so there is nothing that left the encoder instead of them")
        left = self.sizes.shape[1]
        # Of a model spread over several devices, the projector may lie elsewhere than the layers that merged.
        cells, places = (part.to(self.sizes.device) for part in (cells, self._place))
        place = places.view(-1, self.patches)[grids]
        rows = (place - grids.start * left).flatten()
        count = place.shape[0]
        sizes = self.sizes[grids].flatten()
        ends = torch.cat([sizes.new_zeros(1), sizes]).cumsum(0).long()
        order = torch.argsort(rows, stable=True)
        source = (cells + torch.arange(count, device=cells.device)[:, None] * pooled).flatten()[order]
        return Reduction(offsets=ends, source=source, weight=1 / sizes[rows[order]], inputs=count * pooled)
