"""How many tokens: exact budgets and how they are shared out over frames. Pure arithmetic on shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "apportion",
    "exact_counts",
    "frame_floor",
    "published_counts",
    "rescaled_retention",
    "token_budget",
    "tokens_after_pruning",
]

_DIGITS = 12


def token_budget(retention: float, tokens: int) -> int:
    """The number of visual tokens that the language model gets: ``round(retention * tokens)``, at least 1.

    ``tokens`` are those of the whole clip, so that there is one product of floats and one rounding, half to even. The
    budget is this package's own; no published code has it.
    """
    return min(tokens, max(1, round(retention * tokens)))


def tokens_after_pruning(retention: float, tokens: int) -> int:
    """What vLLM leaves of ``tokens`` at a pruning rate q of ``1 - retention``: ``int(tokens * (1 - q))``, perhaps 0.

    It cuts off what ``1 - q`` makes of q in floats: a rate of 0.9 leaves 99 of 1,000 tokens. ``q`` is taken as a user
    would write it, 0.9 for a retention of 0.1.
    """
    rate = round(1.0 - retention, _DIGITS)
    return int(tokens * (1.0 - rate))


def frame_floor(budget: int, tokens_per_frame: int) -> int:
    """The least number of frames that can still fill ``budget``."""
    return max(1, math.ceil(budget / tokens_per_frame))


def rescaled_retention(retention: float, frames: int, frames_left: int) -> float:
    """r^ = min(1, r / (N / B)): what merging saved goes back to the frames that are left (EarlyTom, stage II, step 1).

    In the authors' order of operations, which decides roundings: where nothing merged r^ is r itself, while
    ``r * B / N`` may be a little more or less. Algorithm 2 of the supplementary prints r / (((B - N) / B) * L) instead,
    with L the tokens of a frame. That is no share of a frame's tokens: it is undefined where nothing merged, grows as
    less is merged, and is divided by the number of tokens that it is then multiplied with. Nothing here follows it.
    """
    return min(1.0, retention / (frames_left / frames))


def exact_counts(budget: int, dynamic: Sequence[bool], tokens_per_frame: int) -> list[int]:
    """Share ``budget`` tokens over frames as evenly as it goes; the rest goes to dynamic frames first.

    Args:
        budget: total, at most ``len(dynamic) * tokens_per_frame``.
        dynamic: for each frame whether it is dynamic.
        tokens_per_frame: most tokens a frame can give.

    Returns:
        Tokens of each frame; they sum to ``budget`` and differ by at most one.

    Raises:
        ValueError: the frames cannot hold the budget.
    """
    frames = len(dynamic)
    if budget > frames * tokens_per_frame:
        raise ValueError(f"budget {budget} exceeds what {frames} frames of {tokens_per_frame} tokens can hold")
    share, rest = divmod(budget, frames)
    counts = [share] * frames
    for group in ([i for i in range(frames) if dynamic[i]], [i for i in range(frames) if not dynamic[i]]):
        extra = min(rest, len(group))
        for number in range(extra):
            counts[group[number * len(group) // extra]] += 1
        rest -= extra
    return counts


def published_counts(retention: float, dynamic: Sequence[bool], tokens_per_frame: int) -> list[int]:
    """The authors' counts: ``ceil(P * r^)`` for dynamic frames, ``max(1, round(P * r^))`` for static ones."""
    of_dynamic, of_static = math.ceil(tokens_per_frame * retention), max(1, round(tokens_per_frame * retention))
    return [min(tokens_per_frame, of_dynamic if flag else of_static) for flag in dynamic]


def apportion(total: int, sizes: Sequence[int], *, at_least_one: bool = False) -> list[int]:
    """Share ``total`` out in proportion to ``sizes`` by the largest remainders; the earlier one wins ties.

    Args:
        total: what to share, at most ``sum(sizes)``.
        sizes: the most that each one can get.
        at_least_one: give one to each that is not empty first, where ``total`` is enough for that.

    Returns:
        One share for each size; they sum to ``total``.

    Raises:
        ValueError: the sizes cannot hold ``total``.
    """
    whole = sum(sizes)
    if total > whole:
        raise ValueError(f"total {total} exceeds the {whole} that the sizes can hold")
    filled = sum(size > 0 for size in sizes)
    if at_least_one and filled <= total:
        rest = apportion(total - filled, [max(0, size - 1) for size in sizes])
        return [share + (size > 0) for share, size in zip(rest, sizes, strict=True)]
    shares = [size * total // max(1, whole) for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda place: (-(sizes[place] * total % max(1, whole)), place))
    for place in by_remainder[: total - sum(shares)]:
        shares[place] += 1
    return shares
