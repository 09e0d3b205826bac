"""Resizing of score maps against a value-by-value bilinear rule."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom import Reduction
from earlytom.ops import pool_bilinear
from reference.resizing import pool_bilinear_naively
from reference.strategies import quick


@quick
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_equals_the_naive_bilinear_rule(side, rows, columns, seed) -> None:
    scores = torch.rand(2, side * side, generator=torch.Generator().manual_seed(seed))
    pooled = pool_bilinear(scores, side=side, pooled=(rows, columns))
    expected = torch.tensor([pool_bilinear_naively(row, side, (rows, columns)) for row in scores.tolist()])
    torch.testing.assert_close(pooled, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("output", "sources"),
    [(0, {0: 0.536, 1: 0.464}), (6, {12: 0.964, 13: 0.036}), (13, {25: 0.464, 26: 0.536})],
)
def test_taps_of_27_to_14(output, sources) -> None:
    """methods.md 1.2: exactly two neighbours an axis."""
    maps = torch.eye(27)[:, :, None].expand(27, 27, 27).reshape(27, 729)  # map i: row i is 1
    weights = pool_bilinear(maps, side=27, pooled=(14, 14)).view(27, 14, 14)[:, output, 5]
    assert {i: round(float(w), 3) for i, w in enumerate(weights) if w > 1e-6} == sources


def test_resizing_and_merging_commute() -> None:
    scores = torch.rand(3, 49)
    reduction = Reduction.from_rows([[(0, 1.0)], [(1, 0.3), (2, 0.7)]], 3)
    first = pool_bilinear(reduction.apply(scores), side=7, pooled=(4, 4))
    torch.testing.assert_close(first, reduction.apply(pool_bilinear(scores, side=7, pooled=(4, 4))))


def test_each_frame_is_resized_alone() -> None:
    scores = torch.rand(4, 81)
    together = pool_bilinear(scores, side=9, pooled=(5, 5))
    alone = torch.cat([pool_bilinear(scores[i : i + 1], side=9, pooled=(5, 5)) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=0, rtol=0)
