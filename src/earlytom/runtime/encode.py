"""Stages I and II for the clips of one call: the adapter's encoder loop joined with the method's decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from earlytom.errors import CompressionError
from earlytom.ops import fingerprint, frame_floor, frame_similarity
from earlytom.reduction import Reduction
from earlytom.runtime.decisions import checked, decided
from earlytom.runtime.tokens import TokenMerging
from earlytom.trace import MergeRecord, Stopwatch, VideoTrace
from earlytom.types import EncoderPlan, FrameGrid, FrameStates, KeptTokens, VisualTokens

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import ModelAdapter

__all__ = ["encode_videos", "plan_encoder"]


def plan_encoder(adapter: ModelAdapter, model: nn.Module, method: Method) -> EncoderPlan:
    """What the method wants from the vision encoder. Raises `MethodError` when it cannot be had."""
    return method.check_encoder(adapter.encoder(model))


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
    fingerprint: _Download | None = None

    @property
    def frames(self) -> int:
        return self.trace.frames_left


class _MergingVisitor:
    """Asks the method after each merge layer, and applies what it says to hidden states and attention alike.

    All clips share the encoder's batch, so that an unmerged call runs exactly the stock computation; the method sees
    one clip at a time.
    """

    def __init__(
        self,
        method: Method,
        plan: EncoderPlan,
        clips: Sequence[_Clip],
        stopwatch: Stopwatch,
        tokens: TokenMerging | None,
    ) -> None:
        self._method, self._plan, self._clips, self._stopwatch = method, plan, clips, stopwatch
        self._tokens = tokens
        self.attention: Tensor | None = None
        self.keys: Tensor | None = None
        self.descriptions: Tensor | None = None

    @property
    def plan(self) -> EncoderPlan:
        return self._plan

    # Scoring and deciding never record gradients: maps that a backward pass would need are the largest tensors there
    # are. Applying a decision does.

    def receive_pixels(self, pixels: Tensor) -> None:
        for clip, frames in zip(self._clips, self._split(pixels), strict=True):
            clip.fingerprint = _Download(fingerprint(frames.detach()))

    def receive_attention(self, compute: Callable[[], Tensor]) -> None:
        with self._stopwatch.stage("attention"), torch.no_grad():
            self.attention = compute() if self._tokens is None else self._tokens.unmerge_shares(compute())

    def receive_keys(self, compute: Callable[[], Tensor]) -> None:
        with self._stopwatch.stage("attention"), torch.no_grad():
            self.keys = compute() if self._tokens is None else self._tokens.unmerge(compute())

    def receive_pooling(self, compute: Callable[[], tuple[Tensor, Tensor]]) -> None:
        with self._stopwatch.stage("attention"), torch.no_grad():
            self.attention, self.descriptions = compute()

    @property
    def token_sizes(self) -> Tensor | None:
        return None if self._tokens is None else self._tokens.sizes

    def merge_tokens(
        self, layer: int, hidden: Tensor, keys: Tensor, others: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        if self._tokens is None:
            return hidden, list(others)
        with self._stopwatch.stage("merging"):
            return self._tokens.merge(layer, hidden, keys, others)

    def after_layer(self, layer: int, hidden: Tensor, others: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        carried = list(others)
        if self._tokens is not None:
            return self._tokens.finish(layer, hidden, carried)
        with self._stopwatch.stage("merging"):
            if layer in self._plan.merge_layers:
                reductions = self._decide(hidden, layer)
                if any(reduction.outputs < reduction.inputs for reduction in reductions):
                    hidden, *carried = [_apply(reductions, rows) for rows in (hidden, *carried)]
                    self.attention = None if self.attention is None else _apply(reductions, self.attention)
                    self.keys = None if self.keys is None else _apply(reductions, self.keys)
                    for clip, reduction in zip(self._clips, reductions, strict=True):
                        clip.trace.origin = clip.trace.origin.then(reduction)
            if self._plan.frame_similarity and layer == self._last_layer:
                for clip, features in zip(self._clips, self._split(hidden), strict=True):
                    with torch.no_grad():
                        clip.similarity = _Download(frame_similarity(features))
        return hidden, carried

    @property
    def _last_layer(self) -> int:
        attention_layer = self._plan.attention_layer
        return max((*self._plan.merge_layers, 0 if attention_layer is None else attention_layer))

    def _split(self, rows: Tensor) -> Sequence[Tensor]:
        return rows.split([clip.frames for clip in self._clips])

    @torch.no_grad()
    def _decide(self, hidden: Tensor, layer: int) -> list[Reduction]:
        """The reduction of each clip; the identity where it is left alone."""
        attention = self.attention
        attentions: Sequence[Tensor | None] = [None] * len(self._clips) if attention is None else self._split(attention)
        reductions = []
        for clip, features, received in zip(self._clips, self._split(hidden), attentions, strict=True):
            reduction = Reduction.identity(clip.frames)
            if not clip.trace.stepped_aside:
                states = FrameStates(features=features, attention=received, origin=clip.trace.origin)
                decision = decided(self._method, self._method.merge_frames(states, layer, clip.floor))
                if decision.reduction is not None:
                    reduction = checked(self._method, decision.reduction, clip.frames)
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
) -> tuple[list[KeptTokens], list[VideoTrace]]:
    """Encode, merge, project and select; clips whose frames have one size go through the encoder together.

    Returns:
        The kept tokens of each clip, and what happened to it.

    Raises:
        CompressionError: the method kept another number of tokens than it promised.
        MethodError: the method does not fit the encoder.
    """
    clips = [_new_clip(method, grid) for grid in grids]
    sizes: dict[tuple[int, int], list[int]] = {}
    for number, grid in enumerate(grids):
        sizes.setdefault((grid.rows, grid.columns), []).append(number)
    kept: dict[int, Tensor] = {}
    for numbers in sizes.values():
        encoding = _Encoding(adapter, model, method, [clips[number] for number in numbers], stopwatch)
        kept.update(zip(numbers, encoding.run(inputs, grids, numbers), strict=True))
    traces = [clip.trace for clip in clips]
    return [_keep(kept[number], trace) for number, trace in enumerate(traces)], traces


def _keep(features: Tensor, trace: VideoTrace) -> KeptTokens:
    """The kept [K, C] tokens of one clip, with the places that they take in the uncompressed clip."""
    per_frame = trace.grid.tokens_per_frame
    rows = torch.arange(features.shape[0]) if trace.selection is None else trace.selection.survivors()
    first = trace.origin.survivors().to(rows.device, non_blocking=True)
    return KeptTokens(features=features, places=first[rows // per_frame] * per_frame + rows % per_frame)


@dataclass
class _Encoding:
    """The way of some clips, whose frames have one size, through encoder, projector and selection."""

    adapter: ModelAdapter
    model: nn.Module
    method: Method
    clips: Sequence[_Clip]
    stopwatch: Stopwatch

    def run(self, inputs: Mapping[str, Any], grids: Sequence[FrameGrid], numbers: Sequence[int]) -> list[Tensor]:
        """The kept [K, C] tokens of each clip; what happened is written into the clips' traces."""
        adapter, model, clips, grid = self.adapter, self.model, self.clips, grids[numbers[0]]
        active = any(not clip.trace.stepped_aside for clip in clips)
        plan = plan_encoder(adapter, model, self.method) if active else EncoderPlan()
        tokens = _token_merging(self.method, plan, clips, adapter.encoder(model).depth)
        visitor = _MergingVisitor(self.method, plan, clips, self.stopwatch, tokens)
        with self.stopwatch.stage("encoder"):
            hidden = adapter.encode(model, inputs, grids, numbers, visitor)
        if tokens is not None and not plan.unmerge:
            with self.stopwatch.stage("projection"):
                return _unpooled(adapter, model, hidden, tokens, clips)
        with self.stopwatch.stage("projection"):
            features = adapter.project(model, hidden, grid)
            with torch.no_grad():
                scores = visitor.attention
                attention = None if scores is None else adapter.pool_attention(model, scores, grid)
                keys = None if visitor.keys is None else _pool_keys(adapter, model, visitor.keys, grid)
        frames = [clip.frames for clip in clips]
        with self.stopwatch.stage("selection"):
            parts = (_by_clip(rows, frames) for rows in (attention, keys, visitor.descriptions))
            width = features.shape[-1] // adapter.encoder(model).feature_sets
            rows = zip(clips, features.split(frames), *parts, strict=True)
            return [_select(self.method, width, *part) for part in rows]


def _token_merging(method: Method, plan: EncoderPlan, clips: Sequence[_Clip], depth: int) -> TokenMerging | None:
    """The state of token merging inside the encoder, where the plan asks for it; all clips share the record of it."""
    if not plan.token_layers:
        return None
    if any(clip.trace.stepped_aside for clip in clips):
        raise CompressionError(
            f"method {method.name!r} merges the tokens of all frames of a call alike, so it cannot step aside for some "
            "of its clips only"
        )
    tokens = TokenMerging(method, clips[0].trace.grid, plan, depth)
    for clip in clips:
        clip.trace.token_merges = tokens.records
    return tokens


def _unpooled(
    adapter: ModelAdapter, model: nn.Module, hidden: Tensor, tokens: TokenMerging, clips: Sequence[_Clip]
) -> list[Tensor]:
    """Merged [F, K, D] tokens straight from the projector, clip by clip; they are what is kept."""
    features = adapter.project_tokens(model, hidden)
    grid = clips[0].trace.grid
    cells = adapter.pool_attention(
        model, torch.eye(tokens.patches, dtype=torch.float32, device=hidden.device), grid
    ).argmax(dim=1)
    start = 0
    for clip in clips:
        frames = slice(start, start + clip.frames)
        clip.trace.selection = tokens.provenance(cells, clip.trace.grid.tokens_per_frame, frames)
        clip.trace.details = {"tokens_per_frame": [features.shape[1]] * clip.frames}
        start = frames.stop
    return [part.flatten(0, 1) for part in features.split([clip.frames for clip in clips])]


def _new_clip(method: Method, grid: FrameGrid) -> _Clip:
    budget = method.budget(grid)
    trace = VideoTrace(
        grid=grid,
        budget=budget,
        stepped_aside=method.steps_aside(grid),
        origin=Reduction.identity(grid.frames),
    )
    return _Clip(trace=trace, floor=frame_floor(budget, grid.tokens_per_frame))


def _by_clip(rows: Tensor | None, sizes: Sequence[int]) -> Sequence[Tensor | None]:
    return [None] * len(sizes) if rows is None else rows.split(list(sizes))


def _pool_keys(adapter: ModelAdapter, model: nn.Module, keys: Tensor, grid: FrameGrid) -> Tensor:
    """[F, L, E] -> [F, P, E]: every channel is resized as a map of scores."""
    maps = adapter.pool_attention(model, keys.transpose(1, 2).flatten(0, 1), grid)
    return maps.unflatten(0, (keys.shape[0], -1)).transpose(1, 2)


def _select(
    method: Method,
    width: int,
    clip: _Clip,
    features: Tensor,
    attention: Tensor | None,
    keys: Tensor | None,
    descriptions: Tensor | None,
) -> Tensor:
    """The kept [K, C] tokens of one clip, out of its [N, P, C] features; the method sees the first ``width`` of C."""
    flat, trace = features.flatten(0, 1), clip.trace
    trace.attention = attention
    if trace.stepped_aside:
        return flat
    # Of a model spread over several devices, projector and encoder may lie on two.
    tokens = VisualTokens(
        features=features[..., :width].detach(),
        attention=None if attention is None else attention.to(features.device),
        grid=trace.grid,
        origin=trace.origin,
        frame_similarity=None if clip.similarity is None else clip.similarity.read(),
        keys=None if keys is None else keys.to(features.device),
        descriptions=None if descriptions is None else descriptions.to(features.device),
        fingerprint=None if clip.fingerprint is None else int(clip.fingerprint.read()),
    )
    with torch.no_grad():
        decision = decided(method, method.select_tokens(tokens, trace.budget))
    trace.selection, trace.details = decision.reduction, decision.details
    if method.exact_budget and trace.tokens != trace.budget:
        raise CompressionError(
            f"method {method.name!r} kept {trace.tokens} visual tokens where it had promised {trace.budget}"
        )
    return flat if decision.reduction is None else checked(method, decision.reduction, flat.shape[0]).apply(flat)


def _apply(reductions: Sequence[Reduction], rows: Tensor) -> Tensor:
    """Apply each clip's reduction to its part of ``rows`` (clips lie behind one another)."""
    if len(reductions) == 1:
        return reductions[0].apply(rows)
    parts = rows.split([reduction.inputs for reduction in reductions])
    return torch.cat([reduction.apply(part) for reduction, part in zip(reductions, parts, strict=True)])
