"""Inner-LLM merging, token by token."""

from __future__ import annotations

from torch import Tensor

from reference.selection import best_first
from reference.similarity import cosine_naively


def assign_naively(hidden: Tensor, attention: Tensor, ratio: float) -> tuple[list[int], dict[int, int]]:
    """The kept tokens in order, and for each dropped token the kept one it joins (lowest index on ties)."""
    tokens = hidden.shape[0]
    kept = sorted(best_first(attention.tolist())[: max(1, round(tokens * (1 - ratio)))])
    joins = {}
    for token in range(tokens):
        if token not in kept:
            cosines = [cosine_naively(hidden[token], hidden[other]) for other in kept]
            joins[token] = kept[cosines.index(max(cosines))]
    return kept, joins


def merge_dropped_naively(
    hidden: Tensor, attention: Tensor, ratio: float, sequential: bool
) -> tuple[list[int], Tensor]:
    """Kept tokens and their [K, D] float64 values after the dropped ones joined."""
    kept, joins = assign_naively(hidden, attention, ratio)
    values = hidden.double().clone()
    if sequential:
        for token in sorted(joins):
            values[joins[token]] = (values[joins[token]] + values[token]) / 2
    else:
        for target in kept:
            members = [target, *(token for token, other in joins.items() if other == target)]
            values[target] = hidden[members].double().mean(dim=0)
    return kept, values[kept]
