"""Similarity of frames and of tokens (EarlyTom, stage I: "mean over the tokens of the cosine similarity")."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["frame_similarity", "unit_rows"]

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
    frames, tokens, width = features.shape
    step = max(1, _CHUNK_VALUES // max(1, frames * width))
    gram = torch.zeros(frames, frames, dtype=torch.float32, device=features.device)
    for start in range(0, tokens, step):
        rows = unit_rows(features[:, start : start + step]).flatten(1)
        gram.addmm_(rows, rows.T)
    return torch.nan_to_num(gram / tokens, nan=0.0)
