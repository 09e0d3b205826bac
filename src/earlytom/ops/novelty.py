"""What a token shows that others do not: over time at its place, and beside the other tokens of its grid and clip.

Both are told over their mean in the clip, so that they can be added to each other and to attention, whatever the
encoder: scaling all differences changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from earlytom.ops.redundancy import center_similarity, novelty_in_time
from earlytom.ops.similarity import paired_cosines

__all__ = ["over_mean", "relative_change", "relative_contrast"]

# Below this a difference is rounding: equal tokens have cosines that are off by as much.
_ROUNDING = 1e-5
_LEAST = 1e-9


def over_mean(scores: Tensor) -> Tensor:
    """[N, K] scores, at least 0, over the mean of them all; 1 everywhere where all are 0. NaN counts as 0."""
    scores = torch.nan_to_num(scores, nan=0.0, posinf=0.0)
    mean = scores.mean()
    return torch.where(mean > _LEAST, scores / mean.clamp_min(_LEAST), 1.0)


def relative_contrast(features: Tensor) -> Tensor:
    """How unlike the means of its grid and of the clip each token is, over the mean of the clip.

    By the similarity of VidCom2 (`earlytom.ops.center_similarity`), counted from the token that is most like them.

    Args:
        features: [N, K, D] tokens of N temporal grids, any floating dtype.

    Returns:
        [N, K] float32, at least 0; 1 everywhere where all tokens are alike.
    """
    to_clip, to_frame = center_similarity(features)
    similarity = to_clip + to_frame
    return over_mean(similarity.max() - similarity)


def relative_change(features: Tensor, cells: Tensor | None = None, places: int | None = None) -> Tensor:
    """How much each token differs from the newest one before it at its place, over the mean of the clip.

    The change is one minus the cosine of the two. A token that has none before it (those of the first grid, and where
    no earlier grid still has the place) changes as much as the mean. Waits for no device.

    Args:
        features: [N, K, D] tokens of N temporal grids in order, any floating dtype.
        cells: [N, K] int64, the place of each token in its grid; ``None``: all grids are whole.
        places: P, places of a whole grid; only with ``cells``.

    Returns:
        [N, K] float32, at least 0; 1 everywhere where nothing changes, or nothing can be compared.
    """
    if cells is None:
        change = novelty_in_time(features)
        found = change.isfinite()
    else:
        before = _newest_before(cells, places or features.shape[1])
        found = before >= 0
        earlier = features.flatten(0, 1).index_select(0, before.clamp_min(0).flatten()).view_as(features)
        change = 1.0 - paired_cosines(features, earlier)
    change = torch.where(found & (change > _ROUNDING), change, 0.0)
    mean = change.sum() / found.sum().clamp_min(1)
    return torch.where(found & (mean > 0), change / mean.clamp_min(_LEAST), 1.0)


def _newest_before(cells: Tensor, places: int) -> Tensor:
    """[N, K] int64: the row, of N * K, of the newest token before each one at its place; -1 where there is none."""
    grids, tokens = cells.shape
    rows = torch.arange(grids * tokens, device=cells.device).view(grids, tokens)
    at = torch.full((grids + 1, places), -1, dtype=torch.int64, device=cells.device)
    at[1:].scatter_(1, cells, rows)
    # Rows grow with the grids, so that the newest one up to a grid is the largest.
    return at[:-1].cummax(dim=0).values.gather(1, cells)
