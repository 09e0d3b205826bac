"""Bipartite soft matching (ToMe, section 3): merging the most similar tokens of each frame, all frames at once."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from earlytom.ops.products import exact_product
from earlytom.ops.selection import ranks
from earlytom.ops.similarity import unit_rows
from earlytom.reduction import Reduction

__all__ = ["match_tokens", "matched_means", "merge_down", "merge_schedule"]


def match_tokens(metric: Tensor, count: int) -> Tensor:
    """Match ``count`` tokens of each frame to another one.

    The tokens at even positions each choose the most similar one at odd positions (cosine, the first of equals); the
    ``count`` best choices are made true. What is left stands in the order of its first members.

    Args:
        metric: [F, L, E] what similarity is measured on, any floating dtype.
        count: tokens that go into others, 0 to L // 2.

    Returns:
        [F, L] int64: which of the L - ``count`` tokens that are left each token goes into.
    """
    frames, tokens, _ = metric.shape
    unit = unit_rows(metric)
    similarity = torch.nan_to_num(exact_product(unit[:, ::2], unit[:, 1::2].transpose(1, 2)), nan=-2.0)
    position = torch.arange(tokens, device=metric.device).expand(frames, tokens)
    group = position.clone()
    if count:
        best, partner = similarity.max(dim=2)
        group[:, ::2] = torch.where(ranks(best) < count, 2 * partner + 1, group[:, ::2])
    first = torch.full_like(group, tokens).scatter_reduce_(1, group, position, "amin").gather(1, group)
    return (torch.cumsum(first == position, dim=1) - 1).gather(1, first)


def matched_means(matched: Tensor, sizes: Tensor, left: int) -> Reduction:
    """The mean of the tokens that go into the same one, each by the number of patches that it stands for.

    Args:
        matched: [F, L] int64, as `match_tokens` gives it.
        sizes: [F, L] float32, whole numbers.
        left: tokens that are left of each frame.

    Returns:
        A reduction of the F * L rows to F * ``left``, each in the place of its first member.
    """
    frames = matched.shape[0]
    rows = (matched + torch.arange(frames, device=matched.device)[:, None] * left).flatten()
    total = sizes.new_zeros(frames * left).index_add_(0, rows, sizes.flatten())
    counts = torch.zeros(frames * left + 1, dtype=torch.int64, device=rows.device)
    counts.scatter_add_(0, rows + 1, torch.ones_like(rows))
    order = torch.argsort(rows, stable=True)
    weight = (sizes.flatten() / total[rows])[order]
    return Reduction(offsets=counts.cumsum(0), source=order, weight=weight, inputs=rows.shape[0])


def merge_down(features: Tensor, counts: Sequence[int]) -> Reduction:
    """Match the tokens of each frame again and again until ``counts[i]`` are left of frame i.

    Args:
        features: [N, P, D], any floating dtype; similarity is measured on them.
        counts: 1 to P (host data). Frames that are to keep as many are matched together.

    Returns:
        A reduction of the N * P rows to ``sum(counts)``, frame by frame, by plain means of what went into each.
    """
    tokens = features.shape[1]
    starts = [0, *itertools.accumulate(counts)]
    rows = torch.empty(features.shape[:2], dtype=torch.int64, device=features.device)
    for count in sorted(set(counts)):
        frames = [frame for frame, wanted in enumerate(counts) if wanted == count]
        index = torch.tensor(frames).to(features.device, non_blocking=True)
        start = torch.tensor([starts[frame] for frame in frames]).to(features.device, non_blocking=True)
        rows[index] = _match_down(features[index], count) + start[:, None]
    flat = rows.flatten()
    return matched_means(
        flat[None], torch.ones(1, len(counts) * tokens, dtype=torch.float32, device=features.device), starts[-1]
    )


def _match_down(features: Tensor, count: int) -> Tensor:
    """[F, L] int64: which of ``count`` tokens each token of [F, L, D] ends in."""
    frames, tokens, _ = features.shape
    values, sizes = features.float(), torch.ones(frames, tokens, dtype=torch.float32, device=features.device)
    ends = torch.arange(tokens, device=features.device).expand(frames, tokens)
    while values.shape[1] > count:
        before = values.shape[1]
        left = max(count, before - before // 2)
        matched = match_tokens(values, before - left)
        means = matched_means(matched, sizes, left)
        values = means.apply(values.flatten(0, 1)).unflatten(0, (frames, left))
        sizes = torch.zeros(frames, left, dtype=torch.float32, device=sizes.device).scatter_add_(1, matched, sizes)
        ends = matched.gather(1, ends)
    return ends


@functools.lru_cache(maxsize=64)
def merge_schedule(total: int, tokens: int, depth: int, inflection: float) -> tuple[int, ...]:
    """How many tokens to merge in each layer (ToMe's linear schedule).

    With r a layer on average, layers merge from ``r * (1 - inflection)`` in the first to ``r * (1 + inflection)`` in
    the last, each truncated; r is the integer whose sum comes nearest to ``total``, and the first layer takes the
    difference. No layer merges more than half of its tokens: what it cannot, the earliest layer that can takes over.

    Args:
        total: tokens to merge in all layers together.
        tokens: tokens before the first layer.
        depth: layers.
        inflection: -1 (all in the first layers) to 1; 0 merges equally often everywhere.

    Raises:
        ValueError: the layers cannot merge as many.
    """
    nearest = min(range(total // depth + 2), key=lambda rate: abs(sum(_linear(rate, depth, inflection)) - total))
    wanted = _linear(nearest, depth, inflection)
    wanted[0] += total - sum(wanted)
    for layer in range(depth):
        if wanted[layer] < 0 and layer + 1 < depth:
            wanted[layer + 1] += wanted[layer]
            wanted[layer] = 0
    for layer in range(depth):
        wanted[layer] += total - sum(_clamped(wanted, tokens))
    possible = _clamped(wanted, tokens)
    if sum(possible) != total:
        raise ValueError(f"{depth} layers merge at most {sum(possible)} of {tokens} tokens, not {total}")
    return tuple(possible)


def _linear(rate: int, depth: int, inflection: float) -> list[int]:
    first = int(rate * (1 - inflection))
    step = (2 * rate - 2 * first) / max(1, depth - 1)
    return [int(first + step * layer) for layer in range(depth)]


def _clamped(wanted: Sequence[int], tokens: int) -> list[int]:
    """``wanted``, but at most half of the tokens that are left at each layer."""
    possible = []
    for count in wanted:
        possible.append(min(count, tokens // 2))
        tokens -= possible[-1]
    return possible
