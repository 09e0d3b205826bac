"""Token selection against sorted lists."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom.ops import select_by_frame
from earlytom.ops.selection import kept_indices, ranks, ranks_among, window_ids
from reference.selection import best_first, select_naively, select_together_naively, windows_of
from reference.strategies import quick

# Coarse values make ties; NaN and infinities must rank, not crash. All of them are the same in float32.
values = st.sampled_from([0.0, 0.125, 0.25, 0.5, float("nan"), -float("inf"), -0.375]) | st.floats(-1, 1, width=32)


@st.composite
def selections(draw: st.DrawFn) -> tuple[list[list[float]], list[int], list[bool]]:
    frames, tokens = draw(st.integers(1, 6)), draw(st.integers(1, 20))
    scores = draw(st.lists(st.lists(values, min_size=tokens, max_size=tokens), min_size=frames, max_size=frames))
    counts = draw(st.lists(st.integers(0, tokens), min_size=frames, max_size=frames))
    return scores, counts, draw(st.lists(st.booleans(), min_size=frames, max_size=frames))


@quick
@given(selections())
def test_equals_the_naive_selection_with_ties_and_nan(case) -> None:
    scores, counts, local = case
    kept = select_by_frame(torch.tensor(scores), counts, local)
    assert kept.tolist() == select_naively(scores, counts, local)


@quick
@given(selections())
def test_frames_that_share_their_counts_equal_the_naive_selection(case) -> None:
    scores, counts, local = case
    kept = select_by_frame(torch.tensor(scores), counts, local, together=True)
    assert kept.tolist() == select_together_naively(scores, counts, local)
    assert len(kept) == sum(counts)


def test_frames_that_share_their_counts_may_get_none() -> None:
    scores = torch.tensor([[0.1, 0.2], [0.9, 0.8], [0.3, 0.0]])
    assert select_by_frame(scores, [1, 1, 1], [False, False, True], together=True).tolist() == [2, 3, 4]
    assert select_by_frame(scores, [1, 1, 1], [False, False, True]).tolist() == [1, 2, 4]


@quick
@given(selections())
def test_order_is_kept_no_token_is_kept_twice_and_every_count_is_met(case) -> None:
    scores, counts, local = case
    tokens = len(scores[0])
    kept = select_by_frame(torch.tensor(scores), counts, local).tolist()
    assert kept == sorted(set(kept))
    assert Counter(index // tokens for index in kept) == Counter({i: n for i, n in enumerate(counts) if n})


@quick
@given(selections())
def test_frames_together_equal_each_frame_alone_and_runs_repeat(case) -> None:
    scores, counts, local = case
    table, tokens = torch.tensor(scores), len(scores[0])
    together = select_by_frame(table, counts, local)
    alone = [
        select_by_frame(table[i : i + 1], counts[i : i + 1], local[i : i + 1]) + i * tokens for i in range(len(scores))
    ]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together, select_by_frame(table, counts, local))


@quick
@given(selections())
def test_local_selection_takes_one_token_from_each_window(case) -> None:
    scores, counts, _ = case
    kept = select_by_frame(torch.tensor(scores), counts, [True] * len(scores)).tolist()
    tokens = len(scores[0])
    for frame, count in enumerate(counts):
        inside = [index - frame * tokens for index in kept if index // tokens == frame]
        if count:
            assert all(token in window for token, window in zip(inside, windows_of(tokens, count), strict=True))


@quick
@given(st.lists(values, min_size=1, max_size=30))
def test_ranks_put_the_highest_first_ties_to_the_lower_index_and_nan_last(scores) -> None:
    order = best_first(scores)
    assert ranks(torch.tensor(scores)).tolist() == [order.index(i) for i in range(len(scores))]


def test_nan_ranks_behind_minus_infinity() -> None:
    assert ranks(torch.tensor([float("nan"), -float("inf"), 0.0])).tolist() == [2, 1, 0]


def test_equal_scores_keep_the_first_tokens_of_the_frame_and_of_each_window() -> None:
    scores = torch.ones(2, 10)
    assert select_by_frame(scores, [4, 4], [False, True]).tolist() == [0, 1, 2, 3, 10, 13, 16, 18]


@pytest.mark.parametrize(
    ("windows", "sizes"),
    [(20, {10: 16, 9: 4}), (29, {7: 22, 6: 7}), (39, {6: 1, 5: 38}), (49, {4: 49})],
)
def test_window_sizes_of_the_published_code(windows, sizes) -> None:
    """methods.md 2.4, P = 196."""
    ids = window_ids(torch.tensor([windows]), 196)[0].tolist()
    assert ids == sorted(ids)
    lengths = [ids.count(window) for window in range(windows)]
    assert Counter(lengths) == sizes
    assert lengths == sorted(lengths, reverse=True)


@quick
@given(st.integers(1, 60), st.data())
def test_window_ids_equal_the_naive_windows(tokens, data) -> None:
    counts = data.draw(st.lists(st.integers(1, tokens), min_size=1, max_size=4))
    ids = window_ids(torch.tensor(counts), tokens)
    for row, count in zip(ids.tolist(), counts, strict=True):
        assert row == [number for number, window in enumerate(windows_of(tokens, count)) for _ in window]


def test_an_attention_sink_takes_one_window_only_in_static_frames() -> None:
    scores = torch.zeros(1, 12)
    scores[0, :4] = torch.tensor([9.0, 8.0, 7.0, 6.0])
    assert select_by_frame(scores, [3], [False]).tolist() == [0, 1, 2]
    assert select_by_frame(scores, [3], [True]).tolist() == [0, 4, 8]


@quick
@given(st.lists(st.tuples(values, st.booleans()), min_size=1, max_size=30))
def test_scores_that_do_not_count_rank_behind_all_that_do_even_nan(scored) -> None:
    scores, valid = torch.tensor([score for score, _ in scored]), torch.tensor([flag for _, flag in scored])
    counting = int(valid.sum())
    chosen = ranks_among(scores, valid) < counting
    assert torch.equal(chosen, valid)
    assert kept_indices(valid, counting).tolist() == valid.nonzero().flatten().tolist()
    few = counting // 2
    best = [index for index in best_first(scores.tolist()) if valid[index]]
    finite = [index for index in best if scores[index].isfinite()]
    if len(finite) >= few:
        assert (ranks_among(scores, valid) < few).nonzero().flatten().tolist() == sorted(best[:few])
