"""Windows of frames with static tokens, kept once for the window, and dynamic tokens, kept frame by frame.

HoliTom and PruneVid share this shape of result: window by window, first a block of static tokens, then a block of
dynamic tokens for each frame, each block in raster order. Every size is host data, so nothing here waits for a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earlytom.ops.clustering import cluster_sizes, density_peaks, join_nearest, squared_distances
from earlytom.ops.segmentation import Segment
from earlytom.ops.selection import kept_indices, ranks_among
from earlytom.ops.similarity import unit_rows
from earlytom.reduction import Reduction

__all__ = [
    "Blocks",
    "cluster_dynamic",
    "cluster_static",
    "frame_windows",
    "reduce_windows",
    "select_dynamic",
    "window_similarity",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """What becomes of the tokens of each block; a block belongs to a window or to a frame.

    Attributes:
        joins: [G, P] int64: the place, in the block, of the token that each token joins (itself for a centre), or P
            for tokens that are dropped or are none of the block.
        weights: [G, P] float32, the weight of each token in what it joins.
        counts: centres of each block (host data).
        members: tokens of each block that join one (host data).
    """

    joins: Tensor
    weights: Tensor
    counts: Sequence[int]
    members: Sequence[int]


def frame_windows(segments: Sequence[Segment], device: torch.device) -> Tensor:
    """The number of the window of each frame, [N] int64; ``segments`` cover the N frames in order (host data)."""
    return _on(device, [number for number, (first, last) in enumerate(segments) for _ in range(first, last + 1)])


def window_similarity(features: Tensor, segments: Sequence[Segment]) -> Tensor:
    """How alike the tokens of each place are in a window: the mean cosine over all pairs of its frames.

    Args:
        features: [N, P, D] frames, any floating dtype.
        segments: inclusive windows that cover the N frames in order (host data).

    Returns:
        [W, P] float32; -1 in windows of one frame.
    """
    rows = []
    for first, last in segments:
        pairs = (last + 1 - first) * (last - first)
        unit = unit_rows(features[first : last + 1])
        # The square of a sum holds every pair twice, and each frame with itself.
        alike = unit.sum(dim=0).square().sum(dim=-1) - unit.square().sum(dim=(0, 2))
        rows.append(alike / pairs if pairs else torch.full_like(alike, -1.0))
    return torch.stack(rows).clamp_max_(1.0)


def select_dynamic(scores: Tensor, dynamic: Tensor, counts: Sequence[int]) -> Blocks:
    """Keep the ``counts[f]`` highest scores among the dynamic tokens of frame f as they are.

    Args:
        scores: [N, P] float; the lower index wins ties, NaN ranks last.
        dynamic: [N, P] bool.
        counts: tokens to keep in each frame, at most its dynamic ones (host data).
    """
    points = scores.shape[1]
    chosen = ranks_among(scores, dynamic) < _on(scores.device, counts)[:, None]
    joins = torch.where(chosen, torch.arange(points, device=scores.device), points)
    return Blocks(joins=joins, weights=torch.ones_like(scores, dtype=torch.float32), counts=counts, members=counts)


def cluster_dynamic(
    features: Tensor, dynamic: Tensor, sizes: Sequence[int], counts: Sequence[int], neighbours: Sequence[int]
) -> Blocks:
    """Cluster the dynamic tokens of every frame into means.

    Args:
        features: [N, P, D] frames, any floating dtype.
        dynamic: [N, P] bool.
        sizes: dynamic tokens of each frame (host data).
        counts: clusters of each frame (host data).
        neighbours: k of each frame's clustering, at least 1 (host data).
    """
    joins = _join(features, dynamic, counts, neighbours)
    return Blocks(joins=joins, weights=1.0 / cluster_sizes(joins), counts=counts, members=_members(sizes, counts))


def cluster_static(
    features: Tensor,
    segments: Sequence[Segment],
    static: Tensor,
    sizes: Sequence[int],
    counts: Sequence[int],
    neighbours: Sequence[int],
    centre_weight: float | None = None,
) -> Blocks:
    """Cluster the static tokens of every window, by their means over its frames.

    Args:
        features: [N, P, D] frames, any floating dtype.
        segments: inclusive windows that cover the N frames in order (host data).
        static: [W, P] bool.
        sizes: static tokens of each window (host data).
        counts: clusters of each window (host data).
        neighbours: k of each window's clustering, at least 1 (host data).
        centre_weight: weight of a centre, the others of its cluster share the rest; ``None``: the plain mean.
    """
    points = static.shape[1]
    joins = torch.full_like(static, points, dtype=torch.int64)
    merging = [number for number, count in enumerate(counts) if count]
    if merging:
        # Only windows that keep static tokens are read.
        means = torch.empty(len(merging), points, features.shape[2], dtype=torch.float32, device=features.device)
        for place, number in enumerate(merging):
            first, last = segments[number]
            means[place] = features[first : last + 1].mean(dim=0, dtype=torch.float32)
        which = _on(static.device, merging)
        joins[which] = _join(
            means, static[which], [counts[number] for number in merging], [neighbours[number] for number in merging]
        )
    together = cluster_sizes(joins)
    weights = 1.0 / together
    if centre_weight is not None:
        others = (1.0 - centre_weight) / (together - 1.0).clamp_min(1.0)
        centre = joins == torch.arange(points, device=joins.device)
        weights = torch.where(centre, centre_weight, others).masked_fill_(together == 1, 1.0)
    return Blocks(joins=joins, weights=weights, counts=counts, members=_members(sizes, counts))


def reduce_windows(segments: Sequence[Segment], static: Tensor, blocks: Blocks, dynamic: Blocks) -> Reduction:
    """Merge static tokens along time and by their blocks, dynamic ones by the blocks of their frames.

    Args:
        segments: inclusive windows that cover the N frames in order (host data).
        static: [W, P] bool, the static tokens of each window.
        blocks: the W blocks of static tokens; the frames of a window weigh the same.
        dynamic: the N blocks of dynamic tokens.

    Returns:
        A reduction of the N * P tokens: for each window the static block, anchored in the window's first frame, then
        the dynamic block of each frame; inside a block raster order.
    """
    device, points = static.device, static.shape[1]
    lengths = [last - first + 1 for first, last in segments]
    frames, outputs = sum(lengths), sum(blocks.counts) + sum(dynamic.counts)
    window, first = frame_windows(segments, device), _on(device, [start for start, _ in segments])
    # Two blocks a frame: the static one of the window that starts there, and the dynamic one.
    place = torch.arange(points, device=device)
    kept = torch.zeros(frames, 2, points, dtype=torch.bool, device=device)
    kept[first, 0] = blocks.joins == place
    kept[:, 1] = dynamic.joins == place
    order = kept_indices(kept, outputs)
    number = (kept.flatten().cumsum(0) - 1).view(frames, 2, points)
    static_rows = _rows(number[first, 0], blocks.joins, outputs)[window]
    static_weights = blocks.weights[window] / _on(device, lengths)[window, None]
    is_static = static[window]
    rows = torch.where(is_static, static_rows, _rows(number[:, 1], dynamic.joins, outputs))
    merged = sum(members * length for members, length in zip(blocks.members, lengths, strict=True))
    return Reduction.sparse(
        rows.flatten(),
        torch.arange(frames * points, device=device),
        torch.where(is_static, static_weights, dynamic.weights).flatten(),
        entries=merged + sum(dynamic.members),
        inputs=frames * points,
        anchor=order // (2 * points) * points + order % points,
    )


def _join(features: Tensor, valid: Tensor, counts: Sequence[int], neighbours: Sequence[int]) -> Tensor:
    """The centre that each valid token of each group joins, see `join_nearest`."""
    squared = squared_distances(features)
    return join_nearest(squared, valid, density_peaks(squared, valid, counts, neighbours))


def _members(sizes: Sequence[int], counts: Sequence[int]) -> list[int]:
    return [size if count else 0 for size, count in zip(sizes, counts, strict=True)]


def _rows(number: Tensor, joins: Tensor, outputs: int) -> Tensor:
    """The output row of each token: the number of the centre that it joins, ``outputs`` for the dropped."""
    return torch.nn.functional.pad(number, (0, 1), value=outputs).gather(1, joins)


def _on(device: torch.device, values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64).to(device, non_blocking=True)
