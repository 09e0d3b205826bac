"""Even spacing and even pooling inside frames: what only shapes decide, made on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from earlytom.reduction import Reduction

__all__ = ["adaptive_bins", "evenly_spaced", "nearest_grid"]


def evenly_spaced(counts: Sequence[int], tokens: int) -> Tensor:
    """In frame f the ``counts[f]`` places ``floor((i + 0.5) * tokens / counts[f])``.

    Args:
        counts: places of each frame, 0 to ``tokens``.
        tokens: P.

    Returns:
        [sum(counts)] int64 indices into the flattened N * P tokens, on the host, strictly ascending.
    """
    frame, place, count = _numbered(counts)
    return frame * tokens + (2 * place + 1) * tokens // (2 * count)


def adaptive_bins(pooled: Sequence[tuple[int, int]], sides: tuple[int, int]) -> Reduction:
    """Average every frame over adaptive bins: along each side, bin i of k covers [floor(i*S/k), ceil((i+1)*S/k)).

    Args:
        pooled: rows and columns that each frame is pooled to, at most ``sides``; (1, 0) for none.
        sides: rows and columns of a frame.

    Returns:
        A reduction from the N * rows * columns tokens to the means, frame by frame in raster order, anchored at the
        middle of each bin. A token at a border may be part of two bins along a side.
    """
    rows, columns = sides
    frame, place, _ = _numbered([height * width for height, width in pooled])
    shape = torch.tensor(pooled, dtype=torch.int64).reshape(-1, 2)[frame]
    top, height = _bin(place // shape[:, 1], shape[:, 0], rows)
    left, width = _bin(place % shape[:, 1], shape[:, 1], columns)
    size = height * width
    offsets = torch.cat([size.new_zeros(1), size.cumsum(0)])
    output = torch.repeat_interleave(size)
    entry = torch.arange(int(offsets[-1])) - offsets[output]
    first = (frame * rows + top) * columns + left
    source = first[output] + entry // width[output] * columns + entry % width[output]
    anchor = first + height // 2 * columns + width // 2
    weight = 1.0 / size[output].to(torch.float32)
    return Reduction(offsets, source, weight, len(pooled) * rows * columns, anchor)


def nearest_grid(tokens: float, sides: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns whose product is nearest to ``tokens``, with about the proportion of ``sides``.

    Looked for among sides less than two steps away from the exact ones, so that a number with few divisors does not
    end in a strip; among equals the grid that is closer in proportion, then the one with fewer rows.
    """
    rows, columns = sides
    height = min(max(math.sqrt(tokens * rows / columns), 1.0), rows)
    width = min(max(tokens / height, 1.0), columns)
    height = min(max(tokens / width, 1.0), rows)
    candidates = (
        (high, wide)
        for high in range(max(1, math.floor(height) - 1), min(rows, math.ceil(height) + 1) + 1)
        for wide in range(max(1, math.floor(width) - 1), min(columns, math.ceil(width) + 1) + 1)
    )
    return min(
        candidates,
        key=lambda grid: (
            round(abs(grid[0] * grid[1] - tokens), 9),
            round(abs(math.log(grid[0] * width / (grid[1] * height))), 9),
        ),
    )


def _numbered(counts: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """For each output of all frames: its frame, its number in that frame, and how many outputs the frame has."""
    each = torch.tensor(counts, dtype=torch.int64)
    frame = torch.repeat_interleave(each)
    return frame, torch.arange(frame.shape[0]) - (each.cumsum(0) - each)[frame], each[frame]


def _bin(number: Tensor, bins: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Start and length of bin ``number`` of ``bins`` over ``length`` places."""
    start = number * length // bins
    end = -(-(number + 1) * length // bins)
    return start, end - start
