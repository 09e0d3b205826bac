"""Token selection with plain lists: sort, take, put back in raster order."""

from __future__ import annotations

import math
from collections.abc import Sequence


def best_first(scores: Sequence[float]) -> list[int]:
    """Indices by falling score; the lower index wins ties, NaN comes last."""
    return sorted(
        range(len(scores)), key=lambda i: (math.isnan(scores[i]), -scores[i] if scores[i] == scores[i] else 0, i)
    )


def windows_of(tokens: int, count: int) -> list[list[int]]:
    """``count`` stretches of the raster sequence whose sizes differ by at most one, the longer ones first."""
    base, longer = tokens // count, tokens % count
    windows, start = [], 0
    for number in range(count):
        size = base + (1 if number < longer else 0)
        windows.append(list(range(start, start + size)))
        start += size
    return windows


def select_in_frame(scores: Sequence[float], count: int, local: bool) -> list[int]:
    """The kept tokens of one frame in raster order."""
    if count == 0:
        return []
    if not local:
        return sorted(best_first(scores)[:count])
    place = {token: number for number, token in enumerate(best_first(scores))}
    return [min(window, key=place.__getitem__) for window in windows_of(len(scores), count)]


def select_together_naively(
    scores: Sequence[Sequence[float]], counts: Sequence[int], local: Sequence[bool]
) -> list[int]:
    """Like `select_naively`, but the frames that are not local keep the best tokens of all of them."""
    tokens = len(scores[0])
    kept = select_naively(scores, [count if flag else 0 for count, flag in zip(counts, local, strict=True)], local)
    shared = [frame for frame, flag in enumerate(local) if not flag]
    places = [frame * tokens + token for frame in shared for token in range(tokens)]
    best = best_first([score for frame in shared for score in scores[frame]])
    return sorted([*kept, *(places[index] for index in best[: sum(counts[frame] for frame in shared)])])


def select_naively(scores: Sequence[Sequence[float]], counts: Sequence[int], local: Sequence[bool]) -> list[int]:
    """The kept tokens of all frames, as indices into the flattened clip."""
    kept = []
    for frame, row in enumerate(scores):
        kept += [frame * len(row) + token for token in select_in_frame(row, counts[frame], local[frame])]
    return kept
