"""Streaming segmentation of a clip (EarlyTom, stage I, step 2). Runs on the host, over a small similarity table."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Segment", "adaptive_threshold", "segment_frames"]

Segment = tuple[int, int]
"""First and last frame of a segment, both inclusive."""

_LOWEST, _HIGHEST = 0.5, 0.8


def segment_frames(
    similarity: Sequence[Sequence[float]], *, threshold: float, ema: float, max_window: int
) -> list[Segment]:
    """Cut a clip into segments of similar frames, causally: frame t is judged without any later frame.

    The reference is the first frame of the open segment; the smoothed similarity is
    ``s = ema * sim(reference, t) + (1 - ema) * s``, with ``s = 1`` at a segment's start. A new segment opens at t when
    ``s < threshold`` or when the open one would reach ``max_window`` frames.

    Args:
        similarity: [N, N] similarity of frames, host data.
        threshold: tau_seg.
        ema: weight of the new similarity, in (0, 1].
        max_window: a segment has at most ``max_window - 1`` frames.

    Returns:
        The segments in order; together they cover every frame once. Empty for no frames.
    """
    frames = len(similarity)
    segments: list[Segment] = []
    start, smoothed = 0, 1.0
    for frame in range(1, frames):
        smoothed = ema * similarity[start][frame] + (1 - ema) * smoothed
        if smoothed < threshold or frame - start + 1 >= max_window:
            segments.append((start, frame - 1))
            start, smoothed = frame, 1.0
    if frames:
        segments.append((start, frames - 1))
    return segments


def adaptive_threshold(similarity: Sequence[Sequence[float]], *, max_window: int) -> float:
    """tau_seg from the clip itself, for users who have no benchmark to tune on.

    The similarities that segmentation may look at (frames less than ``max_window - 1`` apart) fall into two classes,
    pairs within a scene and pairs across a change; the threshold is Otsu's, the split that separates them best. It is
    held to [0.5, 0.8], within the range that the paper's own tuning chose from (supplementary, Table 8), so that a
    clip that only drifts still merges and one of unrelated frames does not.

    Returns:
        The threshold; 0.8 for clips without pairs.
    """
    frames = len(similarity)
    pairs = sorted(
        similarity[first][second]
        for first in range(frames)
        for second in range(first + 1, min(frames, first + max_window - 1))
    )
    return min(_HIGHEST, max(_LOWEST, _otsu(pairs))) if pairs else _HIGHEST


def _otsu(values: Sequence[float]) -> float:
    """Middle of the gap that splits ascending values with the largest between-class variance; the top if all agree."""
    total, count, below = sum(values), len(values), 0.0
    best, threshold = 0.0, values[-1]
    for number in range(1, count):
        below += values[number - 1]
        difference = (total - below) / (count - number) - below / number
        variance = number * (count - number) * difference**2
        if variance > best:
            best, threshold = variance, (values[number - 1] + values[number]) / 2
    return threshold
