"""Even spacing and adaptive bins, one frame, one token and one fraction at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor


def spaced_naively(count: int, tokens: int) -> list[int]:
    """floor((i + 1/2) * S / k)."""
    return [math.floor((Fraction(i) + Fraction(1, 2)) * tokens / count) for i in range(count)]


def bins_naively(count: int, length: int) -> list[list[int]]:
    """Bin i is [floor(i * S / k), ceil((i + 1) * S / k))."""
    return [
        list(range(math.floor(Fraction(i * length, count)), math.ceil(Fraction((i + 1) * length, count))))
        for i in range(count)
    ]


def pooled_naively(features: Tensor, pooled: Sequence[tuple[int, int]], sides: tuple[int, int]) -> Tensor:
    """The float64 means of all bins of [N, rows * columns, D] frames, frame by frame in raster order."""
    rows, columns = sides
    means = [
        torch.stack([frame[row * columns + column] for row in vertical for column in horizontal]).double().mean(dim=0)
        for frame, (height, width) in zip(features, pooled, strict=True)
        if height * width
        for vertical in bins_naively(height, rows)
        for horizontal in bins_naively(width, columns)
    ]
    return torch.stack(means)


def middles_naively(pooled: Sequence[tuple[int, int]], sides: tuple[int, int]) -> list[int]:
    """The token in the middle of each bin (behind it where there are two), flattened over the frames."""
    rows, columns = sides
    return [
        (frame * rows + (vertical[0] + vertical[-1] + 1) // 2) * columns + (horizontal[0] + horizontal[-1] + 1) // 2
        for frame, (height, width) in enumerate(pooled)
        if height * width
        for vertical in bins_naively(height, rows)
        for horizontal in bins_naively(width, columns)
    ]


def shares_naively(budget: int, frames: int) -> list[int]:
    """Tokens of each frame: dealt out one by one, so that they differ by at most one; which get more is even."""
    share, rest = divmod(budget, frames)
    more = {number * frames // rest for number in range(rest)}
    return [share + (frame in more) for frame in range(frames)]
