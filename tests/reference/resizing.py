"""Bilinear resizing of one map, value by value (pixel centres at .5, no antialiasing)."""

from __future__ import annotations

import math


def taps(position: int, size: int, pooled: int) -> list[tuple[int, float]]:
    """The sources of one output along one axis, with their weights."""
    centre = max(0.0, (position + 0.5) * size / pooled - 0.5)
    low = math.floor(centre)
    high, share = min(low + 1, size - 1), centre - low
    return [(low, 1 - share), (high, share)]


def pool_bilinear_naively(scores: list[float], side: int, pooled: tuple[int, int]) -> list[float]:
    """One flattened ``side`` x ``side`` map resized to ``pooled``."""
    rows, columns = pooled
    return [
        sum(
            down * across * scores[source_row * side + source_column]
            for source_row, down in taps(row, side, rows)
            for source_column, across in taps(column, side, columns)
        )
        for row in range(rows)
        for column in range(columns)
    ]
