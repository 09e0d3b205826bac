"""Streaming segmentation, one frame at a time, from the specification's text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

Table = Sequence[Sequence[float]]


def segment_naively(similarity: Table, threshold: float, ema: float, max_window: int) -> list[tuple[int, int]]:
    """Cut a clip into inclusive segments: open lists of frames, closed when the next frame does not fit."""
    if not similarity:
        return []
    finished: list[list[int]] = []
    opened = [0]
    smoothed = 1.0
    for frame in range(1, len(similarity)):
        smoothed = ema * similarity[opened[0]][frame] + (1.0 - ema) * smoothed
        if smoothed < threshold or len(opened) + 1 >= max_window:
            finished.append(opened)
            opened, smoothed = [frame], 1.0
        else:
            opened.append(frame)
    finished.append(opened)
    return [(frames[0], frames[-1]) for frames in finished]


def adaptive_thresholds_naively(similarity: Table, max_window: int) -> set[float]:
    """Otsu's threshold over the pairs less than ``max_window - 1`` apart, held to [0.5, 0.8].

    In exact fractions; every split whose between-class variance is the largest counts, as rounding may choose any.
    """
    count = len(similarity)
    values = sorted(
        Fraction(similarity[first][second])
        for first in range(count)
        for second in range(count)
        if 0 < second - first < max_window - 1
    )
    if not values:
        return {0.8}
    variances = {}
    for number in range(1, len(values)):
        low, high = values[:number], values[number:]
        variances[(low[-1] + high[0]) / 2] = len(low) * len(high) * (_mean(high) - _mean(low)) ** 2
    most = max(variances.values(), default=Fraction(0))
    best = [middle for middle, variance in variances.items() if variance >= most * (1 - Fraction(1, 10**9))]
    return {max(0.5, min(0.8, float(threshold))) for threshold in (best if most else [values[-1]])}


def _mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values)


def cut_weakest_naively(similarity: Table, longest: int, among: list[float] | None) -> list[tuple[int, int]]:
    """Cut apart what is unrelated; then, in a segment that is too long, its weakest link, until none is."""
    frames = len(similarity)
    if not frames:
        return []
    cuts = set()
    for frame in range(1, frames):
        if among is not None:
            base = (among[frame - 1] + among[frame]) / 2
            if not similarity[frame - 1][frame] > base + 0.25 * (1 - base) - 1e-5:
                cuts.add(frame)
    while True:
        edges = [0, *sorted(cuts), frames]
        long = [(start, end) for start, end in itertools.pairwise(edges) if end - start > longest]
        if not long:
            return [(start, end - 1) for start, end in itertools.pairwise(edges)]
        start, end = long[0]
        inside = range(start + 1, end)
        cuts.add(min(inside, key=lambda f: (round(similarity[f - 1][f], 5), f % longest != 0, f)))
