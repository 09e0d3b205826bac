"""FastV and PyramidDrop with plain lists: how many tokens stay behind each boundary, and which."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reference.selection import best_first


def fastv_share(retention: float, layer: int, depth: int) -> float:
    """The kept share behind ``layer`` for which the mean over the layers is ``retention``, by trying finer and finer.

    ``layer`` layers get everything and ``depth - layer`` get the share.
    """
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        shares = [1.0] * layer + [middle] * (depth - layer)
        if sum(shares) / depth < retention:
            low = middle
        else:
            high = middle
    return high


def keep_best(attention: Sequence[float], count: int) -> list[int]:
    """The ``count`` most attended tokens in their order."""
    return sorted(best_first(attention)[:count])


def pyramid_counts(entered: int, ratios: Sequence[float]) -> list[int]:
    """Tokens behind each boundary, from the number that entered the language model."""
    return [max(1, math.floor(entered * ratio)) for ratio in ratios]


def tokens_by_layer(entered: int, boundaries: Sequence[int], counts: Sequence[int], depth: int) -> list[int]:
    """Visual tokens that each layer of the language model gets."""
    tokens, left = [], entered
    for layer in range(depth):
        if layer in boundaries:
            left = counts[list(boundaries).index(layer)]
        tokens.append(left)
    return tokens
