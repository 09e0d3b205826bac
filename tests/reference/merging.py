"""Middle-frame merging, pair by pair, from the specification's text (stage I, steps 3 and 4).

A plan is a list of output frames, each a dictionary ``input frame -> weight``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Table = Sequence[Sequence[float]]
Plan = list[dict[int, float]]


def plan_naively(
    similarity: Table,
    segments: Sequence[tuple[int, int]],
    variant: str,
    *,
    weighted: bool = True,
    floor: int = 1,
    soft_floor: int = 1,
    duplicate_similarity: float = 1.0,
    counts: Sequence[int] | None = None,
) -> Plan:
    """The output frames of all segments; ``official`` knows no floor.

    Frames are taken back one after another, the least similar to what it joined first, of equals the last one; for the
    sake of the soft floor only those that are no duplicates.
    """
    stands_for = counts if counts is not None else [1] * len(similarity)
    kept_back: set[int] = set()
    joined: dict[int, float] = {}
    while True:
        plan: Plan = []
        for first, last in segments:
            middle = list(range(first + 1, last))
            if variant == "official":
                outputs = _official(similarity, first, middle, last, weighted)
            else:
                outputs, gone = _default_or_paper(
                    similarity, first, middle, last, variant, weighted, stands_for, kept_back, joined
                )
                if not kept_back:
                    joined |= gone
            plan += [{first: 1.0}, *outputs] + ([{last: 1.0}] if last > first else [])
        if variant == "official" or len(plan) >= min(max(floor, soft_floor), len(similarity)):
            return plan
        least = min(joined.keys() - kept_back, key=lambda frame: (round(joined[frame], 5), -frame))
        if len(plan) >= floor and joined[least] >= duplicate_similarity - 1e-5:
            return plan
        kept_back.add(least)


def _official(similarity: Table, first: int, middle: list[int], last: int, weighted: bool) -> Plan:
    if len(middle) < 2:
        return [{frame: 1.0} for frame in middle]
    threshold = similarity[first][last]
    outputs: Plan = []
    while len(middle) > 1:
        one, two, *rest = middle
        current = similarity[one][two]
        if rest:
            following = similarity[two][rest[0]]
            merges = current > threshold and current > following
        else:
            following, merges = 0.0, current > threshold
        if not merges:
            outputs.append({one: 1.0})
            middle = middle[1:]
            continue
        if not weighted:
            weight = 0.5
        elif following == 0.0:
            weight = 1.0
        elif current + following == 0.0:
            weight = 0.5
        else:
            weight = current / (current + following)
        outputs.append({one: weight, two: 1.0 - weight} if weight != 1.0 else {one: 1.0})
        middle = rest
    # Whatever is left over is dropped.
    return outputs


def _default_or_paper(
    similarity: Table,
    first: int,
    middle: list[int],
    last: int,
    variant: str,
    weighted: bool,
    stands_for: Sequence[int],
    kept_back: set[int],
    joined_before: dict[int, float],
) -> tuple[Plan, dict[int, float]]:
    """The output frames of one segment, and how similar the frames that are gone are to what they joined."""
    threshold = similarity[first][last]
    ties = variant == "default"
    outputs: Plan = []
    gone: dict[int, float] = {}
    while len(middle) > 1:
        one, two, *rest = middle
        current, following = similarity[one][two], similarity[two][rest[0] if rest else last]
        merges = (current > threshold or (ties and current == threshold)) and (
            current > following or (ties and current == following)
        )
        # Once frames are taken back, nothing vanishes that did not before.
        if not merges or two in kept_back or (kept_back and two not in joined_before):
            outputs.append({one: 1.0})
            middle = middle[1:]
            continue
        gone[two] = current
        weight = _clamped(current, following) if weighted else 0.5
        outputs.append({one: weight, two: 1.0 - weight})
        middle = rest
    if middle:
        (frame,) = middle
        closeness = _cosine_to_merged(similarity, outputs[-1], frame) if outputs else float("-inf")
        joins = frame in joined_before.keys() - kept_back if kept_back else closeness >= threshold - 1e-9
        if ties and outputs and joins:
            # The merged pair that it joins has to be there: it goes after that one.
            gone[frame] = min([closeness, *(gone[source] for source in outputs[-1] if source in gone)])
            before, added = sum(stands_for[i] for i in outputs[-1]), stands_for[frame]
            joined = {i: weight * before / (before + added) for i, weight in outputs[-1].items()}
            outputs[-1] = joined | {frame: added / (before + added)}
        else:
            outputs.append({frame: 1.0})
    return outputs, gone


def _cosine_to_merged(similarity: Table, sources: dict[int, float], frame: int) -> float:
    """Cosine of sum_i w_i F_i and a frame, for vectors of length 1 whose pairwise cosines the table holds."""
    indices, weights = list(sources), torch.tensor(list(sources.values()), dtype=torch.float64)
    among = torch.tensor([[1.0 if i == j else similarity[i][j] for j in indices] for i in indices], dtype=torch.float64)
    towards = torch.tensor([similarity[i][frame] for i in indices], dtype=torch.float64)
    length = float(weights @ among @ weights)
    return float(weights @ towards) / length**0.5 if length > 0 else 0.0


def _clamped(current: float, following: float) -> float:
    total = current + following
    if total <= 1e-12:
        return 0.5
    return min(1.0, max(0.0, current / total))


def matrix_of(plan: Plan, inputs: int) -> Tensor:
    """[K, N] float64 weights of a plan."""
    matrix = torch.zeros(len(plan), inputs, dtype=torch.float64)
    for row, sources in enumerate(plan):
        for source, weight in sources.items():
            matrix[row, source] += weight
    return matrix
