"""Token selection inside frames (EarlyTom, stage II): global top-k and local windows, for all frames at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["highest_scores", "kept_indices", "ranks", "ranks_among", "select_by_frame", "window_ids"]


def ranks(scores: Tensor) -> Tensor:
    """Rank of each score in its row, 0 for the highest; ties go to the lower index, NaN ranks last. [..., P] int64."""
    scores = torch.nan_to_num(scores, nan=float("-inf"))
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return torch.argsort(order, dim=-1, stable=True)


def ranks_among(scores: Tensor, valid: Tensor) -> Tensor:
    """Like `ranks`, but every score that is not ``valid`` [..., P] bool ranks behind all that are, NaN included."""
    lowest = torch.finfo(scores.dtype).min / 2
    valued = torch.nan_to_num(scores, nan=lowest, neginf=lowest).clamp_min(lowest)
    return ranks(valued.masked_fill(~valid, float("-inf")))


def kept_indices(chosen: Tensor, count: int) -> Tensor:
    """The ascending indices of the ``count`` true elements of ``chosen``, flattened; waits for no device."""
    return torch.sort(chosen.flatten().to(torch.uint8), descending=True, stable=True).indices[:count]


def highest_scores(scores: Tensor, count: int) -> Tensor:
    """The ascending indices of the ``count`` highest of [V] ``scores``; ties and NaN as in `ranks`. [count] int64."""
    return kept_indices(ranks(scores) < count, count)


def window_ids(counts: Tensor, tokens: int) -> Tensor:
    """The local window of each token when row i is cut into ``counts[i]`` windows over the raster sequence.

    Sizes differ by at most one, the longer windows come first.

    Args:
        counts: [N] int64, windows of each frame, 1 to ``tokens``.
        tokens: P.

    Returns:
        [N, P] int64, ascending in each row from 0 to ``counts[i] - 1``.
    """
    position = torch.arange(tokens, device=counts.device).expand(counts.shape[0], tokens)
    base, longer = (tokens // counts)[:, None], (tokens % counts)[:, None]
    edge = longer * (base + 1)
    return torch.where(position < edge, position // (base + 1), longer + (position - edge) // base)


def select_by_frame(scores: Tensor, counts: Sequence[int], local: Sequence[bool], *, together: bool = False) -> Tensor:
    """Keep ``counts[i]`` tokens of frame i: the highest scores of the frame, or the highest of each local window.

    Only sorts and gathers of known size, so nothing waits for the device.

    Args:
        scores: [N, P] float, the attention each token received.
        counts: tokens to keep in each frame, 0 to P (host data).
        local: for each frame whether to take one token from each of ``counts[i]`` windows (host data).
        together: the frames that are not local keep the highest scores of all of them, as many as they have counts
            together; of equals those of earlier frames.

    Returns:
        [sum(counts)] int64 indices into the flattened N * P tokens, ascending: temporal, then raster order.
    """
    tokens = scores.shape[1]
    kept = torch.tensor(counts, dtype=torch.int64).to(scores.device, non_blocking=True)
    rank = ranks(scores)
    chosen = _highest_together(scores, counts, local) if together else rank < kept[:, None]
    if any(local):
        windows = window_ids(kept.clamp_min(1), tokens)
        best = torch.full_like(rank, tokens).scatter_reduce_(1, windows, rank, "amin").gather(1, windows)
        local_rows = torch.tensor(local).to(scores.device, non_blocking=True)
        chosen = torch.where(local_rows[:, None] & (kept > 0)[:, None], rank == best, chosen)
    return kept_indices(chosen, sum(counts))


def _highest_together(scores: Tensor, counts: Sequence[int], local: Sequence[bool]) -> Tensor:
    """[N, P] bool: the highest scores of all frames that are not local, the sum of their counts."""
    frames = [frame for frame, flag in enumerate(local) if not flag]
    index = torch.tensor(frames, dtype=torch.int64).to(scores.device, non_blocking=True)
    best = ranks(scores[index].flatten()) < sum(counts[frame] for frame in frames)
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[index] = best.view(len(frames), scores.shape[1])
    return chosen
