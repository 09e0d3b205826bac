"""Even spacing and adaptive bins against exact fractions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom.ops import adaptive_bins, evenly_spaced, nearest_grid
from reference.spacing import middles_naively, pooled_naively, spaced_naively
from reference.strategies import quick


@quick
@given(st.integers(1, 40), st.data())
def test_places_equal_the_formula_and_are_distinct(tokens, data) -> None:
    counts = data.draw(st.lists(st.integers(0, tokens), min_size=1, max_size=5))
    places = evenly_spaced(counts, tokens).tolist()
    assert places == [f * tokens + p for f, count in enumerate(counts) for p in spaced_naively(count, tokens)]
    assert places == sorted(set(places))


def test_no_place_at_all_is_allowed() -> None:
    assert evenly_spaced([0, 0], 7).tolist() == []
    assert adaptive_bins([(1, 0)], (1, 7)).outputs == 0


@quick
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_bins_equal_the_naive_means(rows, columns, data) -> None:
    shape = st.tuples(st.integers(1, rows), st.integers(1, columns))
    pooled = data.draw(st.lists(shape, min_size=1, max_size=4))
    features = torch.randn(len(pooled), rows * columns, 5)
    reduction = adaptive_bins(pooled, (rows, columns))
    expected = pooled_naively(features, pooled, (rows, columns))
    torch.testing.assert_close(reduction.apply(features.flatten(0, 1)).double(), expected, atol=1e-6, rtol=1e-5)
    assert reduction.survivors().tolist() == middles_naively(pooled, (rows, columns))
    assert sorted(set(reduction.source.tolist())) == list(range(len(pooled) * rows * columns))


@quick
@given(st.integers(1, 30), st.data())
def test_stretches_equal_torch_adaptive_pooling(tokens, data) -> None:
    count = data.draw(st.integers(1, tokens))
    features = torch.randn(2, tokens, 3)
    expected = torch.nn.functional.adaptive_avg_pool1d(features.transpose(1, 2), count).transpose(1, 2)
    reduction = adaptive_bins([(1, count)] * 2, (1, tokens))
    torch.testing.assert_close(reduction.apply(features.flatten(0, 1)), expected.flatten(0, 1), atol=1e-6, rtol=1e-5)


def test_rectangles_equal_torch_adaptive_pooling() -> None:
    features = torch.randn(2, 14 * 9, 3)
    maps = features.transpose(1, 2).unflatten(2, (14, 9))
    expected = torch.nn.functional.adaptive_avg_pool2d(maps, (5, 4)).flatten(2).transpose(1, 2)
    reduction = adaptive_bins([(5, 4)] * 2, (14, 9))
    torch.testing.assert_close(reduction.apply(features.flatten(0, 1)), expected.flatten(0, 1), atol=1e-6, rtol=1e-5)


@quick
@given(st.integers(1, 12), st.integers(1, 12))
def test_a_bin_for_every_token_changes_no_bit(rows, columns) -> None:
    features = torch.randn(3, rows * columns, 4, dtype=torch.bfloat16).flatten(0, 1)
    assert torch.equal(adaptive_bins([(rows, columns)] * 3, (rows, columns)).apply(features), features)


@pytest.mark.parametrize(
    ("tokens", "sides", "grid"),
    [
        (49, (14, 14), (7, 7)), (196, (14, 14), (14, 14)), (1, (14, 14), (1, 1)), (0.3, (14, 14), (1, 1)),
        (20, (14, 14), (4, 5)), (39, (14, 14), (5, 8)), (29, (14, 14), (5, 6)), (13, (14, 14), (3, 4)),
        (8, (4, 8), (2, 4)), (5, (1, 30), (1, 5)), (5, (30, 1), (5, 1)),
    ],
)  # fmt: skip
def test_the_nearest_grid_keeps_about_the_proportion_of_the_sides(tokens, sides, grid) -> None:
    assert nearest_grid(tokens, sides) == grid


@quick
@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_grids_never_exceed_the_sides_and_hit_what_they_can(rows, columns, data) -> None:
    tokens = data.draw(st.integers(1, rows * columns))
    height, width = nearest_grid(tokens, (rows, columns))
    assert 1 <= height <= rows
    assert 1 <= width <= columns
    assert nearest_grid(rows * columns, (rows, columns)) == (rows, columns)
