"""One clip from the shape of its tokens to those that are kept, whoever runs the encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor

from earlytom.errors import CompressionError, MethodError, shown
from earlytom.ops import frame_floor
from earlytom.reduction import Reduction
from earlytom.stages.decisions import checked, checked_cells, decided
from earlytom.trace import CellRecord, MergeRecord, VideoTrace
from earlytom.types import CellStates, Decision, EncoderPlan, FrameStates, KeptTokens, VisualTokens

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.similarity import FrameSimilarity
    from earlytom.stages.cells import CellLayout
    from earlytom.types import EncoderShape, FrameGrid

__all__ = ["POOLING_HEAD", "ClipSession", "Decide", "Pooled", "at_once"]

POOLING_HEAD = -1
"""Where attention comes from that is no layer's."""

_T = TypeVar("_T")


class Decide(Protocol):
    """Gets what would decide, and returns the decision: by calling it, or from a process that has.

    Where several processes work on the same clip (tensor parallelism), a tie that each decides for itself would part
    them. Decisions can be pickled.
    """

    def __call__(self, make: Callable[[], _T], /) -> _T:
        """The decision that ``make`` would make."""


def at_once(make: Callable[[], _T]) -> _T:
    """Decide here."""
    return make()


@dataclass(frozen=True, kw_only=True, eq=False)
class Pooled:
    """What projector and pooling made of the N temporal grids of one clip that are left.

    Attributes:
        features: [N, P, C] features, model dtype; those of earlier layers behind the final ones where the language
            model gets both (``EncoderShape.feature_sets``).
        attention: [N, P] attention received, resized in the same way, float32, or ``None``.
        keys: [N, P, E] likewise.
        descriptions: [N, E] output of the pooling head, or ``None``.
        cells: [N, P] int64, which cells of each grid these are, ascending; ``None``: all.
    """

    features: Tensor
    attention: Tensor | None = None
    keys: Tensor | None = None
    descriptions: Tensor | None = None
    cells: Tensor | None = None


class ClipSession:
    """The way of one clip through merge layers and selection: its method, its budget, and what has happened to it.

    Args:
        method: decides.
        grid: the uncompressed clip.
        shape: of the vision encoder.
        plan: what the method wants from this encoder, where it has been asked already.

    Attributes:
        floor: the least number of temporal grids that can still fill the budget.
        plan: what is wanted from the encoder; nothing where the method leaves this clip alone.
        cells: how many cells of each temporal grid go on behind ``plan.cell_layer``; ``None``: grids stay whole.

    Raises:
        MethodError: the method does not fit the encoder or the clip.
    """

    def __init__(self, method: Method, grid: FrameGrid, shape: EncoderShape, plan: EncoderPlan | None = None) -> None:
        self.method, self.shape = method, shape
        self._trace = VideoTrace(
            grid=grid,
            budget=method.budget(grid),
            stepped_aside=method.steps_aside(grid),
            origin=Reduction.identity(grid.frames),
        )
        self._untouched, self._unrecorded = self._trace.origin, list[Reduction]()
        wanted = method.check_encoder(shape) if plan is None else plan
        self.plan = EncoderPlan() if self._trace.stepped_aside else wanted
        self.cells = self._cells_kept()
        if self.cells is None and self.plan.cell_layer is not None:
            self.plan = replace(self.plan, cell_layer=None, cell_attention=False, cell_similarity=False)
        self.floor = frame_floor(self._trace.budget, self.cells or grid.tokens_per_frame)
        self.similarity: Tensor | FrameSimilarity | None = None
        """Of the grids that are left, on the host (``VisualTokens.frame_similarity``); where the plan wants it."""
        self.fingerprint: int | None = None

    def _cells_kept(self) -> int | None:
        """As many as the method wants and the budget needs, where these are not all."""
        wanted = None if self.plan.cell_layer is None else self.method.cells_kept(self.grid)
        if wanted is None:
            return None
        whole = self.grid.tokens_per_frame
        if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= whole:
            raise MethodError(
                f"method {self.method.name!r} must keep 1 to {whole} cells of each temporal grid, got {shown(wanted)}"
            )
        kept = max(wanted, -(-self._trace.budget // self.grid.frames))
        return None if kept >= whole else kept

    @property
    def trace(self) -> VideoTrace:
        """What has happened."""
        self.record_merges()
        return self._trace

    def record_merges(self) -> None:
        """Compose the newest merges into ``trace.origin``, which looking at the trace does too.

        Not done when they are decided: behind a merge layer the host has to launch the next layers first, and while it
        waits for the next decision it has the time.
        """
        for reduction in self._unrecorded:
            self._trace.origin = self._trace.origin.then(reduction)
        self._unrecorded.clear()

    @property
    def grid(self) -> FrameGrid:
        """The uncompressed clip."""
        return self._trace.grid

    @property
    def grids_left(self) -> int:
        """N, the temporal grids that are left."""
        return self._unrecorded[-1].outputs if self._unrecorded else self._trace.temporal_grids_left

    @property
    def attention_source(self) -> int | None:
        """The layer whose received attention the method goes by, or `POOLING_HEAD`."""
        return POOLING_HEAD if self.plan.pooling_head else self.plan.attention_layer

    def decide_frames(
        self,
        layer: int,
        features: Tensor,
        attention: Tensor | None,
        similarity: Tensor | FrameSimilarity | None,
        token_similarity: Tensor | None = None,
    ) -> Decision:
        """What the method makes of the N grids after an encoder layer; nothing is applied yet.

        Args:
            layer: one of ``plan.merge_layers``.
            features: [N, L, D] hidden states.
            attention: [N, L] attention received so far, or ``None``.
            similarity: ``FrameStates.similarity``, where ``plan.merge_similarity`` asks for it.
            token_similarity: ``FrameStates.token_similarity``, likewise.
        """
        states = FrameStates(
            features=features,
            attention=attention,
            origin=self.trace.origin,
            similarity=similarity,
            token_similarity=token_similarity,
            frames_per_grid=self.shape.frames_per_grid,
        )
        return self.method.merge_frames(states, layer, self.floor)

    def merged(self, layer: int, decision: Decision) -> Reduction:
        """Take over a decision of `decide_frames`; the reduction to apply to everything that has a row for each grid.

        Raises:
            CompressionError, MethodError: it cannot be applied.
        """
        reduction = decided(self.method, decision).reduction
        before, after = self.grids_left, self.grids_left
        if reduction is not None:
            after = checked(self.method, reduction, before).outputs
            self._unrecorded.append(reduction)
        record = MergeRecord(layer=layer, grids_before=before, grids_after=after, details=decision.details)
        self._trace.merges.append(record)
        return Reduction.identity(before) if reduction is None else reduction

    def cell_states(self, features: Tensor, attention: Tensor | None, layout: CellLayout) -> CellStates:
        """What the method sees of the N * P cells: [N, P, D] features, and [N, P] attention where it has come."""
        kept = self.grid.tokens_per_frame if self.cells is None else self.cells
        return CellStates(
            features=features,
            attention=attention if self.plan.cell_attention else None,
            origin=self.trace.origin,
            grid=self.grid,
            kept=kept,
            windows=layout.windows_of_cells(kept),
            similarity=self.similarity if self.plan.cell_similarity else None,
        )

    def decide_cells(self, states: CellStates) -> Decision:
        """What the method makes of the cells after ``plan.cell_layer``; nothing is applied yet."""
        return self.method.select_cells(states, self._trace.budget)

    def cut(self, layer: int, decision: Decision, states: CellStates) -> Tensor:
        """Take over a decision of `decide_cells`; the [N, K] int64 cells of each grid that go on, in raster order.

        Raises:
            CompressionError, MethodError: it cannot be applied.
        """
        cells = checked_cells(self.method, decision, states)
        before = self.grid.tokens_per_frame
        self._trace.cells = CellRecord(
            layer=layer, cells_before=before, cells_after=states.kept, details=decision.details
        )
        return cells

    def select(self, pooled: Pooled, decide: Decide = at_once) -> KeptTokens:
        """The tokens that go into the language model, exactly as many as promised, with their places.

        Args:
            pooled: of the grids that are left.
            decide: see `Decide`.

        Raises:
            CompressionError: the method kept another number of tokens than it promised, or returned no decision.
        """
        flat, trace = pooled.features.flatten(0, 1), self.trace
        trace.attention = _on_whole_grids(pooled, self.grid.tokens_per_frame)
        if trace.stepped_aside:
            return self.keep(flat)
        with torch.no_grad():
            decision = decided(self.method, decide(lambda: self._decide_tokens(pooled)))
        trace.selection, trace.details = self._of_whole_grids(decision.reduction, pooled.cells), decision.details
        if self.method.exact_budget and trace.tokens != trace.budget:
            raise CompressionError(
                f"method {self.method.name!r} kept {trace.tokens} visual tokens where it had promised {trace.budget}"
            )
        if decision.reduction is None:
            return self.keep(flat)
        return self.keep(checked(self.method, decision.reduction, flat.shape[0]).apply(flat))

    def _of_whole_grids(self, selection: Reduction | None, cells: Tensor | None) -> Reduction | None:
        """A selection of [N, K] cells as one of all N * P tokens; as it is where there are no others."""
        if cells is None:
            return selection
        whole = self.grid.tokens_per_frame
        rows = (cells + torch.arange(len(cells), device=cells.device)[:, None] * whole).flatten()
        if selection is None:
            return Reduction.keep(rows, len(cells) * whole)
        return checked(self.method, selection, len(rows)).among(rows, len(cells) * whole)

    def keep(self, features: Tensor) -> KeptTokens:
        """[K, C] tokens with the places that they take in the uncompressed clip, by what the trace says of them."""
        selection = self.trace.selection
        rows = torch.arange(features.shape[0]) if selection is None else selection.survivors()
        return KeptTokens(features=features, places=self._places(rows))

    def _places(self, rows: Tensor) -> Tensor:
        """Where [K] tokens of the grids that are left stand in the uncompressed clip; on the device of ``rows``."""
        origin, per_frame = self.trace.origin, self.grid.tokens_per_frame
        if origin is self._untouched:
            return rows
        first = origin.survivors().to(rows.device, non_blocking=True)
        return first[rows // per_frame] * per_frame + rows % per_frame

    def _decide_tokens(self, pooled: Pooled) -> Decision:
        features = pooled.features
        # Of a model spread over several devices, projector and encoder may lie on two.
        attention, keys, descriptions = (
            None if part is None else part.to(features.device)
            for part in (pooled.attention, pooled.keys, pooled.descriptions)
        )
        tokens = VisualTokens(
            features=features[..., : features.shape[-1] // self.shape.feature_sets].detach(),
            attention=attention,
            grid=self.grid,
            origin=self.trace.origin,
            frame_similarity=self.similarity if self.plan.frame_similarity else None,
            keys=keys,
            descriptions=descriptions,
            fingerprint=self.fingerprint,
            cells=None if pooled.cells is None else pooled.cells.to(features.device),
        )
        return self.method.select_tokens(tokens, self.trace.budget)


def _on_whole_grids(pooled: Pooled, tokens: int) -> Tensor | None:
    """[N, P] attention received, 0 where a cell had left before."""
    attention, cells = pooled.attention, pooled.cells
    if attention is None or cells is None:
        return attention
    return attention.new_zeros(len(cells), tokens).scatter_(1, cells.to(attention.device), attention)
