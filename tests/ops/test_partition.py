"""The optimal windows of static tokens against brute force and against the definition."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earlytom.ops import best_partition, paired_cosines, static_since, static_tokens, window_savings
from reference.similarity import cosine_naively
from reference.strategies import quick, scene_clips
from reference.windows import best_windows_naively, static_naively


@st.composite
def similar_pairs(draw: st.DrawFn) -> Tensor:
    """[N - 1, P] bool: which tokens resemble their successors."""
    frames, tokens = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    return torch.rand(frames - 1, tokens, generator=generator) < draw(st.sampled_from([0.0, 0.5, 0.8, 1.0]))


def static_count(similar: Tensor, first: int, last: int) -> int:
    return int(similar[first:last].all(dim=0).sum()) if last > first else 0


@quick
@given(similar_pairs())
def test_savings_equal_the_definition(similar) -> None:
    savings = window_savings(static_since(similar))
    frames = similar.shape[0] + 1
    expected = [
        [static_count(similar, first, last) * max(0, last - first) for first in range(frames)] for last in range(frames)
    ]
    assert savings.tolist() == expected


@quick
@given(similar_pairs(), st.integers(1, 9))
def test_no_partition_saves_more(similar, max_window) -> None:
    savings = window_savings(static_since(similar)).tolist()
    frames = len(savings)
    windows = best_partition(savings, max_window)
    assert [first for first, _ in windows] == [0, *(last + 1 for _, last in windows[:-1])]
    assert windows[-1][1] == frames - 1
    assert all(last - first < max_window for first, last in windows)
    most = 0
    for cuts in itertools.product([False, True], repeat=frames - 1):
        starts = [0, *(frame for frame, cut in enumerate(cuts, start=1) if cut)]
        parts = list(zip(starts, [*(start - 1 for start in starts[1:]), frames - 1], strict=True))
        if all(last - first < max_window for first, last in parts):
            most = max(most, sum(savings[last][first] for first, last in parts))
    assert sum(savings[last][first] for first, last in windows) == most


@quick
@given(scene_clips(most=8, tokens=4), st.sampled_from([0.65, 0.8, 0.95]), st.sampled_from([1, 2, 3, 1024]))
def test_windows_and_static_tokens_equal_the_naive_reference(features, tau, max_window) -> None:
    since = static_since(paired_cosines(features[:-1], features[1:]) > tau)
    windows = best_partition(window_savings(since).tolist(), max_window)
    assert windows == best_windows_naively(features, tau, max_window)
    static = static_tokens(since, windows)
    assert [row.nonzero().flatten().tolist() for row in static] == [static_naively(features, w, tau) for w in windows]


def test_without_anything_to_save_every_frame_stands_alone() -> None:
    assert best_partition([[0, 0, 0]] * 3, 8) == [(0, 0), (1, 1), (2, 2)]


def test_among_equals_the_shorter_window_wins() -> None:
    # The pairs (0, 1) and (1, 2) save the same, the three frames together no more.
    assert best_partition([[0, 0, 0], [4, 0, 0], [4, 4, 0]], 8) == [(0, 1), (2, 2)]
    assert best_partition([[0, 0, 0], [2, 0, 0], [4, 4, 0]], 8) == [(0, 0), (1, 2)]


@quick
@given(scene_clips(most=6, tokens=5), st.sampled_from([torch.float32, torch.bfloat16]))
def test_paired_cosines_equal_the_naive_ones(features, dtype) -> None:
    features = features.to(dtype)
    cosines = paired_cosines(features[:-1], features[1:])
    expected = [
        [cosine_naively(one, other) for one, other in zip(*pair, strict=True)] for pair in itertools.pairwise(features)
    ]
    torch.testing.assert_close(
        cosines, torch.tensor(expected, dtype=torch.float32).reshape(cosines.shape), atol=1e-5, rtol=0
    )


def test_paired_cosines_of_zeros_and_of_what_is_not_finite_are_zero(monkeypatch) -> None:
    frames = torch.randn(3, 4, 8)
    frames[0, 0], frames[1, 1], frames[2, 2] = 0.0, float("nan"), float("inf")
    cosines = paired_cosines(frames[:-1], frames[1:])
    assert cosines.isfinite().all()
    assert (cosines[0, :2] == 0).all()
    assert cosines[1, 2] == 0
    monkeypatch.setattr("earlytom.ops.similarity._CHUNK_VALUES", 32)
    assert torch.equal(cosines, paired_cosines(frames[:-1], frames[1:]))
