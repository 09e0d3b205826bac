"""Salient tokens beside anchors that gather the rest of their segment (FastVID: density-based token merging)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earlytom.ops.clustering import density_peaks, squared_distances
from earlytom.ops.products import exact_product
from earlytom.ops.segmentation import Segment
from earlytom.ops.selection import kept_indices, ranks
from earlytom.ops.similarity import unit_rows
from earlytom.reduction import Reduction

__all__ = ["AnchorPlan", "merge_into_anchors"]

# Cosines of anchors and tokens held at once (64 MiB).
_CHUNK_VALUES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class AnchorPlan:
    """How many tokens of each frame stay; all of it is host data.

    Attributes:
        segments: inclusive segments that cover the N frames in order.
        salient: for each frame the tokens that stay as they are.
        anchors: for each frame the tokens that others of the segment merge into; 0 in most frames.
    """

    segments: Sequence[Segment]
    salient: Sequence[int]
    anchors: Sequence[int]

    @property
    def outputs(self) -> int:
        """Tokens that are kept."""
        return sum(self.salient) + sum(self.anchors)

    def members(self, tokens: int, joins_itself: bool) -> int:
        """How often a token joins an anchor, for frames of ``tokens`` tokens."""
        total = 0
        for first, last in self.segments:
            frames = slice(first, last + 1)
            among = (last + 1 - first) * tokens - sum(self.salient[frames])
            carriers = [count for count in self.anchors[frames] if count]
            total += len(carriers) * among - (0 if joins_itself else sum(carriers))
        return total

    def parts(self, tokens: int) -> Iterator[tuple[Segment, list[int]]]:
        """Each segment with its anchor frames, several times where their cosines together would be too many."""
        for first, last in self.segments:
            carriers = [frame for frame in range(first, last + 1) if self.anchors[frame]]
            most = max((self.anchors[frame] for frame in carriers), default=1)
            step = max(1, _CHUNK_VALUES // (most * (last + 1 - first) * tokens))
            for start in range(0, len(carriers), step):
                yield (first, last), carriers[start : start + step]


def merge_into_anchors(
    features: Tensor, scores: Tensor, plan: AnchorPlan, *, neighbours: int, anchor_weight: float, joins_itself: bool
) -> Reduction:
    """Keep the salient tokens of every frame; merge all others of a segment into the anchors of its anchor frames.

    The anchors of a frame are its best density peaks among the tokens that are not salient. A token joins one anchor,
    that of the highest cosine, in every anchor frame of its segment. An anchor with n members becomes
    ``w * anchor + (1 - w) * mean(members)`` with ``w = max(1 / (n + 1), anchor_weight)``.

    Args:
        features: [N, P, D] frames, any floating dtype.
        scores: [N, P] float, what makes a token salient; the lower index wins ties, NaN ranks last.
        plan: the counts; those of a frame sum to at most P.
        neighbours: k of the density peaks.
        anchor_weight: the least weight of an anchor, in [0, 1].
        joins_itself: whether the anchors of a frame are members too, of the most similar anchor: usually themselves.

    Returns:
        A reduction from the N * P tokens to the kept ones in their order.
    """
    # A model spread over several devices projects features elsewhere than it scores tokens.
    scores = scores.to(features.device)
    frames, points = scores.shape
    salient = ranks(scores) < _on(scores.device, plan.salient)[:, None]
    carriers = [frame for frame, count in enumerate(plan.anchors) if count]
    if not carriers:
        return Reduction.keep(kept_indices(salient, plan.outputs), frames * points)
    peaks = torch.zeros_like(salient)
    index, counts = _on(scores.device, carriers), [plan.anchors[frame] for frame in carriers]
    squared = squared_distances(features[index])
    peaks[index] = density_peaks(squared, ~salient[index], counts, [neighbours] * len(carriers))
    order = kept_indices(salient | peaks, plan.outputs)
    number = ((salient | peaks).flatten().cumsum(0) - 1).view(frames, points)
    rows, sources = [], []
    for segment, part in plan.parts(points):
        source, joined = _nearest_anchors(features, segment, part, plan.anchors, peaks)
        own = _on(scores.device, part)[:, None] * points
        row = number.flatten()[own + joined]
        outside = salient.flatten()[source]
        if not joins_itself:
            outside = outside | (peaks.flatten()[source] & (source - own < points) & (source >= own))
        rows.append(row.masked_fill(outside, plan.outputs).flatten())
        sources.append(source.expand_as(row).flatten())
    entries = plan.outputs + plan.members(points, joins_itself)
    return _average(order, torch.cat(rows), torch.cat(sources), anchor_weight, entries, frames * points)


def _nearest_anchors(
    features: Tensor, segment: Segment, carriers: Sequence[int], anchors: Sequence[int], peaks: Tensor
) -> tuple[Tensor, Tensor]:
    """The [S] tokens of a segment and, for each of its anchor frames, the place of the anchor that each one joins."""
    (first, last), points, device = segment, peaks.shape[1], peaks.device
    tokens = unit_rows(features[first : last + 1].flatten(0, 1))
    index, counts = _on(device, carriers), _on(device, [anchors[frame] for frame in carriers])
    most = max(anchors[frame] for frame in carriers)
    places = torch.sort(peaks[index].to(torch.uint8), dim=1, descending=True, stable=True).indices[:, :most]
    among = tokens[((index - first)[:, None] * points + places).flatten()]
    cosines = exact_product(among, tokens.T).view(len(carriers), most, tokens.shape[0]).nan_to_num_(nan=-2.0)
    missing = torch.arange(most, device=device) >= counts[:, None]
    best = cosines.masked_fill_(missing[:, :, None], float("-inf")).argmax(dim=1)
    source = torch.arange(first * points, (last + 1) * points, device=device)
    return source, places.gather(1, best)


def _average(kept: Tensor, row: Tensor, source: Tensor, anchor_weight: float, entries: int, inputs: int) -> Reduction:
    """Weigh the kept tokens and what joins them: ``row`` is the output row that ``source`` joins, or K for none."""
    count = kept.shape[0]
    joiners = torch.zeros(count + 1, dtype=torch.float32, device=row.device)
    joiners.scatter_add_(0, row, torch.ones_like(row, dtype=torch.float32))
    own = (1.0 / (joiners + 1.0)).clamp_min_(anchor_weight)
    shared = (1.0 - own) / joiners.clamp_min(1.0)
    return Reduction.sparse(
        torch.cat([torch.arange(count, device=row.device), row]),
        torch.cat([kept, source]),
        torch.cat([own[:count], shared[row]]),
        entries=entries,
        inputs=inputs,
        anchor=kept,
    )


def _on(device: torch.device, values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64).to(device, non_blocking=True)
