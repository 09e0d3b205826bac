"""Dominant and contextual tokens (VisionZip, section 3), for all frames at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from earlytom.ops.products import exact_product
from earlytom.ops.selection import ranks
from earlytom.ops.similarity import unit_rows
from earlytom.reduction import Reduction

__all__ = ["dominant_and_contextual"]


def dominant_and_contextual(
    scores: Tensor, metric: Tensor, dominant: Sequence[int], contextual: Sequence[int], *, raster: bool
) -> Reduction:
    """Keep the highest scores of each frame, and gather all its other tokens in a few evenly spaced ones.

    Of a frame's tokens that are not dominant every ``step``-th in raster order is a target, ``step = left //
    contextual``. Each of the others joins the target of highest cosine of the metric, the first one on ties. A target
    becomes itself *plus* the mean of those that joined it, as published: a sum, not an average.

    Args:
        scores: [N, P] float, the attention each token received.
        metric: [N, P, E] float, what tokens are compared by (keys).
        dominant: dominant tokens of each frame (host data).
        contextual: contextual tokens of each frame; where it is 0 the dominant ones must be 0 too, and the frame
            gives nothing.
        raster: ``True``: the tokens of a frame come out in raster order; ``False``: the dominant ones, then the
            contextual ones, each in raster order.

    Returns:
        A reduction from N * P tokens to sum(dominant) + sum(contextual), frame by frame, anchored at the dominant
        tokens and targets. Sizes are known beforehand, so nothing waits for the device.
    """
    frames, per_frame = scores.shape
    dominant_counts, contextual_counts = (
        torch.tensor(part).to(scores.device, non_blocking=True)[:, None] for part in (dominant, contextual)
    )
    is_dominant = ranks(scores) < dominant_counts
    place = torch.cumsum(~is_dominant, 1) - 1
    step = ((per_frame - dominant_counts) // contextual_counts.clamp_min(1)).clamp_min(1)
    is_target = ~is_dominant & (place % step == 0) & (place // step < contextual_counts)
    targets = torch.sort(is_target.to(torch.uint8), dim=1, descending=True, stable=True).indices[:, : max(contextual)]
    joined = targets.gather(1, _best_target(metric, targets, contextual_counts))
    own = torch.arange(per_frame, device=scores.device).expand(frames, per_frame)
    head = torch.where(is_dominant | is_target, own, joined)
    order = _output_order(is_dominant, is_target, raster)[: sum(dominant) + sum(contextual)]
    return _gather_groups(head, order, [frame for frame in range(frames) if contextual[frame]])


def _best_target(metric: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
    """[N, P] int64: which of its frame's first ``counts`` targets is most similar to each token."""
    rows = unit_rows(metric)
    chosen = rows.gather(1, targets[..., None].expand(-1, -1, rows.shape[-1]))
    similarity = torch.nan_to_num(exact_product(rows, chosen.transpose(1, 2)), nan=0.0)
    absent = torch.arange(targets.shape[1], device=counts.device) >= counts
    return similarity.masked_fill(absent[:, None], float("-inf")).argmax(dim=2)


def _output_order(is_dominant: Tensor, is_target: Tensor, raster: bool) -> Tensor:
    """All N * P tokens, those that stay first and in the order in which they come out."""
    frames = is_dominant.shape[0]
    frame = torch.arange(frames, device=is_dominant.device)[:, None]
    key = 2 * frame + (torch.zeros_like(is_target) if raster else is_target)
    return torch.sort(torch.where(is_dominant | is_target, key, 2 * frames).flatten(), stable=True).indices


def _gather_groups(head: Tensor, order: Tensor, filled: Sequence[int]) -> Reduction:
    """Each token of the ``filled`` frames joins its ``head``; the heads come out in ``order``."""
    frames, per_frame = head.shape
    device = head.device
    frame = torch.tensor(filled, dtype=torch.int64).to(device, non_blocking=True)
    entries = (frame[:, None] * per_frame + torch.arange(per_frame, device=device)).flatten()
    heads = (frame[:, None] * per_frame + head.index_select(0, frame)).flatten()
    position = torch.empty(frames * per_frame, dtype=torch.int64, device=device)
    position[order] = torch.arange(order.shape[0], device=device)
    output = position[heads]
    member = (entries != heads).to(torch.float32)
    members = torch.zeros(order.shape[0], dtype=torch.float32, device=device).scatter_add_(0, output, member)
    weight = torch.where(entries == heads, torch.ones_like(member), 1.0 / members[output])
    return Reduction.sparse(output, entries, weight, entries=entries.shape[0], inputs=frames * per_frame, anchor=order)
