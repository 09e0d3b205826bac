"""VisionZip's dominant and contextual tokens against naive loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom.ops import dominant_and_contextual
from reference.strategies import quick
from reference.visionzip import zip_naively


@st.composite
def zipped(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[int], list[int]]:
    """Features, scores with ties, metrics of which many are equal, and counts, some of them 0."""
    frames, tokens = draw(st.integers(1, 5)), draw(st.integers(1, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    scores = torch.randint(0, draw(st.sampled_from([1, 3, 10_000])), (frames, tokens), generator=generator).float()
    if draw(st.booleans()):
        metric = torch.randn(frames, tokens, 6, generator=generator)
    else:  # cosines of exactly 0 and 1
        metric = torch.eye(4)[torch.randint(0, 4, (frames, tokens), generator=generator)]
    counts = draw(st.lists(st.integers(0, tokens), min_size=frames, max_size=frames).filter(any))
    contextual = [draw(st.integers(1, count)) if count else 0 for count in counts]
    dominant = [count - few for count, few in zip(counts, contextual, strict=True)]
    return torch.randn(frames, tokens, 7, generator=generator), scores, metric, dominant, contextual


@quick
@given(zipped(), st.booleans())
def test_equals_the_naive_loop(case, raster) -> None:
    features, scores, metric, dominant, contextual = case
    reduction = dominant_and_contextual(scores, metric, dominant, contextual, raster=raster)
    places, values = zip_naively(features, scores, metric, dominant, contextual, raster)
    assert reduction.survivors().tolist() == places
    torch.testing.assert_close(reduction.apply(features.flatten(0, 1)).double(), values, atol=1e-5, rtol=1e-5)


@quick
@given(zipped(), st.booleans())
def test_every_token_of_a_frame_that_gives_any_is_used_once(case, raster) -> None:
    features, scores, metric, dominant, contextual = case
    reduction = dominant_and_contextual(scores, metric, dominant, contextual, raster=raster)
    tokens = features.shape[1]
    used = [f * tokens + t for f, few in enumerate(contextual) if few for t in range(tokens)]
    assert sorted(reduction.source.tolist()) == used
    assert reduction.outputs == sum(dominant) + sum(contextual)
    kept = reduction.survivors().tolist()
    assert len(set(kept)) == len(kept)
    assert [place // tokens for place in kept] == sorted(place // tokens for place in kept)
    if raster:
        assert kept == sorted(kept)


def test_a_contextual_token_is_a_sum_of_itself_and_a_mean() -> None:
    scores, metric = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.ones(1, 4, 2)
    reduction = dominant_and_contextual(scores, metric, [1], [1], raster=True)
    assert reduction.to_rows() == [[(0, 1.0)], [(1, 1.0), (2, 0.5), (3, 0.5)]]


def test_targets_stand_at_even_steps_among_the_others() -> None:
    scores = torch.zeros(1, 12)
    scores[0, [2, 3]] = 1.0
    reduction = dominant_and_contextual(scores, torch.ones(1, 12, 2), [2], [3], raster=False)
    assert reduction.survivors().tolist() == [2, 3, 0, 5, 8]  # 10 others, every third of them


def test_equally_similar_targets_take_the_first() -> None:
    reduction = dominant_and_contextual(torch.zeros(1, 6), torch.ones(1, 6, 2), [0], [3], raster=True)
    assert reduction.counts() == [4, 1, 1]


def test_as_many_as_there_are_changes_no_bit() -> None:
    features = torch.randn(3 * 8, 5, dtype=torch.float16)
    reduction = dominant_and_contextual(torch.rand(3, 8), torch.rand(3, 8, 4), [6] * 3, [2] * 3, raster=True)
    assert torch.equal(reduction.apply(features), features)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_keys_and_scores_that_are_not_finite_do_not_crash(bad) -> None:
    scores, metric = torch.rand(2, 9), torch.rand(2, 9, 4)
    metric[0, 3:6], scores[1, 2] = bad, float("nan")
    reduction = dominant_and_contextual(scores, metric, [3, 3], [2, 2], raster=True)
    assert sorted(reduction.source.tolist()) == list(range(18))
    assert reduction.outputs == 10
