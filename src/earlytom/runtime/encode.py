"""Stages I and II for the clips of one call: the adapter's encoder loop joined with the method's decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from earlytom.errors import CompressionError
from earlytom.ops import frame_floor, frame_similarity
from earlytom.reduction import Reduction
from earlytom.trace import MergeRecord, Stopwatch, VideoTrace
from earlytom.types import EncoderPlan, FrameGrid, FrameStates, VisualTokens

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import ModelAdapter

__all__ = ["encode_videos"]


class _Download:
    """A table on its way to the host. It is read after the remaining encoder layers have been queued."""

    def __init__(self, table: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if table.device.type != "cuda":
            self._host = table.cpu()
            return
        self._host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True).copy_(table, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(table.device))

    def read(self) -> Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._host


@dataclass
class _Clip:
    """One clip on its way through the encoder."""

    trace: VideoTrace
    floor: int
    similarity: _Download | None = None

    @property
    def frames(self) -> int:
        return self.trace.frames_left


class _MergingVisitor:
    """Asks the method after each merge layer, and applies what it says to hidden states and attention alike.

    All clips share the encoder's batch, so that an unmerged call runs exactly the stock computation; the method sees
    one clip at a time.
    """

    def __init__(self, method: Method, plan: EncoderPlan, clips: Sequence[_Clip], stopwatch: Stopwatch) -> None:
        self._method, self._plan, self._clips, self._stopwatch = method, plan, clips, stopwatch
        self.attention: Tensor | None = None

    @property
    def plan(self) -> EncoderPlan:
        return self._plan

    def receive_attention(self, compute: Callable[[], Tensor]) -> None:
        with self._stopwatch.stage("attention"):
            self.attention = compute()

    def after_layer(self, layer: int, hidden: Tensor, others: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        carried = list(others)
        with self._stopwatch.stage("merging"):
            if layer in self._plan.merge_layers:
                reductions = self._decide(hidden, layer)
                if any(reduction.outputs < reduction.inputs for reduction in reductions):
                    hidden, *carried = [_apply(reductions, rows) for rows in (hidden, *carried)]
                    self.attention = None if self.attention is None else _apply(reductions, self.attention)
                    for clip, reduction in zip(self._clips, reductions, strict=True):
                        clip.trace.origin = clip.trace.origin.then(reduction)
            if self._plan.frame_similarity and layer == self._last_layer:
                for clip, features in zip(self._clips, self._split(hidden), strict=True):
                    clip.similarity = _Download(frame_similarity(features))
        return hidden, carried

    @property
    def _last_layer(self) -> int:
        attention_layer = self._plan.attention_layer
        return max((*self._plan.merge_layers, 0 if attention_layer is None else attention_layer))

    def _split(self, rows: Tensor) -> Sequence[Tensor]:
        return rows.split([clip.frames for clip in self._clips])

    def _decide(self, hidden: Tensor, layer: int) -> list[Reduction]:
        """The reduction of each clip; the identity where it is left alone."""
        attention = self.attention
        attentions: Sequence[Tensor | None] = [None] * len(self._clips) if attention is None else self._split(attention)
        reductions = []
        for clip, features, received in zip(self._clips, self._split(hidden), attentions, strict=True):
            reduction = Reduction.identity(clip.frames)
            if not clip.trace.stepped_aside:
                states = FrameStates(features=features, attention=received, origin=clip.trace.origin)
                decision = self._method.merge_frames(states, layer, clip.floor)
                reduction = decision.reduction or reduction
                clip.trace.merges.append(
                    MergeRecord(
                        layer=layer,
                        frames_before=clip.frames,
                        frames_after=reduction.outputs,
                        details=decision.details,
                    )
                )
            reductions.append(reduction)
        return reductions


def encode_videos(
    adapter: ModelAdapter,
    model: nn.Module,
    inputs: Mapping[str, Any],
    grids: Sequence[FrameGrid],
    method: Method,
    stopwatch: Stopwatch,
) -> tuple[list[Tensor], list[VideoTrace]]:
    """Encode, merge, project and select.

    Returns:
        The kept [K, C] tokens of each clip, and what happened to it.

    Raises:
        CompressionError: the method kept another number of tokens than it promised.
        MethodError: the method does not fit the encoder.
    """
    clips = [_new_clip(method, grid) for grid in grids]
    active = any(not clip.trace.stepped_aside for clip in clips)
    plan = method.encoder_plan(adapter.encoder_depth(model)) if active else EncoderPlan()
    visitor = _MergingVisitor(method, plan, clips, stopwatch)
    with stopwatch.stage("encoder"):
        hidden = adapter.encode(model, inputs, visitor)
    with stopwatch.stage("projection"):
        features = adapter.project(model, hidden)
        pooled = None if visitor.attention is None else adapter.pool_attention(model, visitor.attention)
    sizes = [clip.frames for clip in clips]
    attentions: Sequence[Tensor | None] = [None] * len(clips) if pooled is None else pooled.split(sizes)
    with stopwatch.stage("selection"):
        kept = [
            _select(method, clip, part, attention)
            for clip, part, attention in zip(clips, features.split(sizes), attentions, strict=True)
        ]
    return kept, [clip.trace for clip in clips]


def _new_clip(method: Method, grid: FrameGrid) -> _Clip:
    budget = method.budget(grid)
    trace = VideoTrace(
        grid=grid,
        budget=budget,
        stepped_aside=method.steps_aside(grid),
        origin=Reduction.identity(grid.frames),
    )
    return _Clip(trace=trace, floor=frame_floor(budget, grid.tokens_per_frame))


def _select(method: Method, clip: _Clip, features: Tensor, attention: Tensor | None) -> Tensor:
    """The kept [K, C] tokens of one clip, out of its [N, P, C] features."""
    flat, trace = features.flatten(0, 1), clip.trace
    trace.attention = attention
    if trace.stepped_aside:
        return flat
    tokens = VisualTokens(
        features=features,
        attention=attention,
        grid=trace.grid,
        origin=trace.origin,
        frame_similarity=None if clip.similarity is None else clip.similarity.read(),
    )
    decision = method.select_tokens(tokens, trace.budget)
    trace.selection, trace.details = decision.reduction, decision.details
    if method.exact_budget and trace.tokens != trace.budget:
        raise CompressionError(
            f"method {method.name!r} kept {trace.tokens} visual tokens where it had promised {trace.budget}"
        )
    return flat if decision.reduction is None else decision.reduction.apply(flat)


def _apply(reductions: Sequence[Reduction], rows: Tensor) -> Tensor:
    """Apply each clip's reduction to its part of ``rows`` (clips lie behind one another)."""
    if len(reductions) == 1:
        return reductions[0].apply(rows)
    parts = rows.split([reduction.inputs for reduction in reductions])
    return torch.cat([reduction.apply(part) for reduction, part in zip(reductions, parts, strict=True)])
