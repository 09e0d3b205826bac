"""Average pooling against means over exact bins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

import earlytom
from conftest import batch, clip, tiny_model
from earlytom import AveragePooling, MethodError
from reference.spacing import middles_naively, pooled_naively, shares_naively
from reference.strategies import quick
from reference.token_clips import decide, shares, token_clips, visual_tokens


@quick
@given(token_clips(), shares)
def test_stretches_equal_the_naive_means_and_keep_the_budget(tokens, retention) -> None:
    decision, reduction, budget = decide(AveragePooling(retention=retention), tokens)
    frames, per_frame = tokens.features.shape[:2]
    counts = shares_naively(budget, frames)
    pooled = [(1, count) for count in counts]
    expected = pooled_naively(tokens.features, pooled, (1, per_frame))
    torch.testing.assert_close(reduction.apply(tokens.features.flatten(0, 1)).double(), expected, atol=1e-6, rtol=1e-5)
    places = reduction.survivors().tolist()
    assert places == middles_naively(pooled, (1, per_frame)) == sorted(set(places))
    assert len(places) == budget
    assert decision.details["tokens_per_frame"] == counts


@quick
@given(token_clips(), shares)
def test_rectangles_equal_the_naive_means_and_say_what_they_are(tokens, retention) -> None:
    decision, reduction, _ = decide(AveragePooling(retention=retention, axis="space"), tokens)
    sides = (tokens.grid.rows, tokens.grid.columns)
    expected = pooled_naively(tokens.features, decision.details["pooled"], sides)
    torch.testing.assert_close(reduction.apply(tokens.features.flatten(0, 1)).double(), expected, atol=1e-6, rtol=1e-5)
    assert sum(decision.details["tokens_per_frame"]) == reduction.outputs


def test_known_bins() -> None:
    """Seven tokens in three bins: [0, 3), [2, 5), [4, 7); neighbours share a token."""
    reduction = AveragePooling().select_tokens(visual_tokens(1, 1, 7), 3).reduction
    assert [[source for source, _ in row] for row in reduction.to_rows()] == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    assert reduction.survivors().tolist() == [1, 3, 5]


def test_identical_tokens_stay_what_they_are() -> None:
    tokens = visual_tokens(4, 4, 4)
    tokens.features.copy_(torch.ones(6))
    reduction = decide(AveragePooling(retention=0.15), tokens)[1]
    torch.testing.assert_close(reduction.apply(tokens.features.flatten(0, 1)), torch.ones(reduction.outputs, 6))


@pytest.mark.parametrize("axis", ["raster", "space"])
def test_retention_one_changes_no_bit(axis) -> None:
    tokens = visual_tokens(3, 4, 4)
    flat = tokens.features.flatten(0, 1)
    assert torch.equal(decide(AveragePooling(retention=1.0, axis=axis), tokens)[1].apply(flat), flat)


def test_the_axis_is_named() -> None:
    with pytest.raises(MethodError, match="axis must be one of 'raster', 'space', got 'time'"):
        AveragePooling(axis="time")


@pytest.mark.parametrize(("axis", "tokens"), [("raster", 58), ("space", 48)])
def test_end_to_end_the_trace_shows_where_the_budget_is_only_approached(axis, tokens) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, AveragePooling(retention=0.3, axis=axis)) as trace:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert (trace.videos[0].tokens, trace.videos[0].budget) == (tokens, 58)
