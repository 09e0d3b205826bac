"""How sure an accuracy is: resampling of whole clips, and McNemar's test.

Questions about one clip are right or wrong together more often than by chance, so clips are drawn, not questions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["accuracies", "draw_clips", "interval", "mcnemar"]

Floats = npt.NDArray[np.float64]

_RESAMPLES = 4000
_SEED = 20_260_530
_TAIL = 0.025  # on each side of a 95% interval


def draw_clips(clips: int, resamples: int = _RESAMPLES, seed: int = _SEED) -> Floats:
    """How often each clip is drawn in each resample, [R, C]; the same for the same numbers."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(clips, np.full(clips, 1 / clips), size=resamples).astype(np.float64)


def accuracies(right: Floats, asked: Floats, weights: Floats, mix: Floats | None = None) -> Floats:
    """Accuracy in each skill, and last their mean.

    Args:
        right: [C, K] right answers by clip and skill.
        asked: [C, K] questions.
        weights: [R, C] how often each clip counts.
        mix: [K] how much each skill weighs in the mean; ``None``: all alike.

    Returns:
        [R, K + 1]; NaN where a resample holds no such question. The mean is over the skills that it holds.
    """
    total = weights @ asked
    held = total > 0
    shares = np.divide(weights @ right, total, out=np.full(total.shape, np.nan), where=held)
    mix = np.ones(total.shape[1]) if mix is None else mix
    weighed = (held * mix).sum(axis=1)
    sums = (np.where(held, shares, 0.0) * mix).sum(axis=1)
    mean = np.divide(sums, weighed, out=np.full(sums.shape, np.nan), where=weighed > 0)
    return np.concatenate([shares, mean[:, None]], axis=1)


def interval(value: float, resampled: Floats, clips: int, lowest: float, highest: float) -> tuple[float, float]:
    """A 95% interval from resampled values, by percentiles.

    Where all resamples agree (every answer right, no answer changed, a single clip), they say nothing about spread.
    Then it is what can still be true although ``clips`` clips have shown nothing else: another clip comes up with a
    probability of at most ``1 - 0.025 ** (1 / clips)`` (Clopper and Pearson), and moves the value to an extreme.

    Args:
        value: the value of the sample itself.
        resampled: [R] values; NaN are left out.
        clips: clips that the value rests on.
        lowest: least value there can be.
        highest: greatest value there can be.
    """
    known = resampled[~np.isnan(resampled)]
    if known.size and known.max() - known.min() > 1e-12:
        low, high = np.quantile(known, [_TAIL, 1 - _TAIL])
        return float(low), float(high)
    other = 1 - _TAIL ** (1 / max(clips, 1))
    return (1 - other) * value + other * lowest, (1 - other) * value + other * highest


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p-value: a binomial test of whether changes go both ways equally often.

    Args:
        gained: questions that only the method answers rightly.
        lost: questions that only the baseline answers rightly.
    """
    changed, fewer = gained + lost, min(gained, lost)
    ways = total = 1
    for number in range(1, fewer + 1):
        ways = ways * (changed - number + 1) // number
        total += ways
    return min(1.0, 2 * total / 2**changed)
