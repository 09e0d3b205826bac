"""Counts of tokens and frames."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earlytom.ops import apportion, exact_counts, frame_floor, published_counts, rescaled_retention, token_budget
from reference.strategies import quick
from reference.windows import apportion_naively

retentions = st.floats(0.001, 1.0)


@pytest.mark.parametrize(("retention", "budget"), [(0.10, 627), (0.15, 941), (0.20, 1254), (0.25, 1568), (1.0, 6272)])
def test_budgets_of_the_paper(retention, budget) -> None:
    assert token_budget(retention, 32 * 196) == budget


def test_budget_rounds_half_to_even_and_is_at_least_one() -> None:
    assert [token_budget(0.5, tokens) for tokens in (5, 7)] == [2, 4]
    assert token_budget(0.001, 100) == 1


def test_budget_is_one_product_of_floats() -> None:
    """3 frames of 15 tokens: 0.1 * 45 is 4.5, while 0.1 * 3 * 15 is a little more."""
    assert token_budget(0.1, 3 * 15) == 4 < round(0.1 * 3 * 15)


@quick
@given(retentions, st.integers(1, 100_000))
def test_budget_lies_within_the_clip_and_next_to_the_share(retention, tokens) -> None:
    budget = token_budget(retention, tokens)
    assert 1 <= budget <= tokens
    assert budget == 1 or abs(budget - retention * tokens) <= 0.5 + 1e-9


@quick
@given(st.integers(1, 5000), st.integers(1, 200))
def test_floor_is_the_least_number_of_frames_that_hold_the_budget(budget, tokens_per_frame) -> None:
    floor = frame_floor(budget, tokens_per_frame)
    assert floor == next(n for n in range(1, budget + 1) if n * tokens_per_frame >= budget)


@pytest.mark.parametrize(
    ("retention", "frames", "left", "expected"),
    [(0.1, 32, 32, 0.1), (0.1, 32, 16, 0.2), (0.25, 32, 8, 1.0), (0.25, 32, 5, 1.0), (0.2, 32, 20, 0.32)],
)
def test_saved_frames_give_their_share_to_the_others(retention, frames, left, expected) -> None:
    assert rescaled_retention(retention, frames, left) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("retention", "frames", "left", "recorded"),
    [
        (0.25, 24, 11, 0.5454545454545455),
        (0.25, 13, 10, 0.32499999999999996),
        (0.2, 3, 3, 0.2),
        (0.1, 3, 3, 0.1),
        (0.1, 24, 24, 0.1),
    ],
)
def test_rescaled_retention_is_the_authors_to_the_last_bit(retention, frames, left, recorded) -> None:
    """Recorded from their code, the last one but computed: r * B / N differs in every row."""
    assert rescaled_retention(retention, frames, left) == recorded
    assert retention * frames / left != recorded


@quick
@given(retentions, st.integers(1, 768))
def test_where_nothing_merged_retention_is_not_touched(retention, frames) -> None:
    assert rescaled_retention(retention, frames, frames) == retention


@quick
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 50), st.data())
def test_exact_counts_sum_to_the_budget_evenly_and_serve_dynamic_frames_first(dynamic, per_frame, data) -> None:
    budget = data.draw(st.integers(0, len(dynamic) * per_frame))
    counts = exact_counts(budget, dynamic, per_frame)
    assert sum(counts) == budget
    assert len(counts) == len(dynamic)
    assert max(counts) <= per_frame
    assert max(counts) - min(counts) <= 1
    richest_static = max((n for n, flag in zip(counts, dynamic, strict=True) if not flag), default=0)
    assert all(n >= richest_static for n, flag in zip(counts, dynamic, strict=True) if flag)


def test_the_rest_is_spread_over_the_clip() -> None:
    counts = exact_counts(44, [True] * 8, 10)
    assert counts == [6, 5, 6, 5, 6, 5, 6, 5]


def test_a_budget_that_the_frames_cannot_hold_raises() -> None:
    with pytest.raises(ValueError, match="budget 21 exceeds what 2 frames of 10 tokens can hold"):
        exact_counts(21, [True, False], 10)


@quick
@given(retentions, st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 200))
def test_published_counts_round_up_in_dynamic_frames_and_to_the_nearest_in_static_ones(
    retention, dynamic, per_frame
) -> None:
    for count, flag in zip(published_counts(retention, dynamic, per_frame), dynamic, strict=True):
        assert count == (math.ceil(per_frame * retention) if flag else max(1, round(per_frame * retention)))
        assert 1 <= count <= per_frame


@pytest.mark.parametrize(("retention", "windows"), [(0.10, 20), (0.15, 29), (0.20, 39), (0.25, 49)])
def test_published_windows_of_196_tokens(retention, windows) -> None:
    assert published_counts(retention, [False], 196) == [windows]


def test_published_total_drifts_from_the_budget() -> None:
    assert sum(published_counts(0.10, [True] * 32, 196)) == 640  # the target is 627


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=8)


@quick
@given(sizes, st.floats(0, 1), st.booleans())
def test_shares_equal_the_naive_largest_remainders(wanted, share, at_least_one) -> None:
    total = round(share * sum(wanted))
    shares = apportion(total, wanted, at_least_one=at_least_one)
    assert shares == apportion_naively(total, wanted, at_least_one)
    assert sum(shares) == total
    assert all(0 <= part <= size for part, size in zip(shares, wanted, strict=True))
    if at_least_one and total >= sum(size > 0 for size in wanted):
        assert all(part >= min(1, size) for part, size in zip(shares, wanted, strict=True))


def test_more_than_the_sizes_hold_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="total 8 exceeds the 7 that the sizes can hold"):
        apportion(8, [3, 4])
    assert apportion(0, [0, 0]) == [0, 0]
