"""Streaming segmentation against the naive walk, and what it promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earlytom.ops import adaptive_threshold, contiguous_windows, cut_at_changes, cut_at_weakest, segment_frames
from reference.fastvid import cut_naively
from reference.segmentation import adaptive_thresholds_naively, cut_weakest_naively, segment_naively
from reference.strategies import emas, quick, tables, thresholds, windows
from reference.windows import contiguous_naively


@quick
@given(tables(), thresholds, emas, windows)
def test_equals_the_naive_walk(table, threshold, ema, window) -> None:
    segments = segment_frames(table, threshold=threshold, ema=ema, max_window=window)
    assert segments == segment_naively(table, threshold, ema, window)


@quick
@given(tables(), thresholds, emas, windows)
def test_segments_cover_every_frame_once_in_order_and_are_shorter_than_the_window(
    table, threshold, ema, window
) -> None:
    segments = segment_frames(table, threshold=threshold, ema=ema, max_window=window)
    assert [frame for first, last in segments for frame in range(first, last + 1)] == list(range(len(table)))
    assert all(first <= last <= first + window - 2 for first, last in segments)


@quick
@given(tables(least=2), thresholds, emas, windows, st.data())
def test_later_frames_never_change_earlier_decisions(table, threshold, ema, window, data) -> None:
    frames = len(table)
    change = data.draw(st.integers(1, frames - 1))
    other = [list(row) for row in table]
    for first in range(frames):
        for second in range(max(first, change), frames):
            other[first][second] = other[second][first] = data.draw(st.sampled_from([-1.0, 0.0, 0.5, 1.0]))
    knobs = {"threshold": threshold, "ema": ema, "max_window": window}
    starts = [first for first, _ in segment_frames(table, **knobs) if first < change]
    assert starts == [first for first, _ in segment_frames(other, **knobs) if first < change]


@quick
@given(tables(), thresholds, emas, windows, st.integers(1, 14))
def test_a_prefix_of_the_clip_is_cut_in_the_same_places(table, threshold, ema, window, length) -> None:
    prefix = [row[:length] for row in table[:length]]
    knobs = {"threshold": threshold, "ema": ema, "max_window": window}
    starts = [first for first, _ in segment_frames(table, **knobs) if first < length]
    assert starts == [first for first, _ in segment_frames(prefix, **knobs)]


def test_the_reference_is_the_first_frame_of_the_segment_not_the_frame_before() -> None:
    # Neighbours are alike, but the clip drifts away from its first frame.
    table = [[1.0, 0.9, 0.2], [0.9, 1.0, 0.9], [0.2, 0.9, 1.0]]
    assert segment_frames(table, threshold=0.5, ema=1.0, max_window=9) == [(0, 1), (2, 2)]


def test_the_threshold_itself_still_belongs_to_the_segment() -> None:
    table = [[1.0, 0.5], [0.5, 1.0]]
    assert segment_frames(table, threshold=0.5, ema=1.0, max_window=9) == [(0, 1)]
    assert segment_frames(table, threshold=0.5000001, ema=1.0, max_window=9) == [(0, 0), (1, 1)]


def test_ema_weighs_the_new_similarity_and_starts_from_one() -> None:
    table = [[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]]
    # s = .6 * .5 + .4 = .7, then .6 * .5 + .4 * .7 = .58
    assert segment_frames(table, threshold=0.57, ema=0.6, max_window=9) == [(0, 2)]
    assert segment_frames(table, threshold=0.59, ema=0.6, max_window=9) == [(0, 1), (2, 2)]
    assert segment_frames(table, threshold=0.71, ema=0.6, max_window=9) == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize(("window", "longest"), [(6, 5), (8, 7), (2, 1)])
def test_identical_frames_fill_segments_of_window_less_one(window, longest) -> None:
    segments = segment_frames([[1.0] * 32 for _ in range(32)], threshold=0.8, ema=0.9, max_window=window)
    lengths = [last - first + 1 for first, last in segments]
    assert lengths[:-1] == [longest] * (len(lengths) - 1)
    assert sum(lengths) == 32


@pytest.mark.parametrize("knobs", [{"threshold": -1.0}, {"threshold": 1.0}])
def test_no_frames_give_no_segments_and_one_frame_gives_one(knobs) -> None:
    assert segment_frames([], ema=0.9, max_window=6, **knobs) == []
    assert segment_frames([[1.0]], ema=0.9, max_window=6, **knobs) == [(0, 0)]


@quick
@given(tables(), windows)
def test_adaptive_threshold_equals_otsus_rule_in_exact_fractions(table, window) -> None:
    threshold = adaptive_threshold(table, max_window=window)
    assert any(threshold == pytest.approx(value, abs=1e-9) for value in adaptive_thresholds_naively(table, window))
    assert 0.5 <= threshold <= 0.8


def test_adaptive_threshold_ignores_pairs_that_segmentation_never_compares() -> None:
    near = [[1.0 if abs(i - j) < 4 else -1.0 for j in range(10)] for i in range(10)]
    assert adaptive_threshold(near, max_window=5) == 0.8
    assert adaptive_threshold(near, max_window=6) < 0.8


def test_adaptive_threshold_finds_a_hard_cut() -> None:
    table = [[0.95 if (i < 7) == (j < 7) else 0.3 for j in range(14)] for i in range(14)]
    threshold = adaptive_threshold(table, max_window=20)
    assert threshold == pytest.approx(0.625)
    assert segment_frames(table, threshold=threshold, ema=0.9, max_window=20) == [(0, 6), (7, 13)]


def test_adaptive_threshold_of_clips_without_contrast_is_held_to_its_range() -> None:
    for value, expected in ((1.0, 0.8), (0.7, 0.7), (0.1, 0.5), (-1.0, 0.5)):
        flat = [[1.0 if i == j else value for j in range(6)] for i in range(6)]
        assert adaptive_threshold(flat, max_window=6) == expected


labels = st.lists(st.integers(0, 3), min_size=1, max_size=16)


@quick
@given(labels)
def test_contiguous_windows_equal_the_naive_reference(clusters) -> None:
    assert contiguous_windows(clusters) == contiguous_naively(clusters)


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [
        ([5, 5, 5], [(0, 2)]),
        ([3], [(0, 0)]),
        ([1, 2, 3, 1], [(0, 3)]),  # nobody has a run: everything becomes one window
        ([1, 1, 2, 1, 1, 1], [(0, 5)]),  # the single frame joins, and so does the shorter run of the same cluster
        ([1, 1, 2, 2, 1, 2, 3, 3], [(0, 1), (2, 5), (6, 7)]),  # a tie between runs of two goes to the left
        ([0, 1, 1, 2, 2, 2, 0], [(0, 2), (3, 6)]),
    ],
)
def test_clusters_become_contiguous(clusters, expected) -> None:
    assert contiguous_windows(clusters) == expected


@quick
@given(
    st.lists(st.sampled_from([-0.5, 0.2, 0.8, 0.9, 0.95, 1.0]), max_size=12),
    st.integers(1, 9),
    st.sampled_from([-1.0, 0.5, 0.9, 0.97]),
)
def test_cuts_at_changes_equal_the_naive_reference(similarity, segments, threshold) -> None:
    cut = cut_at_changes(similarity, segments=segments, threshold=threshold)
    assert cut == cut_naively(similarity, segments, threshold)
    assert len(cut) >= min(segments, len(similarity) + 1)
    assert [frame for first, last in cut for frame in range(first, last + 1)] == list(range(len(similarity) + 1))


@quick
@given(tables(), st.integers(1, 6), st.none() | st.floats(-0.5, 0.9))
def test_cutting_at_the_weakest_link_equals_cutting_one_by_one(table, longest, among) -> None:
    given_among = None if among is None else [among] * len(table)
    segments = cut_at_weakest(table, longest=longest, among=given_among)
    assert segments == cut_weakest_naively(table, longest, given_among)
    assert [frame for first, last in segments for frame in range(first, last + 1)] == list(range(len(table)))
    assert all(last - first < longest for first, last in segments)


@quick
@given(tables(), st.integers(1, 6), st.sampled_from([0.3, 0.5, 3.0]))
def test_only_the_order_of_similarities_decides_where_a_clip_is_cut(table, longest, power) -> None:
    coarse = [[round(value, 1) for value in row] for row in table]  # so that rounding makes no ties that were none
    bent = [[((value + 1) / 2) ** power for value in row] for row in coarse]
    assert cut_at_weakest(bent, longest=longest) == cut_at_weakest(coarse, longest=longest)


def test_a_still_clip_is_cut_into_whole_segments() -> None:
    assert cut_at_weakest([[1.0] * 12] * 12, longest=5) == [(0, 4), (5, 9), (10, 11)]
    assert cut_at_weakest([], longest=5) == []


def test_neighbours_no_more_alike_than_tokens_of_one_frame_are_always_cut() -> None:
    table = [[1.0, 0.6, 0.6], [0.6, 1.0, 0.7], [0.6, 0.7, 1.0]]
    assert cut_at_weakest(table, longest=5, among=[0.5] * 3) == [(0, 0), (1, 2)]
    assert cut_at_weakest(table, longest=5, among=[0.0] * 3) == [(0, 2)]
    assert cut_at_weakest([[1.0] * 3] * 3, longest=5, among=[1.0] * 3) == [(0, 2)]
