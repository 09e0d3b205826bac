"""Cosine similarities, one pair and one token at a time, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_naively(first: Tensor, second: Tensor) -> float:
    """Cosine of two vectors; 0 where one of them is zero or not finite."""
    one, two = first.double(), second.double()
    lengths = math.sqrt(float(one @ one)) * math.sqrt(float(two @ two))
    if lengths == 0.0 or not math.isfinite(lengths):
        return 0.0
    return float(one @ two) / lengths


def frame_similarity_naively(features: Tensor) -> Tensor:
    """[N, N] float64: the mean over the token positions of the cosine; 0 for frames that are not finite."""
    frames, tokens, _ = features.shape
    table = torch.zeros(frames, frames, dtype=torch.float64)
    finite = [bool(torch.isfinite(frame).all()) for frame in features]
    for i in range(frames):
        for j in range(frames):
            if finite[i] and finite[j]:
                table[i, j] = sum(cosine_naively(features[i, t], features[j, t]) for t in range(tokens)) / tokens
    return table
