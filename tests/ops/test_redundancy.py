"""EVS's and VidCom2's operations against naive loops, and what holds where there is nothing to tell tokens apart."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom.ops import center_similarity, frame_shares, novelty_in_time, select_distinct, tokens_after_pruning
from earlytom.ops import redundancy as module
from reference.redundancy import (
    distinct_naively,
    novelty_naively,
    shares_of_frames_naively,
    similarities_naively,
    steady_naively,
)
from reference.scenes import EXTREMES, extreme_features, scene_clips
from reference.strategies import quick


@quick
@given(scene_clips())
def test_novelty_equals_the_naive_loop(tokens) -> None:
    found = novelty_in_time(tokens.features)
    assert found.dtype == torch.float32
    assert found[0].isinf().all()
    torch.testing.assert_close(found.flatten(), torch.tensor(novelty_naively(tokens.features)), atol=1e-6, rtol=0)


def test_nothing_is_as_unlike_as_a_token_turned_around() -> None:
    features = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[0.0, 1.0]], [[0.0, -1.0]], [[0.0, 0.0]], [[1.0, 0.0]]])
    assert novelty_in_time(features).flatten().tolist() == [math.inf, 0.0, 1.0, 2.0, 1.0, 1.0]


@quick
@given(scene_clips(kinds=("noisy", "black", "identical")))
def test_similarities_equal_the_naive_loop(tokens) -> None:
    for found, expected in zip(center_similarity(tokens.features), similarities_naively(tokens.features), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_only_the_steady_half_of_the_channels_is_read() -> None:
    features = torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(0))
    features[..., [1, 3, 6, 7]] /= 10
    assert sorted(steady_naively(features)) == [1, 3, 6, 7]
    changed = features.clone()
    changed[..., [0, 2, 4, 5, 8]] *= -3
    for one, other in zip(center_similarity(features), center_similarity(changed), strict=True):
        assert torch.equal(one, other)


def test_a_single_channel_is_read() -> None:
    to_clip, to_frame = center_similarity(torch.tensor([[[2.0], [3.0]]]))
    assert to_clip.tolist() == to_frame.tolist() == [[5.0, 5.0]]


def test_parts_give_what_the_whole_gives(monkeypatch) -> None:
    features = torch.randn(7, 5, 12, generator=torch.Generator().manual_seed(0))
    whole = center_similarity(features)
    monkeypatch.setattr(module, "_CHUNK_VALUES", 2 * 5 * 12)
    for one, other in zip(whole, center_similarity(features), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@quick
@given(scene_clips(kinds=("noisy", "identical")), st.sampled_from([0.05, 0.25, 0.6, 1.0]))
def test_shares_equal_the_naive_softmax(tokens, share) -> None:
    to_clip = center_similarity(tokens.features)[0]
    expected = shares_of_frames_naively(to_clip.double().tolist(), share)
    torch.testing.assert_close(frame_shares(to_clip, share), torch.tensor(expected), atol=1e-4, rtol=0)


def test_frames_unlike_the_clip_get_more() -> None:
    like, unlike = [4.0, 4.0], [3.9, 4.0]
    shares = frame_shares(torch.tensor([like, unlike, like, like]), 0.5).tolist()
    assert shares[1] > 0.5 > shares[0] == shares[2] == shares[3]
    assert sum(shares) == pytest.approx(4 * 0.5)
    assert frame_shares(torch.tensor([like, [0.0, 0.0]]), 0.9).tolist() == [pytest.approx(0.45), 1.0]


@st.composite
def ranked(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Similarities with ties, shares of frames, and any budget."""
    frames, tokens = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    similarity = torch.randint(0, draw(st.sampled_from([1, 3, 10_000])), (frames, tokens), generator=generator).float()
    shares = torch.rand(frames, generator=generator) * draw(st.sampled_from([0.1, 0.5, 1.0]))
    return similarity, shares, draw(st.integers(1, frames * tokens))


@quick
@given(ranked())
def test_selection_equals_the_naive_fitting(case) -> None:
    similarity, shares, budget = case
    kept = select_distinct(similarity, shares, budget).tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == budget
    assert kept == distinct_naively(similarity.tolist(), shares.tolist(), budget)


def test_what_is_over_leaves_by_similarity_and_what_is_missing_comes_by_it() -> None:
    similarity = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    halves = torch.tensor([0.5, 0.5])
    assert select_distinct(similarity, halves, 4).tolist() == [0, 1, 4, 5]
    assert select_distinct(similarity, halves, 3).tolist() == [0, 1, 4]
    assert select_distinct(similarity, halves, 1).tolist() == [0]
    assert select_distinct(similarity, halves, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert select_distinct(similarity, torch.tensor([0.0, 0.0]), 2).tolist() == [0, 4]


def test_of_equals_the_earlier_stays() -> None:
    assert select_distinct(torch.ones(3, 4), torch.full((3,), 0.5), 6).tolist() == [0, 1, 4, 5, 8, 9]
    assert select_distinct(torch.ones(3, 4), torch.full((3,), 0.5), 5).tolist() == [0, 1, 4, 5, 8]
    assert select_distinct(torch.ones(3, 4), torch.full((3,), 0.5), 7).tolist() == [0, 1, 2, 4, 5, 8, 9]


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_features_give_finite_scores(name, dtype) -> None:
    features = extreme_features(name, 5, 4).to(dtype)
    to_clip, to_frame = center_similarity(features)
    assert to_clip.isfinite().all()
    assert to_frame.isfinite().all()
    assert frame_shares(to_clip, 0.3).isfinite().all()
    assert novelty_in_time(features)[1:].isfinite().all()


def test_values_that_are_not_finite_count_as_zeros() -> None:
    features = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    zeros = features.clone()
    features[2, 1], zeros[2, 1] = float("nan"), 0.0
    features[3, 0, 2], zeros[3, 0, 2] = float("inf"), 0.0
    for one, other in zip(center_similarity(features), center_similarity(zeros), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("retention", "tokens", "left"),
    [(0.1, 1000, 99), (0.3, 10, 3), (0.25, 96, 24), (0.25, 10, 2), (1.0, 7, 7), (0.01, 20, 0), (0.37, 225, 83)],
)
def test_pruning_cuts_off_what_floats_make_of_the_rate(retention, tokens, left) -> None:
    assert tokens_after_pruning(retention, tokens) == left
