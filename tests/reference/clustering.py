"""DPC-KNN point by point, from the specification's text (methods.md 1.5), in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

Points = Sequence[Sequence[float]]


def squared_naively(points: Points) -> list[list[float]]:
    """Squared euclidean distances over the width."""
    return [
        [sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one) for other in points] for one in points
    ]


def peaks_naively(points: Points, count: int, neighbours: int) -> list[int]:
    """The ``count`` centres, ascending."""
    table = squared_naively(points)
    total = len(points)
    density = []
    for row in table:
        nearest = sorted(row)[: min(neighbours, total)]
        density.append(math.exp(-sum(nearest) / len(nearest)))
    scores = []
    for i in range(total):
        denser = [j for j in range(total) if density[j] > density[i] or (density[j] == density[i] and j < i)]
        delta = math.sqrt(min(table[i][j] for j in denser) if denser else max(table[i]))
        scores.append(delta * density[i])
    return sorted(sorted(range(total), key=lambda i: (-scores[i], i))[:count])


def join_naively(points: Points, centres: Sequence[int]) -> list[int]:
    """For each point the centre that it joins."""
    table = squared_naively(points)
    return [
        i if i in centres else min(centres, key=lambda centre: (table[i][centre], centre)) for i in range(len(points))
    ]


def cluster_naively(points: Points, count: int, neighbours: int) -> dict[int, list[int]]:
    """Centre -> all of its points, the centre included; centres ascending."""
    centres = peaks_naively(points, count, neighbours)
    joined = join_naively(points, centres)
    return {centre: [i for i in range(len(points)) if joined[i] == centre] for centre in centres}
