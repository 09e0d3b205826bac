"""Intervals and tests, against slow references, published values, and simulated truth."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from earlytom.eval.statistics import accuracies, draw_clips, interval, mcnemar


def table(clips: int, skills: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and questions by clip and skill; some clips lack a skill."""
    generator = np.random.default_rng(seed)
    asked = generator.integers(0, 3, (clips, skills)).astype(float)
    return generator.binomial(asked.astype(int), 0.7).astype(float), asked


def test_accuracies_equal_a_loop_over_resampled_clips() -> None:
    right, asked = table(12, 3)
    weights = draw_clips(12, resamples=50, seed=3)
    found = accuracies(right, asked, weights)
    for row, weight in zip(found, weights, strict=True):
        drawn = [clip for clip, times in enumerate(weight) for _ in range(int(times))]
        expected = [sum(right[drawn, skill]) / sum(asked[drawn, skill]) for skill in range(3)]
        np.testing.assert_allclose(row, [*expected, np.mean(expected)])


def test_a_skill_that_no_drawn_clip_has_is_left_out_of_the_mean() -> None:
    right, asked = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [2.0, 1.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = accuracies(right, asked, np.array([[2.0, 0.0], [0.0, 2.0]]))
    np.testing.assert_allclose(found, [[1.0, np.nan, 1.0], [0.0, 1.0, 0.5]])
    assert np.isnan(accuracies(right * 0, asked * 0, np.ones((1, 2)))).all()


def test_resamples_have_the_size_of_the_sample_and_are_the_same_each_time() -> None:
    weights = draw_clips(30)
    assert (weights.sum(axis=1) == 30).all()
    assert abs(float(weights.mean()) - 1) < 1e-9
    assert np.array_equal(weights, draw_clips(30))
    assert not np.array_equal(weights, draw_clips(30, seed=1))


def simulated(generator: np.random.Generator, clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips of six questions, right with a probability that is the clip's own: 0.7 on average."""
    ease = generator.beta(1.4, 0.6, clips)
    return generator.binomial(6, ease).astype(float)[:, None], np.full((clips, 1), 6.0)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    weights = draw_clips(80, resamples=1000)
    hits = naive = 0
    for _ in range(300):
        right, asked = simulated(generator, 80)
        value = right.sum() / asked.sum()
        low, high = interval(value, accuracies(right, asked, weights)[:, 0], 80, 0.0, 1.0)
        hits += low <= 0.7 <= high
        naive += abs(value - 0.7) <= 1.96 * math.sqrt(value * (1 - value) / asked.sum())
    assert 0.91 <= hits / 300 <= 0.98
    assert naive / 300 < 0.85  # questions taken for independent: far too sure


@pytest.mark.parametrize(("value", "expected"), [(1.0, (0.025 ** (1 / 20), 1.0)), (0.0, (0.0, 1 - 0.025 ** (1 / 20)))])
def test_all_right_or_all_wrong_gets_the_exact_interval(value, expected) -> None:
    assert interval(value, np.full(100, value), 20, 0.0, 1.0) == pytest.approx(expected)


def test_what_never_changed_gets_an_interval_around_it() -> None:
    other = 1 - 0.025 ** (1 / 20)
    assert interval(0.0, np.zeros(100), 20, -1.0, 1.0) == pytest.approx((-other, other))
    low, high = interval(0.6, np.full(100, 0.6), 1, 0.0, 1.0)
    assert (low, high) == pytest.approx((0.015, 0.99))
    assert interval(0.6, np.full(100, np.nan), 1, 0.0, 1.0) == pytest.approx((0.015, 0.99))


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 1, 1.0), (0, 6, 2 / 64), (1, 9, 22 / 1024), (9, 1, 22 / 1024), (4, 14, 0.0308838)],
)
def test_mcnemar_is_the_two_sided_binomial_test(gained, lost, expected) -> None:
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-5)


def test_mcnemar_takes_thousands_of_questions() -> None:
    normal = math.erfc((400 - 1) / math.sqrt(5000) / math.sqrt(2))  # with continuity correction
    assert mcnemar(2300, 2700) == pytest.approx(normal, rel=0.05)
