"""What is new about each token, one at a time in plain floats."""

from __future__ import annotations

from statistics import fmean

from torch import Tensor

from reference.redundancy import similarities_naively
from reference.similarity import cosine_naively


def over_mean_naively(rows: list[list[float]]) -> list[list[float]]:
    """Over the mean of all; 1 everywhere where all are 0."""
    mean = fmean(value for row in rows for value in row)
    return [[value / mean if mean > 1e-9 else 1.0 for value in row] for row in rows]


def change_naively(features: Tensor, cells: Tensor | None = None) -> list[list[float]]:
    """One minus the cosine with the newest token before it at its place, over the mean of those that have one."""
    grids, tokens, _ = features.shape
    newest: dict[int, Tensor] = {}
    found: list[list[float | None]] = []
    for grid in range(grids):
        places = list(range(tokens)) if cells is None else cells[grid].tolist()
        found.append(
            [
                1.0 - cosine_naively(features[grid, row], newest[place]) if place in newest else None
                for row, place in enumerate(places)
            ]
        )
        newest |= {place: features[grid, row] for row, place in enumerate(places)}
    known = [value for row in found for value in row if value is not None]
    mean = fmean(known) if known else 0.0
    return [[value / mean if value is not None and mean > 1e-9 else 1.0 for value in row] for row in found]


def contrast_naively(features: Tensor) -> list[list[float]]:
    """How much farther from the means of clip and grid than the token that is nearest to them, over the mean."""
    to_clip, to_frame = similarities_naively(features)
    near = [[one + other for one, other in zip(*rows, strict=True)] for rows in zip(to_clip, to_frame, strict=True)]
    most = max(value for row in near for value in row)
    return over_mean_naively([[most - value for value in row] for row in near])
