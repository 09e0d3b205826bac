"""Middle-frame merging (EarlyTom, stage I, steps 3 and 4): plans, made on the host from the similarity table alone.

A plan lists the output frames; each is a list of ``(input frame, weight)``. `plan_merging` turns it into a
`Reduction`, which is applied to features and attention alike. Three published readings of the method exist:

``default``
    Ties merge; the last pair weighs against the segment's tail; a last middle frame that is left over joins the frame
    before it when similar enough, and is kept otherwise. No frame vanishes.
``official``
    The authors' code: strict inequalities, the last pair takes all of its first frame, and a last middle frame that is
    not merged is dropped.
``paper``
    Algorithm 1 read literally: strict inequalities, a left-over last middle frame is kept.

Where the algorithm says nothing ``paper`` is our reading. Its loop weighs the pair (i, i + 1) by s_(i+1), how similar
frames i + 1 and i + 2 are, and runs up to the pair of the last middle frame k - 1 and the segment's last frame k, for
which F_(k+1) is undefined; merged into that pair, frame k would also come out twice. So only middle frames pair here,
and the last pair has the segment's last frame behind it: s_(k-1) = Sim(F_(k-1), F_k). The authors' code takes 0 for it
instead, so that the weight is 1 and the second frame of the pair is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from earlytom.ops.segmentation import Segment
from earlytom.reduction import Reduction
from earlytom.similarity import SimilarityTable as Table

__all__ = ["Variant", "merge_weight", "plan_merging"]

Variant = Literal["default", "official", "paper"]
"""The published readings of the method."""

# Similarities this close are equal: frames merged from identical ones differ from them in the last bits.
_TIE = 1e-5
_DIGITS = 5

Row = list[tuple[int, float]]


def merge_weight(first: float, second: float) -> float:
    """Weight of the first frame of a pair, ``first / (first + second)``, clamped to [0, 1]; 0.5 where undefined."""
    total = first + second
    if total <= 1e-12:
        return 0.5
    return min(1.0, max(0.0, first / total))


def plan_merging(
    similarity: Table,
    segments: Sequence[Segment],
    *,
    variant: Variant = "default",
    weighted: bool = True,
    floor: int = 1,
    soft_floor: int = 1,
    duplicate_similarity: float = 1.0,
    counts: Sequence[int] | None = None,
) -> Reduction:
    """Decide which middle frames of each segment merge.

    Args:
        similarity: [N, N] similarity of frames, host data; that of frames of one segment is read.
        segments: inclusive ``(first, last)`` pairs that cover the N frames in order.
        variant: which reading of the method, see the module's docstring.
        weighted: ``False`` merges by the plain mean (an ablation).
        floor: at least so many frames are left; where more could vanish, those most similar to what they join do, of
            equals the earlier ones (``official`` ignores it).
        soft_floor: the same, but frames of at least ``duplicate_similarity`` to what they join vanish in spite of it.
        duplicate_similarity: from this on two frames count as the same.
        counts: the number of input frames that each frame stands for; 1 each if ``None``.

    Returns:
        A reduction from N frames to the frames that are left, in temporal order.
    """
    frames = len(similarity)
    if variant == "official":
        rows = _whole(segments, lambda first, last: _merge_middle_official(similarity, first, last, weighted))
        return Reduction.from_rows(rows, frames)
    merger = _Merger(similarity, variant == "default", weighted, [1] * frames if counts is None else counts)
    rows = _whole(segments, merger.merge_middle)
    duplicates = sum(value > duplicate_similarity - _TIE for value in merger.vanished.values())
    spare = max(0, min(frames - floor, max(frames - soft_floor, duplicates)))
    if len(merger.vanished) > spare:
        merger.allow_most_similar(spare)
        rows = _whole(segments, merger.merge_middle)
    return Reduction.from_rows(rows, frames)


def _whole(segments: Sequence[Segment], merge_middle: Callable[[int, int], list[Row]]) -> list[Row]:
    """The rows of all segments; their first and last frames stay as they are."""
    rows: list[Row] = []
    for first, last in segments:
        if last - first < 2:
            rows.extend([(frame, 1.0)] for frame in range(first, last + 1))
        else:
            rows.extend([[(first, 1.0)], *merge_middle(first, last), [(last, 1.0)]])
    return rows


def _merge_middle_official(similarity: Table, first: int, last: int, weighted: bool) -> list[Row]:
    """The authors' code for the frames between ``first`` and ``last``, its edges included."""
    middle = range(first + 1, last)
    if len(middle) < 2:
        return [[(frame, 1.0)] for frame in middle]
    threshold = similarity[first][last]
    rows: list[Row] = []
    frame = first + 1
    while frame < last - 1:
        current = similarity[frame][frame + 1]
        following = similarity[frame + 1][frame + 2] if frame + 2 < last else None
        if current > threshold and (following is None or current > following):
            weight = _official_weight(current, following or 0.0) if weighted else 0.5
            rows.append([(frame, 1.0)] if weight == 1.0 else [(frame, weight), (frame + 1, 1.0 - weight)])
            frame += 2
        else:
            rows.append([(frame, 1.0)])
            frame += 1
    return rows


def _official_weight(current: float, following: float) -> float:
    """Unclamped, as published: a negative ``following`` extrapolates."""
    if following == 0.0:
        return 1.0
    total = current + following
    return current / total if total != 0.0 else 0.5


class _Merger:
    """``default`` (``ties=True``) and ``paper``: what vanishes in which row, at first without regard to a floor."""

    def __init__(self, similarity: Table, ties: bool, weighted: bool, counts: Sequence[int]) -> None:
        self.vanished: dict[int, float] = {}
        """Every frame that joins one before it -> how similar the two are."""
        self._similarity, self._ties, self._weighted, self._counts = similarity, ties, weighted, counts
        self._allowed: frozenset[int] | None = None

    def allow_most_similar(self, number: int) -> None:
        """From now on only so many of the frames that have vanished may."""
        by_similarity = sorted(self.vanished, key=lambda frame: (-round(self.vanished[frame], _DIGITS), frame))
        self._allowed = frozenset(by_similarity[:number])

    def merge_middle(self, first: int, last: int) -> list[Row]:
        """The rows of the frames between ``first`` and ``last``."""
        threshold = self._similarity[first][last]
        rows: list[Row] = []
        frame = first + 1
        while frame < last - 1:
            weight = self._pair_weight(frame, threshold)
            if weight is None:
                rows.append([(frame, 1.0)])
                frame += 1
            else:
                rows.append([(frame, weight), (frame + 1, 1.0 - weight)])
                frame += 2
        if frame == last - 1:
            if rows and self._joins(rows[-1], frame, threshold):
                rows[-1] = _join(rows[-1], frame, self._counts)
            else:
                rows.append([(frame, 1.0)])
        return rows

    def _pair_weight(self, frame: int, threshold: float) -> float | None:
        """The weight of a frame beside the next one, ``None`` where the two do not merge."""
        current, following = self._similarity[frame][frame + 1], self._similarity[frame + 1][frame + 2]
        slack = _TIE if self._ties else 0.0
        # Not a number is above nothing, so that broken features merge nothing.
        passes = current > threshold - slack and current > following - slack
        if not passes or not self._may_vanish(frame + 1, current):
            return None
        return merge_weight(current, following) if self._weighted else 0.5

    def _joins(self, row: Row, frame: int, threshold: float) -> bool:
        """Whether the last middle frame goes into the row before it."""
        if not self._ties:
            return False
        if self._allowed is not None:
            return frame in self._allowed
        similarity = _similarity_to_row(self._similarity, row, frame)
        # What it is similar to is there only where the pair before it merges, so that it cannot rank before that.
        rank = min(similarity, self.vanished.get(frame - 1, similarity))
        return similarity > threshold - _TIE and self._may_vanish(frame, rank)

    def _may_vanish(self, frame: int, similarity: float) -> bool:
        if self._allowed is not None:
            return frame in self._allowed
        self.vanished[frame] = similarity
        return True


def _similarity_to_row(similarity: Table, row: Row, frame: int) -> float:
    """Similarity of a frame to a merged one, from the table alone.

    For tokens of equal length this is the cosine of the merged vector: its product with the frame over its length.
    """
    product = sum(weight * similarity[source][frame] for source, weight in row)
    among = ((1.0 if one == other else similarity[one][other]) * a * b for one, a in row for other, b in row)
    squared = sum(among)
    return product / squared**0.5 if squared > 0 else 0.0


def _join(row: Row, frame: int, counts: Sequence[int]) -> Row:
    """Add a frame to a merged one; each side weighs as many input frames as it stands for."""
    before, added = sum(counts[source] for source, _ in row), counts[frame]
    share = before / (before + added)
    return [*((source, weight * share) for source, weight in row), (frame, 1.0 - share)]
