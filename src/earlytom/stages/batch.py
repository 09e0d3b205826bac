"""Clips that go through a vision encoder together; each has its own method, budget and size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, compress, pairwise

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.ops import fingerprint
from earlytom.reduction import PlacedReduction, Reduction
from earlytom.stages.cells import CellLayout, take_rows
from earlytom.stages.frame_batch import FrameBatch
from earlytom.stages.host_copy import HostCopy, SimilarityTables
from earlytom.stages.session import POOLING_HEAD, ClipSession, Decide, Pooled, at_once
from earlytom.stages.tokens import TokenMerging
from earlytom.stages.visitor import LayerRequests
from earlytom.trace import Stopwatch
from earlytom.types import CellStates, Decision, KeptTokens

__all__ = ["SessionBatch"]


class SessionBatch:
    """Implements `earlytom.stages.FrameVisitor` for clips whose temporal grids have equally many tokens.

    All clips share the encoder's batch, so that an unmerged call runs exactly the stock computation; a method sees one
    clip at a time. Scoring and deciding never record gradients: maps that a backward pass would need are the largest
    tensors there are. Applying a decision does.

    Args:
        clips: in the order of their rows.
        clock: gets the times of the stages ``attention`` and ``merging``.
        decide: see `Decide`.

    Raises:
        CompressionError: the clips' grids have different numbers of tokens, or would be left with different numbers of
            cells, or tokens merge inside those of some clips only, or of each clip by another method.
    """

    def __init__(self, clips: Sequence[ClipSession], clock: Stopwatch, decide: Decide = at_once) -> None:
        self.clips, self._clock, self._decide = list(clips), clock, decide
        _check_sizes(self.clips)
        _check_cells(self.clips)
        self._requests = LayerRequests.of(clip.plan for clip in self.clips)
        self._tokens = _token_merging(self.clips, decide)
        self._attention: dict[int, Tensor] = {}
        self._keys: dict[int, Tensor] = {}
        self._descriptions: Tensor | None = None
        self._fingerprints: list[HostCopy] = []
        self._merged: set[int] = set()
        self._similarities: list[tuple[list[ClipSession], SimilarityTables]] = []
        self._compared: set[int] = set()
        self._left: tuple[CellLayout, Tensor] | None = None  # the cells that went on alone, in the order of their rows

    @property
    def requests(self) -> LayerRequests:
        return self._requests

    @property
    def grids_per_clip(self) -> tuple[int, ...]:
        """The temporal grids that are left of each clip."""
        return tuple(clip.grids_left for clip in self.clips)

    def receive_pixels(self, pixels: Tensor) -> None:
        self._fingerprints = [HostCopy(fingerprint(grids.detach())) for grids in self._split(pixels)]

    def receive_attention(self, layer: int, compute: Callable[[], Tensor]) -> None:
        with self._clock.stage("attention"), torch.no_grad():
            scores = self._checked(f"attention of layer {layer}", compute())
            self._attention[layer] = scores if self._tokens is None else self._tokens.unmerge_shares(scores)

    def receive_keys(self, layer: int, compute: Callable[[], Tensor]) -> None:
        with self._clock.stage("attention"), torch.no_grad():
            keys = self._checked(f"keys of layer {layer}", compute())
            self._keys[layer] = keys if self._tokens is None else self._tokens.unmerge(keys)

    def receive_pooling(self, compute: Callable[[], tuple[Tensor, Tensor]]) -> None:
        with self._clock.stage("attention"), torch.no_grad():
            self._attention[POOLING_HEAD], self._descriptions = compute()

    @property
    def token_sizes(self) -> Tensor | None:
        return None if self._tokens is None else self._tokens.sizes

    def merge_tokens(self, layer: int, batch: FrameBatch, keys: Tensor) -> FrameBatch:
        if self._tokens is None:
            return batch
        with self._clock.stage("merging"):
            return self._tokens.merge(layer, batch, keys)

    def after_layer(self, layer: int, batch: FrameBatch) -> FrameBatch:
        if batch.grids_per_clip != self.grids_per_clip:
            raise CompressionError(
                f"after layer {layer} the clips have {self.grids_per_clip} temporal grids left, got a batch of "
                f"{batch.grids_per_clip}"
            )
        if self._tokens is not None:
            return self._tokens.finish(layer, batch)
        with self._clock.stage("merging"):
            if layer in self._requests.merge_layers:
                batch = self._merge(layer, batch)
                self._merged.add(layer)
            self._queue_similarities(layer, batch)
            if layer in self._requests.cell_layers:
                batch = self._take_cells(layer, batch)
        return batch

    def select(self, features: Tensor, pool: Callable[[Tensor], Tensor]) -> list[KeptTokens]:
        """The kept tokens of each clip.

        Args:
            features: [F, P, C] what projector and pooling made of the grids that are left.
            pool: resizes [F, L] scores in the same way, to [F, P]; not asked where only some cells are left, whose
                features are [F, K, C].

        Raises:
            CompressionError: whoever ran the encoder did not report what ``requests`` asked for, or a method kept
                another number of tokens than it promised.
        """
        self._check_reported()
        with self._clock.stage("projection"):
            pooled = self._pooled(features, pool)
        with self._clock.stage("selection"):
            self._record_merges()
            self._read_tables()
            return [clip.select(part, self._decide) for clip, part in zip(self.clips, pooled, strict=True)]

    @property
    def leaves_unpooled(self) -> bool:
        """Whether merged tokens leave the encoder as they are, on no grid that could be pooled or selected from."""
        return self._tokens is not None and not self.clips[0].plan.unmerge

    def keep_unpooled(self, features: Tensor, pool: Callable[[Tensor], Tensor]) -> list[KeptTokens]:
        """The kept tokens of each clip where `leaves_unpooled`.

        Args:
            features: [F, K, C] what the projector made of the merged tokens.
            pool: see `select`.
        """
        if self._tokens is None or not self._tokens.patches:
            raise CompressionError("no tokens have merged, so none can leave the encoder without having been pooled")
        cells = pool(torch.eye(self._tokens.patches, dtype=torch.float32, device=features.device)).argmax(dim=1)
        ends = accumulate(self.grids_per_clip, initial=0)
        for clip, (start, end) in zip(self.clips, pairwise(ends), strict=True):
            clip.trace.selection = self._tokens.provenance(cells, clip.grid.tokens_per_frame, slice(start, end))
            clip.trace.details = {"tokens_per_frame": [features.shape[1]] * clip.grids_left}
        return [clip.keep(part.flatten(0, 1)) for clip, part in zip(self.clips, self._split(features), strict=True)]

    def _record_merges(self) -> None:
        """What the host has left for the time in which it would only wait for the device."""
        for clip in self.clips:
            clip.record_merges()

    def _checked(self, name: str, rows: Tensor) -> Tensor:
        if rows.shape[0] != sum(self.grids_per_clip):
            raise CompressionError(
                f"{name} must have a row for each of the {sum(self.grids_per_clip)} temporal grids, got "
                f"{tuple(rows.shape)}"
            )
        return rows

    def _split(self, rows: Tensor) -> Sequence[Tensor]:
        return rows.split(list(self.grids_per_clip))

    def _merge(self, layer: int, batch: FrameBatch) -> FrameBatch:
        with torch.no_grad():
            decisions = self._decide(lambda: self._decide_frames(layer, batch.patches))
        self._check_decisions(decisions)
        reductions = [
            Reduction.identity(clip.grids_left) if decision is None else clip.merged(layer, decision)
            for clip, decision in zip(self.clips, decisions, strict=True)
        ]
        if all(decision is None or decision.reduction is None for decision in decisions):
            return batch
        apply = _applied_anywhere(Reduction.side_by_side(reductions))
        self._attention = {source: apply(rows) for source, rows in self._attention.items()}
        self._keys = {source: apply(rows) for source, rows in self._keys.items()}
        return batch.changed(apply, self.grids_per_clip)

    def _decide_frames(self, layer: int, hidden: Tensor) -> list[Decision | None]:
        """What each clip's method makes of its grids; ``None`` where it is not asked."""
        asked = [layer in clip.plan.merge_layers for clip in self.clips]
        compared = [wanted and clip.plan.merge_similarity for clip, wanted in zip(self.clips, asked, strict=True)]
        parts = self._split(hidden)
        # Queued for all clips, then waited for once.
        own = any(clip.plan.token_similarity for clip in self.clips)
        queued = self._similarity_tables(parts, compared, own=own)
        self._record_merges()
        tables = iter(queued.read())
        known = [next(tables) if wanted else (None, None) for wanted in compared]
        rows = zip(self.clips, asked, parts, self._scores(self._attention), known, strict=True)
        return [
            clip.decide_frames(layer, features, attention, *tables) if wanted else None
            for clip, wanted, features, attention, tables in rows
        ]

    def _take_cells(self, layer: int, batch: FrameBatch) -> FrameBatch:
        with torch.no_grad():
            states = self._cell_states(layer, batch)
            decisions = self._decide(lambda: list(map(ClipSession.decide_cells, self.clips, states)))
            self._check_decisions(decisions)
            parts = zip(self.clips, decisions, states, strict=True)
            kept = [clip.cut(layer, decision, seen) for clip, decision, seen in parts]
            cells = torch.cat([part.to(batch.hidden.device, non_blocking=True) for part in kept])
        left = batch.only(cells)
        layout, standing = left.layout, left.layout.in_sequence(cells)
        self._left, patches = (layout, standing), layout.patches(standing)
        self._attention |= {source: take_rows(rows, patches) for source, rows in self._read_at_the_end().items()}
        self._keys = {source: take_rows(rows, patches) for source, rows in self._keys.items()}
        return left

    def _read_at_the_end(self) -> dict[int, Tensor]:
        """The attention that selections go by; cells may have been chosen by that of another layer."""
        sources = {clip.attention_source for clip in self.clips}
        return {source: rows for source, rows in self._attention.items() if source in sources}

    def _cell_states(self, layer: int, batch: FrameBatch) -> list[CellStates]:
        """What the methods see of the cells of their clips."""
        if any(clip.plan.cell_similarity for clip in self.clips):
            self._record_merges()
            self._read_tables()
        layout = batch.layout
        features = self._split(layout.means(batch.patches.detach()))
        scores: Sequence[Tensor | None] = [None] * len(self.clips)
        if any(clip.plan.cell_attention for clip in self.clips):
            scores = self._split(layout.means(self._received_in(layer).to(batch.hidden.device)))
        rows = zip(self.clips, features, scores, strict=True)
        return [clip.cell_states(part, score, layout) for clip, part, score in rows]

    def _received_in(self, layer: int) -> Tensor:
        if layer not in self._attention:
            raise CompressionError(
                f"the encoder was run without reporting the attention of layer {layer}, by which cells are chosen"
            )
        return self._attention[layer]

    def _check_decisions(self, decisions: object) -> None:
        if not isinstance(decisions, list) or len(decisions) != len(self.clips):
            raise CompressionError(f"expected the decisions of {len(self.clips)} clips, got {decisions!r}")

    def _scores(self, maps: Mapping[int, Tensor]) -> list[Tensor | None]:
        """For each clip its rows of the attention that it goes by, where that has come already."""
        return self._rows_of_clips(maps, [clip.attention_source for clip in self.clips])

    def _rows_of_clips(self, maps: Mapping[int, Tensor], sources: Sequence[int | None]) -> list[Tensor | None]:
        parts = {source: self._split(rows) for source, rows in maps.items()}
        return [parts[source][clip] if source in parts else None for clip, source in enumerate(sources)]

    def _queue_similarities(self, layer: int, batch: FrameBatch) -> None:
        """Read only when selection starts, behind the remaining layers."""
        ending = [clip.plan.similarity_layer == layer for clip in self.clips]
        if any(ending):
            queued = self._similarity_tables(self._split(batch.patches), ending)
            self._similarities.append((list(compress(self.clips, ending)), queued))
            self._compared.add(layer)

    def _similarity_tables(
        self, parts: Sequence[Tensor], wanted: Sequence[bool], *, own: bool = False
    ) -> SimilarityTables:
        spans = [clip.plan.similarity_span for clip in compress(self.clips, wanted)]
        return SimilarityTables(list(compress(parts, wanted)), spans, own=own)

    def _check_reported(self) -> None:
        reported = {
            "attention": self._requests.attention_layers <= set(self._attention),
            "keys": self._requests.key_layers <= set(self._keys),
            "pooling head": not self._requests.pooling_head or self._descriptions is not None,
            "pixels": not self._requests.fingerprint or bool(self._fingerprints),
            "layers": self._merged == self._requests.merge_layers
            and self._compared == self._requests.similarity_layers
            and (self._left is not None or not self._requests.cell_layers),
        }
        missing = [name for name, found in reported.items() if not found]
        if missing:
            raise CompressionError(
                f"the encoder was run without reporting {', '.join(missing)}, which the clips' methods asked for "
                f"({self._requests})"
            )

    def _read_tables(self) -> None:
        for clips, queued in self._similarities:
            for clip, (table, _) in zip(clips, queued.read(), strict=True):
                clip.similarity = table
        self._similarities.clear()
        for clip, number in zip(self.clips, self._fingerprints, strict=False):
            clip.fingerprint = int(number.read())

    def _pooled(self, features: Tensor, pool: Callable[[Tensor], Tensor]) -> list[Pooled]:
        left = self._left
        resize = pool if left is None else partial(left[0].pooled, cells=left[1])
        resize_keys = partial(_pool_channels, pool=pool) if left is None else resize
        with torch.no_grad():
            scores = self._scores({source: resize(rows) for source, rows in self._read_at_the_end().items()})
            keys = self._rows_of_clips(
                {source: resize_keys(rows) for source, rows in self._keys.items()},
                [clip.plan.attention_layer if clip.plan.keys else None for clip in self.clips],
            )
        described: Sequence[Tensor | None] = [None] * len(self.clips)
        described = described if self._descriptions is None else self._split(self._descriptions)
        cells: Sequence[Tensor | None] = [None] * len(self.clips)
        cells = cells if left is None else self._split(left[0].raster(left[1]))
        parts = zip(self._split(features), scores, keys, described, cells, strict=True)
        return [
            Pooled(features=part, attention=score, keys=key, descriptions=description, cells=kept)
            for part, score, key, description, kept in parts
        ]


def _check_sizes(clips: Sequence[ClipSession]) -> None:
    sizes = list(dict.fromkeys((clip.grid.rows, clip.grid.columns) for clip in clips))
    if len(sizes) > 1:
        shown = " and ".join(f"{rows} x {columns}" for rows, columns in sizes)
        raise CompressionError(
            f"temporal grids of a batch must have equally many tokens, got clips of {shown}; make a batch of each size"
        )


def _check_cells(clips: Sequence[ClipSession]) -> None:
    """Equally many of each grid are left, so that grids stay one batch."""
    ways = dict.fromkeys((clip.plan.cell_layer, clip.cells) for clip in clips)
    if len(ways) > 1:
        shown = " and ".join("all" if kept is None else f"{kept} after layer {layer}" for layer, kept in ways)
        raise CompressionError(
            f"temporal grids of a batch must be left with equally many cells after the same layer, got clips that keep "
            f"{shown}; make a batch of each"
        )


def _token_merging(clips: Sequence[ClipSession], decide: Decide) -> TokenMerging | None:
    """The state of token merging inside the encoder, where the plans ask for it; all clips share the record of it."""
    first = next((clip for clip in clips if clip.plan.token_layers), None)
    if first is None:
        return None
    if any(clip.trace.stepped_aside for clip in clips):
        raise CompressionError(
            f"method {first.method.name!r} merges the tokens of all frames of a call alike, so it cannot step aside "
            "for some of its clips only"
        )
    others = [clip.method.describe() for clip in clips if clip.method != first.method]
    if others:
        raise CompressionError(
            f"method {first.method.describe()!r} merges the tokens of all frames of a batch alike, so all clips of the "
            f"batch need this method; got {', '.join(map(repr, others))} beside it"
        )
    tokens = TokenMerging(first.method, first.grid, first.plan, first.shape.depth, decide)
    for clip in clips:
        clip.trace.token_merges = tokens.records
    return tokens


def _applied_anywhere(reduction: Reduction) -> Callable[[Tensor], Tensor]:
    """Apply a reduction to tensors wherever they are; it is brought to each device once."""
    placed: dict[torch.device, PlacedReduction] = {}

    def apply(rows: Tensor) -> Tensor:
        if rows.device not in placed:
            placed[rows.device] = reduction.at(rows.device)
        return placed[rows.device].apply(rows)

    return apply


def _pool_channels(keys: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """[F, L, E] -> [F, P, E]: every channel is resized as a map of scores."""
    return pool(keys.transpose(1, 2).flatten(0, 1)).unflatten(0, (keys.shape[0], -1)).transpose(1, 2)
