"""Density peaks clustering with k nearest neighbours (DPC-KNN), for many groups of tokens at once.

A token is dense when its nearest neighbours are close, and a good centre when it is dense and far from every denser
token. HoliTom, FastVID and PruneVid share it. Their code adds noise to the densities; here ties are decided by the
lower index, so that runs repeat.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from earlytom.ops.products import exact_product
from earlytom.ops.selection import ranks

__all__ = ["cluster_sizes", "density_peaks", "join_nearest", "peak_scores", "squared_distances"]

# Features are read in float32; this many values at a time (64 MiB) bound the memory for long clips.
_CHUNK_VALUES = 1 << 24
# Squared distances of float32 vectors below this share of their squared lengths are rounding: the vectors are equal.
_ROUNDING = 2e-6
# Stands for distances to vectors that are not finite, and for the score of a token that coincides with a denser one.
_FAR, _WORST = 1e30, -1e35


def squared_distances(features: Tensor) -> Tensor:
    """Squared euclidean distances inside each group, over the width.

    Args:
        features: [G, P, C], any floating dtype.

    Returns:
        [G, P, P] float32; the diagonal is 0, equal vectors are 0 apart, vectors that are not finite are far from all.
    """
    groups, points, width = features.shape
    step = max(1, _CHUNK_VALUES // max(1, points * width))
    squared = torch.empty(groups, points, points, dtype=torch.float32, device=features.device)
    for start in range(0, groups, step):
        rows = features[start : start + step].float()
        products = exact_product(rows, rows.transpose(1, 2))
        lengths = products.diagonal(dim1=1, dim2=2)
        together = lengths[:, :, None] + lengths[:, None, :]
        apart = together - 2 * products
        apart = apart.masked_fill_(apart < _ROUNDING * together, 0.0).div_(width)
        squared[start : start + step] = apart.nan_to_num_(nan=_FAR, posinf=_FAR).clamp_(0.0, _FAR)
    squared.diagonal(dim1=1, dim2=2).zero_()
    return squared


def peak_scores(squared: Tensor, valid: Tensor, neighbours: Sequence[int]) -> Tensor:
    """How good a centre each point is: density times distance to the nearest denser point, as a logarithm.

    The density is ``exp(-m)``, m the mean of the squared distances to the k nearest points, the point itself among
    them; the densest point takes the distance to the farthest. Of equally dense points the first counts as denser.
    In logarithms nothing underflows where tokens lie far apart.

    Args:
        squared: [G, P, P] float32, see `squared_distances`.
        valid: [G, P] bool, the points that exist.
        neighbours: k of each group, at least 1; groups with fewer points take all of them (host data).

    Returns:
        [G, P] float32; -inf for points that do not exist.
    """
    points = squared.shape[-1]
    limits = torch.tensor(neighbours, dtype=torch.int64).to(squared.device, non_blocking=True)
    others = squared.masked_fill(~valid[:, None, :], float("inf"))
    nearest = others.topk(min(points, max(neighbours)), dim=-1, largest=False).values
    counted = torch.arange(nearest.shape[-1], device=squared.device) < limits[:, None, None]
    counted = counted & (nearest < float("inf"))
    crowding = nearest.masked_fill(~counted, 0.0).sum(dim=-1) / counted.sum(dim=-1).clamp_min(1)
    index = torch.arange(points, device=squared.device)
    denser = crowding[:, None, :] < crowding[:, :, None]
    denser |= (crowding[:, None, :] == crowding[:, :, None]) & (index < index[:, None])
    apart = others.masked_fill_(~denser, float("inf")).amin(dim=-1)
    farthest = squared.masked_fill(~valid[:, None, :], 0.0).amax(dim=-1)
    apart = torch.where(apart < float("inf"), apart, farthest)
    return (0.5 * apart.log() - crowding).clamp_min_(_WORST).masked_fill_(~valid, float("-inf"))


def density_peaks(squared: Tensor, valid: Tensor, counts: Sequence[int], neighbours: Sequence[int]) -> Tensor:
    """The ``counts[g]`` best centres of each group; the lower index wins ties.

    Args:
        squared: [G, P, P] float32, see `squared_distances`.
        valid: [G, P] bool, the points that exist.
        counts: centres of each group, 0 to the number of its points (host data).
        neighbours: k of each group (host data).

    Returns:
        [G, P] bool.
    """
    wanted = torch.tensor(counts, dtype=torch.int64).to(squared.device, non_blocking=True)
    return ranks(peak_scores(squared, valid, neighbours)) < wanted[:, None]


def join_nearest(squared: Tensor, valid: Tensor, centres: Tensor) -> Tensor:
    """The centre that each point joins: a centre itself, any other point the nearest; the lower index wins ties.

    Args:
        squared: [G, P, P] float32, see `squared_distances`.
        valid: [G, P] bool, the points that exist.
        centres: [G, P] bool.

    Returns:
        [G, P] int64; P for points that do not exist and in groups without centres.
    """
    points = squared.shape[-1]
    nearest = squared.masked_fill(~centres[:, None, :], float("inf")).argmin(dim=-1)
    nearest = torch.where(centres, torch.arange(points, device=squared.device), nearest)
    return nearest.masked_fill_(~(valid & centres.any(dim=-1, keepdim=True)), points)


def cluster_sizes(joins: Tensor) -> Tensor:
    """For each point the number of points that join the same centre, [G, P] float32 of [G, P] `join_nearest`."""
    points = joins.shape[-1]
    sizes = torch.zeros(joins.shape[0], points + 1, dtype=torch.float32, device=joins.device)
    sizes.scatter_add_(1, joins, torch.ones_like(joins, dtype=torch.float32))
    return sizes.gather(1, joins)
