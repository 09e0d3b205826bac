"""How much a token repeats: the token before it in its place (EVS), its frame and its whole clip (VidCom2).

Everything stays on the device of the features; sizes are known beforehand, so nothing waits for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from earlytom.ops.selection import ranks
from earlytom.ops.similarity import paired_cosines, unit_rows

__all__ = ["center_similarity", "frame_shares", "novelty_in_time", "select_distinct"]

# Features are read in float32, some frames at a time: 4 MiB on a CPU, where they should stay in its caches (a third of
# the time of 64 MiB), and 256 MiB on accelerators, where short loops cost more than memory.
_CHUNK_VALUES = 1 << 20
_CHUNK_VALUES_ACCELERATOR = 1 << 26
# VidCom2's constants: twice the variances of its kernels, the share of the channels that it reads, and how sharply the
# budget goes to distinct frames.
_KERNELS = tuple(2.0 * 2.0**power for power in range(-3, 2))
_STEADY_CHANNELS, _TEMPERATURE = 0.5, 0.01


def novelty_in_time(features: Tensor) -> Tensor:
    """One minus the cosine of each token with the token of the same place one frame before (EVS).

    Args:
        features: [N, P, D] frames, any floating dtype.

    Returns:
        [N, P] float32 in [0, 2]; infinite in the first frame, which has nothing before it; 1 where one of the two
        tokens is zeros or not finite.
    """
    first = torch.full(features.shape[1:2], float("inf"), dtype=torch.float32, device=features.device)[None]
    return torch.cat([first, 1.0 - paired_cosines(features[1:], features[:-1])])


def center_similarity(features: Tensor) -> tuple[Tensor, Tensor]:
    """How close each token is to the mean of the clip and to the mean of its frame (VidCom2).

    Over the half of the channels that vary least, tokens of length 1; closeness to a mean is ``exp(-d / (2 * a))`` of
    the squared distance d, summed over a from 1/8 to 2.

    Args:
        features: [N, P, D] frames, any floating dtype. Values that are not finite count as 0.

    Returns:
        Similarity to the clip and to the frame, each [N, P] float32 in (0, 5].
    """
    steady, step = _steady_channels(features), _frames_at_once(features)
    parts = features.split(step)
    centers = torch.cat([_unit_rows(part, steady).mean(dim=1, keepdim=True) for part in parts])
    center = centers.mean(dim=0, keepdim=True)
    to_clip, to_frame = [], []
    for part, own in zip(parts, centers.split(step), strict=True):
        rows = _unit_rows(part, steady)
        to_clip.append(_closeness(rows, center))
        to_frame.append(_closeness(rows, own))
    return torch.cat(to_clip), torch.cat(to_frame)


def frame_shares(to_clip: Tensor, share: float) -> Tensor:
    """The share of its tokens that each frame may keep: more where it is unlike the clip (VidCom2).

    Args:
        to_clip: [N, P] float32, similarity to the clip (`center_similarity`).
        share: of all frames together, in (0, 1].

    Returns:
        [N] float32, at most 1; their mean is ``share`` where none would be more.
    """
    distinct = -to_clip.mean(dim=1)
    weight = torch.softmax((distinct - distinct.max()) / _TEMPERATURE, dim=0)
    return (share * (1.0 + weight - weight.mean())).clamp(max=1.0)


def select_distinct(similarity: Tensor, shares: Tensor, budget: int) -> Tensor:
    """Keep ``budget`` tokens: of each frame about its share, the least similar ones (VidCom2, as vLLM fits it).

    A frame's share is rounded to a number of tokens, at least one. What these come to is then fitted to the budget by
    similarity alone: too many lose the most similar of all, too few gain the least similar of the others. Of equals the
    earlier one stays.

    Args:
        similarity: [N, P] float32.
        shares: [N] float32, the share of its tokens that each frame may keep.
        budget: 1 to N * P.

    Returns:
        [budget] int64 indices into the flattened N * P tokens, ascending: temporal, then raster order.
    """
    tokens = similarity.shape[1]
    limits = (shares * tokens).round().clamp(1, tokens)
    spare = (ranks(-similarity) >= limits[:, None]).flatten()
    order = torch.sort(similarity.flatten(), stable=True).indices
    # Both fittings are one order: those within their frame's share first, each group by similarity.
    order = order[torch.sort(spare[order].to(torch.uint8), stable=True).indices]
    return torch.sort(order[:budget]).values


def _frames_at_once(features: Tensor) -> int:
    chunk = _CHUNK_VALUES if features.device.type == "cpu" else _CHUNK_VALUES_ACCELERATOR
    return max(1, chunk // max(1, features.shape[1] * features.shape[2]))


def _steady_channels(features: Tensor) -> Tensor:
    """[max(1, D // 2)] int64, ascending: the channels of least variance over all tokens; of equals the first ones."""
    within, means = zip(*map(_moments, features.split(_frames_at_once(features))), strict=True)
    variance = torch.cat(within).mean(dim=0) + torch.cat(means).var(dim=0, correction=0)
    count = max(1, int(features.shape[2] * _STEADY_CHANNELS))
    return torch.sort(torch.sort(variance, stable=True).indices[:count]).values


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """[M, D] each: variance inside each frame, and mean."""
    values = _finite(features)
    means = values.mean(dim=1)
    return values.sub_(means[:, None]).square_().mean(dim=1), means


def _unit_rows(features: Tensor, channels: Tensor) -> Tensor:
    return unit_rows(_finite(features.index_select(2, channels)))


def _finite(values: Tensor) -> Tensor:
    """A copy in float32."""
    return values.to(torch.float32, copy=True).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def _closeness(rows: Tensor, center: Tensor) -> Tensor:
    """[M, P]: the kernels of the squared distances of [M, P, E] rows to their centers, summed."""
    squared = (rows - center).square().sum(dim=-1)
    return torch.stack([torch.exp(-squared / width) for width in _KERNELS]).sum(dim=0)
