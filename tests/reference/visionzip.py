"""VisionZip, frame by frame and token by token (the specification's section 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from reference.selection import best_first
from reference.similarity import cosine_naively


def zipped_frame(
    scores: Tensor, metric: Tensor, dominant: int, contextual: int
) -> tuple[list[int], dict[int, list[int]]]:
    """The dominant tokens, and for each target the tokens that join it, all in raster order."""
    chosen = sorted(best_first(scores.tolist())[:dominant])
    remaining = [token for token in range(len(scores)) if token not in chosen]
    step = max(1, len(remaining) // contextual)
    targets = remaining[::step][:contextual]
    members: dict[int, list[int]] = {target: [] for target in targets}
    for token in remaining:
        if token not in targets:
            cosines = [cosine_naively(metric[token], metric[target]) for target in targets]
            members[targets[cosines.index(max(cosines))]].append(token)
    return chosen, members


def zip_naively(
    features: Tensor, scores: Tensor, metric: Tensor, dominant: list[int], contextual: list[int], raster: bool
) -> tuple[list[int], Tensor]:
    """Where the tokens that come out stand in the flattened clip, and their [K, D] float64 values."""
    places, values = [], []
    for number, frame in enumerate(features.double()):
        if dominant[number] + contextual[number] == 0:
            continue
        chosen, members = zipped_frame(scores[number], metric[number], dominant[number], contextual[number])
        order = sorted([*chosen, *members]) if raster else [*chosen, *members]
        for token in order:
            joined = members.get(token, [])
            value = frame[token] + (frame[joined].mean(dim=0) if joined else 0)
            places.append(number * len(frame) + token)
            values.append(value)
    return places, torch.stack(values)
