"""Similarity of frames and of tokens, in true float32 and bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from earlytom.ops.products import exact_product
from earlytom.similarity import FrameSimilarity, SimilarityTable, block_starts

__all__ = [
    "frame_similarity",
    "packed_frame_similarity",
    "paired_cosines",
    "similarity_rows",
    "similarity_within",
    "token_similarity",
    "unit_rows",
]

# Tokens are normalised in float32; this many values at a time (128 MiB) bounds the memory for long clips.
_CHUNK_VALUES = 1 << 25


def unit_rows(features: Tensor) -> Tensor:
    """Scale the last dimension to length 1, in float32. Zero rows stay zero, so that cosines with them are 0."""
    values = features.float()
    return values / values.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def frame_similarity(features: Tensor) -> Tensor:
    """Similarity of every pair of frames: the mean over token positions of the cosine of the two token vectors.

    All pairs at once: normalise the tokens, flatten a frame to one row, one Gram matrix divided by L.

    Args:
        features: [N, L, D] frames, any floating dtype.

    Returns:
        [N, N] float32, symmetric, on the device of ``features``. 0 where a frame holds a value that is not finite.
    """
    return torch.nan_to_num(_summed_cosines(features) / features.shape[1], nan=0.0)


def similarity_within(features: Tensor, span: int) -> FrameSimilarity:
    """`frame_similarity` of the frames that are at most ``span`` apart, brought to the host; records no gradients.

    Args:
        features: [N, L, D] frames, any floating dtype.
        span: at least 1.
    """
    frames = features.shape[0]
    starts, size = block_starts(frames, span)
    return FrameSimilarity(
        packed_frame_similarity([features], [span]).cpu().view(len(starts), size, size), frames, span
    )


def similarity_rows(similarity: Tensor | FrameSimilarity) -> SimilarityTable:
    """Host data of a table that is on the host, whole or not; ``rows[i][j]`` belongs to frames i and j."""
    if isinstance(similarity, FrameSimilarity):
        return similarity.rows()
    rows: list[list[float]] = similarity.tolist()
    return rows


@torch.no_grad()
def packed_frame_similarity(clips: Sequence[Tensor], spans: Sequence[int | None] | None = None) -> Tensor:
    """`frame_similarity` of the frames of each of some clips, which all have L tokens; records no gradients.

    In long clips of which only a span is asked for, block by block (`earlytom.similarity.block_starts`): linear in N.

    Args:
        clips: [N, L, D] each, N may differ; at least one.
        spans: for each clip how far apart frames are that need comparing, ``None``: all; ``None`` for all clips.

    Returns:
        The [N, N] tables, or the [B, B] tables of a clip's blocks, each flattened, behind one another; float32.
    """
    blocks = [
        features[start : start + size]
        for features, span in zip(clips, spans or [None] * len(clips), strict=True)
        for starts, size in [block_starts(features.shape[0], span)]
        for start in starts
    ]
    tokens, sizes = clips[0].shape[1], [features.shape[0] ** 2 for features in blocks]
    packed = torch.zeros(sum(sizes), dtype=torch.float32, device=clips[0].device)
    for features, table in zip(blocks, packed.split(sizes), strict=True):
        _summed_cosines(features, table.view(features.shape[0], features.shape[0]))
    return torch.nan_to_num(packed / tokens, nan=0.0)


def token_similarity(features: Tensor) -> Tensor:
    """How alike the tokens of a frame are among themselves: the mean cosine of every two different ones.

    What two frames that show the same need to exceed: in some encoders all tokens look alike. Linear in the tokens.

    Args:
        features: [N, L, D] frames, any floating dtype.

    Returns:
        [N] float32; 0 where there is one token, or a value that is not finite.
    """
    tokens, width = features.shape[1:]
    step = max(1, _CHUNK_VALUES // max(1, tokens * width))
    sums = torch.cat([_squared_sums(part) for part in features.split(step)])
    return torch.nan_to_num(sums / max(1, tokens * (tokens - 1)), nan=0.0)


def _squared_sums(features: Tensor) -> Tensor:
    """[N]: the cosines of all pairs of different tokens of each frame, each pair twice."""
    rows = unit_rows(features)
    return rows.sum(dim=1).square().sum(dim=-1) - rows.square().sum(dim=(1, 2))


def _summed_cosines(features: Tensor, table: Tensor | None = None) -> Tensor:
    """[N, N] sums over tokens of the cosines of every pair of frames, some tokens at a time; into ``table``."""
    frames, tokens, width = features.shape
    sums = torch.zeros(frames, frames, dtype=torch.float32, device=features.device) if table is None else table
    step = max(1, _CHUNK_VALUES // max(1, frames * width))
    for start in range(0, tokens, step):
        rows = unit_rows(features[:, start : start + step]).flatten(1)
        sums += exact_product(rows, rows.T)
    return sums


def paired_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of each token with the token of the same place in another frame.

    Args:
        first: [M, P, D] frames, any floating dtype.
        second: [M, P, D] the frames to compare them with.

    Returns:
        [M, P] float32 in [-1, 1]; 0 for vectors of zeros and for those that are not finite.
    """
    frames, tokens, width = first.shape
    step = max(1, _CHUNK_VALUES // max(1, tokens * width))
    cosines = torch.empty(frames, tokens, dtype=torch.float32, device=first.device)
    for start in range(0, frames, step):
        one, other = first[start : start + step].float(), second[start : start + step].float()
        lengths = one.norm(dim=-1).clamp_min_(1e-12) * other.norm(dim=-1).clamp_min_(1e-12)
        # No product of the size of the frames: this is bound by memory.
        products = exact_product(one[..., None, :], other[..., :, None])[..., 0, 0]
        cosines[start : start + step] = products / lengths
    return cosines.nan_to_num_(nan=0.0).clamp_(-1.0, 1.0)
