"""Merging visual tokens inside the language model (shared by EarlyTom and HoliTom: "inner-LLM merging")."""

from __future__ import annotations

import torch
from torch import Tensor

from earlytom.ops.products import exact_product
from earlytom.ops.selection import ranks
from earlytom.ops.similarity import unit_rows
from earlytom.reduction import Reduction

__all__ = ["merge_dropped_tokens"]

# Similarities of dropped x kept tokens held at once (64 MiB).
_CHUNK_VALUES = 1 << 24


def merge_dropped_tokens(hidden: Tensor, attention: Tensor, *, ratio: float, sequential: bool) -> Reduction:
    """Keep the most attended tokens and average every other one into the kept token most similar to it.

    Args:
        hidden: [V, D] hidden states of the visual tokens, any floating dtype.
        attention: [V] attention of the last query, head mean.
        ratio: share of the tokens to drop; ``round(V * (1 - ratio))`` are kept, at least 1.
        sequential: ``True``: the authors' order-dependent averages, ``x <- (x + y) / 2`` for the dropped tokens in
            ascending order; ``False``: the mean of the kept token and all tokens assigned to it.

    Returns:
        A reduction from V to the kept tokens in their original order, anchored at the kept tokens.
    """
    tokens = hidden.shape[0]
    kept_count = max(1, round(tokens * (1 - ratio)))
    dropped = (ranks(attention) >= kept_count).to(torch.uint8)
    order = torch.sort(dropped, stable=True).indices
    kept, others = order[:kept_count], order[kept_count:]
    assignment = torch.empty(tokens, dtype=torch.int64, device=hidden.device)
    assignment[kept] = torch.arange(kept_count, device=hidden.device)
    assignment[others] = _most_similar(hidden[others], hidden[kept])
    ones = torch.ones(tokens, dtype=torch.float32, device=hidden.device)
    size = torch.zeros(kept_count, dtype=torch.float32, device=hidden.device).scatter_add_(0, assignment, ones)
    weight = _sequential_weights(assignment, kept, others, size) if sequential else 1.0 / size[assignment]
    return Reduction.groups(assignment, weight, kept)


def _most_similar(rows: Tensor, candidates: Tensor) -> Tensor:
    """For each row the index of the candidate of highest cosine; the lowest index wins ties."""
    candidates = unit_rows(candidates)
    step = max(1, _CHUNK_VALUES // max(1, candidates.shape[0]))
    parts = rows.split(step) if rows.shape[0] else ()
    best = [exact_product(unit_rows(part), candidates.T).argmax(dim=1) for part in parts]
    return torch.cat(best) if best else torch.empty(0, dtype=torch.int64, device=rows.device)


def _sequential_weights(assignment: Tensor, kept: Tensor, others: Tensor, size: Tensor) -> Tensor:
    """Closed form of repeated halving: with m joiners the kept token weighs 2^-m, joiner j (from 1) 2^-(m - j + 1)."""
    joiners = size - 1
    weight = torch.empty_like(assignment, dtype=torch.float32)
    weight[kept] = torch.exp2(-joiners)
    groups = assignment[others]
    order = torch.argsort(groups, stable=True)
    first = torch.cumsum(joiners, 0) - joiners
    number = torch.empty_like(groups, dtype=torch.float32)
    number[order] = torch.arange(groups.shape[0], device=groups.device) - first[groups[order]] + 1
    weight[others] = torch.exp2(-(joiners[groups] - number + 1))
    return weight
