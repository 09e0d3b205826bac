"""Streaming segmentation of a clip (EarlyTom, stage I, step 2). Runs on the host, over a small similarity table."""

from __future__ import annotations

import itertools
from bisect import bisect, insort
from collections.abc import Sequence

from earlytom.similarity import SimilarityTable

__all__ = ["Segment", "adaptive_threshold", "contiguous_windows", "cut_at_changes", "cut_at_weakest", "segment_frames"]

Segment = tuple[int, int]
"""First and last frame of a segment, both inclusive."""

_LOWEST, _HIGHEST = 0.5, 0.8
# Of the way from how alike any two tokens of a frame are to equality, what neighbours of one scene have covered.
_RELATED, _TIE = 0.25, 1e-5
# Similarities that agree in so many digits are equal: the rest is rounding.
_DIGITS = 5


def segment_frames(similarity: SimilarityTable, *, threshold: float, ema: float, max_window: int) -> list[Segment]:
    """Cut a clip into segments of similar frames, causally: frame t is judged without any later frame.

    The reference is the first frame of the open segment; the smoothed similarity is
    ``s = ema * sim(reference, t) + (1 - ema) * s``, with ``s = 1`` at a segment's start. A new segment opens at t when
    ``s < threshold`` or when the open one would reach ``max_window`` frames.

    Args:
        similarity: [N, N] similarity of frames, host data; those less than ``max_window`` apart are read.
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


def cut_at_changes(similarity: Sequence[float], *, segments: int, threshold: float) -> list[Segment]:
    """Cut a clip between neighbouring frames: where they differ most, and wherever they differ much (FastVID).

    Args:
        similarity: for each frame but the last its similarity to the next one, host data.
        segments: the least number of segments; as many as there are frames where these are fewer.
        threshold: neighbours less alike than this are cut apart.

    Returns:
        The segments in order; among equal similarities the earlier one is cut.
    """
    by_similarity = sorted(range(len(similarity)), key=lambda frame: (round(similarity[frame], _DIGITS), frame))
    cuts = {*by_similarity[: segments - 1], *(frame for frame, value in enumerate(similarity) if value < threshold)}
    ends = [*sorted(cuts), len(similarity)]
    return list(zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True))


def cut_at_weakest(similarity: SimilarityTable, *, longest: int, among: Sequence[float] | None = None) -> list[Segment]:
    """Cut a clip between the neighbours that are least alike until no segment is longer than ``longest`` frames.

    Only which of two similarities is larger counts: encoders under which all frames look alike, or none do, cut alike.
    Of equal ones those are cut first that leave whole segments of ``longest`` frames, then the earlier ones. Neighbours
    that are hardly more alike than any two tokens of one frame have nothing to do with each other, and are always cut.

    Args:
        similarity: [N, N] similarity of frames, host data; that of neighbours is read.
        longest: frames of a segment, at least 1.
        among: how alike the tokens of each frame are among themselves; ``None``: nothing is always cut.

    Returns:
        The segments in order; together they cover every frame once. Empty for no frames.
    """
    frames = len(similarity)
    if not frames:
        return []
    links = sorted(
        range(1, frames), key=lambda frame: (round(similarity[frame - 1][frame], _DIGITS), frame % longest != 0, frame)
    )
    unrelated = {frame for frame in links if among is not None and _unrelated(similarity, among, frame)}
    starts = sorted([0, *unrelated, frames])
    for frame in (frame for frame in links if frame not in unrelated):
        place = bisect(starts, frame)
        if starts[place] - starts[place - 1] > longest:
            insort(starts, frame)
    return [(first, behind - 1) for first, behind in itertools.pairwise(starts)]


def _unrelated(similarity: SimilarityTable, among: Sequence[float], frame: int) -> bool:
    """Whether a frame and the one before it share less than a quarter of what alike tokens leave open."""
    base = (among[frame - 1] + among[frame]) / 2
    return not similarity[frame - 1][frame] > base + _RELATED * (1.0 - base) - _TIE


def contiguous_windows(labels: Sequence[int]) -> list[Segment]:
    """Cut a clip into windows by the clusters of its frames, each of which is made contiguous (PruneVid).

    A cluster keeps its longest runs of neighbouring frames, and none where that is a single frame. From left to right,
    each stretch between goes to the longer of the runs beside it, the left one among equals.

    Args:
        labels: the cluster of each frame, host data.

    Returns:
        The windows in order; neighbouring runs of one cluster are one window.
    """
    runs = [(label, len(list(run))) for label, run in itertools.groupby(labels)]
    longest = {label: max(length for other, length in runs if other == label) for label, _ in runs}
    marked = [(label if 1 < longest[label] == length else None, length) for label, length in runs]
    stretches = [
        (label, sum(length for _, length in group)) for label, group in itertools.groupby(marked, lambda run: run[0])
    ]
    windows: list[tuple[int, int]] = []  # cluster and frames
    for number, (label, length) in enumerate(stretches):
        if label is None:
            after = stretches[number + 1] if number + 1 < len(stretches) else (None, 0)
            label = windows[-1][0] if windows and windows[-1][1] >= after[1] else after[0] or 0
        if windows and windows[-1][0] == label:
            length += windows.pop()[1]
        windows.append((label, length))
    ends = list(itertools.accumulate(length for _, length in windows))
    return [(end - length, end - 1) for end, (_, length) in zip(ends, windows, strict=True)]


def adaptive_threshold(similarity: SimilarityTable, *, max_window: int) -> float:
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
