"""EVS and VidCom2, one token at a time in float64."""

from __future__ import annotations

import math
from statistics import fmean, pvariance

from torch import Tensor

from reference.similarity import cosine_naively

Vector = list[float]


def novelty_naively(features: Tensor) -> list[float]:
    """One minus the cosine of each token with the one before it in its place; infinite in the first frame."""
    frames, tokens, _ = features.shape
    return [
        1.0 - cosine_naively(features[frame, token], features[frame - 1, token]) if frame else math.inf
        for frame in range(frames)
        for token in range(tokens)
    ]


def evs_naively(features: Tensor, count: int) -> list[int]:
    """The first frame, then what is least like what was there before; at least a frame."""
    novelty = novelty_naively(features)
    return sorted(sorted(range(len(novelty)), key=lambda place: (-novelty[place], place))[:count])


def steady_naively(features: Tensor) -> list[int]:
    """The half of the channels with the least variance over all tokens, as many as that is, rounded down."""
    rows = features.flatten(0, 1).double()
    variances = [pvariance(column.tolist()) for column in rows.T]
    return sorted(range(len(variances)), key=lambda channel: (variances[channel], channel))[
        : max(1, len(variances) // 2)
    ]


def similarities_naively(features: Tensor) -> tuple[list[Vector], list[Vector]]:
    """Closeness of the tokens of each frame to the mean of the clip, and to the mean of the frame."""
    steady = features.double()[..., steady_naively(features)].tolist()
    frames = [[_unit(token) for token in frame] for frame in steady]
    of_clip = _mean([token for frame in frames for token in frame])
    to_clip = [[_closeness(token, of_clip) for token in frame] for frame in frames]
    return to_clip, [[_closeness(token, _mean(frame)) for token in frame] for frame in frames]


def shares_of_frames_naively(to_clip: list[Vector], share: float) -> list[float]:
    """A softmax over how unlike the clip the frames are, at a temperature of 0.01, around the share; 1 at most."""
    distinct = [-fmean(frame) for frame in to_clip]
    weights = [math.exp((value - max(distinct)) / 0.01) for value in distinct]
    return [min(1.0, share * (1.0 + weight / sum(weights) - 1.0 / len(weights))) for weight in weights]


def distinct_naively(similarity: list[Vector], shares: list[float], budget: int) -> list[int]:
    """Each frame's least similar tokens by its rounded share; then the worst leave, or the best others come."""
    per_frame, kept = len(similarity[0]), []
    for frame, values in enumerate(similarity):
        count = min(per_frame, max(1, round(shares[frame] * per_frame)))
        kept += [frame * per_frame + token for token in sorted(range(per_frame), key=lambda t: (values[t], t))[:count]]
    flat = [value for values in similarity for value in values]
    others = sorted(set(range(len(flat))) - set(kept), key=lambda place: (flat[place], place))
    kept = sorted(kept, key=lambda place: (flat[place], place))[:budget]
    return sorted(kept + others[: budget - len(kept)])


def vidcom2_naively(features: Tensor, share: float, budget: int) -> list[int]:
    """All of it: ``share`` guides the frames, ``budget`` tokens are kept."""
    to_clip, to_frame = similarities_naively(features)
    both = [[one + other for one, other in zip(*pair, strict=True)] for pair in zip(to_clip, to_frame, strict=True)]
    return distinct_naively(both, shares_of_frames_naively(to_clip, share), budget)


def _unit(token: Vector) -> Vector:
    length = math.hypot(*token)
    return [value / length for value in token] if length else token


def _mean(rows: list[Vector]) -> Vector:
    return [fmean(column) for column in zip(*rows, strict=True)]


def _closeness(token: Vector, center: Vector) -> float:
    squared = math.dist(token, center) ** 2
    return sum(math.exp(-squared / (2.0 * spread)) for spread in (0.125, 0.25, 0.5, 1.0, 2.0))
