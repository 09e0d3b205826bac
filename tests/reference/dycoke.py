"""DyCoke's temporal merging, pair by pair (methods.md, section 7)."""

from __future__ import annotations

from torch import Tensor

from reference.similarity import cosine_naively


def least_similar(features: Tensor, frame: int, reference: int, count: int) -> list[int]:
    """The ``count`` tokens of a frame that are least similar to the reference frame's, the least similar first."""
    tokens = features.shape[1]
    cosines = [cosine_naively(features[frame, t], features[reference, t]) for t in range(tokens)]
    return sorted(range(tokens), key=lambda token: (cosines[token], token))[:count]


def official_naively(features: Tensor, rate: float) -> list[int]:
    """The authors' two passes with their edges: indices into the flattened clip, in their order."""
    frames, tokens, _ = features.shape
    keep = int((1 - rate) * tokens)
    kept = {frame: list(range(tokens)) for frame in range(frames)}
    frame = 0
    while frame + 1 < frames:
        kept[frame + 1] = least_similar(features, frame + 1, frame, keep)
        frame += 2
    if frames % 2:
        del kept[frames - 1]
    frame = 0
    while frame < frames - 4:
        kept[frame + 2] = least_similar(features, frame + 2, frame, keep)
        frame += 4
    return [number * tokens + token for number, chosen in kept.items() for token in chosen]


def exact_naively(features: Tensor, counts: list[int]) -> list[int]:
    """Every frame but the first of four keeps ``counts`` tokens, in raster order."""
    tokens, kept = features.shape[1], []
    for frame, count in enumerate(counts):
        if frame % 4 == 0:
            chosen = list(range(tokens))
        else:
            chosen = sorted(least_similar(features, frame, frame - 2 if frame % 4 == 2 else frame - 1, count))
        kept += [frame * tokens + token for token in chosen]
    return kept
