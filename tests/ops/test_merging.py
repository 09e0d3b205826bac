"""Middle-frame merging against the naive reference, and what each variant promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from earlytom.ops import frame_similarity, plan_merging, segment_frames
from earlytom.ops.merging import merge_weight
from reference.attention import attention_maps
from reference.merging import matrix_of, plan_naively
from reference.strategies import quick, scene_clips, tables, thresholds, variants, windows

careful = st.sampled_from(["default", "paper"])


def ones(frames: int) -> list[list[float]]:
    return [[1.0] * frames for _ in range(frames)]


def table_of(frames: int, base: float, **pairs: float) -> list[list[float]]:
    """A symmetric table: ``base`` everywhere but at the named pairs (``s12=0.9``: frames 1 and 2)."""
    table = [[base] * frames for _ in range(frames)]
    for name, value in pairs.items():
        first, second = int(name[1]), int(name[2])
        table[first][second] = table[second][first] = value
    return table


def sources(reduction) -> list[list[int]]:
    return [[source for source, _ in row] for row in reduction.to_rows()]


def weights(reduction) -> list[list[float]]:
    return [[weight for _, weight in row] for row in reduction.to_rows()]


def cut(table, threshold, window):
    return segment_frames(table, threshold=threshold, ema=0.9, max_window=window)


def dense(reduction) -> torch.Tensor:
    return matrix_of([dict(row) for row in reduction.to_rows()], reduction.inputs)


@quick
@given(tables(), thresholds, windows, variants, st.booleans(), st.data())
def test_equals_the_naive_reference(table, threshold, window, variant, weighted, data) -> None:
    frames = len(table)
    counts = data.draw(st.none() | st.lists(st.integers(1, 9), min_size=frames, max_size=frames))
    bounds = {name: data.draw(st.integers(1, 16), name) for name in ("floor", "soft_floor")}
    bounds["duplicate_similarity"] = data.draw(st.sampled_from([-1.0, 0.7, 0.9, 1.0]), "duplicate_similarity")
    segments = cut(table, threshold, window)
    reduction = plan_merging(table, segments, variant=variant, weighted=weighted, counts=counts, **bounds)
    expected = plan_naively(table, segments, variant, weighted=weighted, counts=counts, **bounds)
    assert sources(reduction) == [sorted(row) for row in expected]
    torch.testing.assert_close(dense(reduction), matrix_of(expected, frames), atol=1e-6, rtol=1e-5)


@quick
@given(tables(), thresholds, windows, careful, st.booleans(), st.integers(1, 16))
def test_weights_sum_to_one_and_lie_within_zero_and_one(table, threshold, window, variant, weighted, floor) -> None:
    reduction = plan_merging(table, cut(table, threshold, window), variant=variant, weighted=weighted, floor=floor)
    for row in weights(reduction):
        assert sum(row) == pytest.approx(1, abs=1e-6)
        assert all(0 <= weight <= 1 for weight in row)


@quick
@given(tables(), thresholds, windows, careful, st.integers(1, 16))
def test_no_frame_vanishes_and_none_is_used_twice(table, threshold, window, variant, floor) -> None:
    reduction = plan_merging(table, cut(table, threshold, window), variant=variant, floor=floor)
    assert [source for row in sources(reduction) for source in row] == list(range(len(table)))


@quick
@given(tables(), thresholds, windows, variants)
def test_order_is_kept_and_the_ends_of_segments_are_untouched(table, threshold, window, variant) -> None:
    segments = cut(table, threshold, window)
    reduction = plan_merging(table, segments, variant=variant)
    flat = [source for row in sources(reduction) for source in row]
    assert flat == sorted(set(flat))
    rows = reduction.to_rows()
    assert all([(end, 1.0)] in rows for segment in segments for end in segment)
    assert reduction.survivors().tolist() == [row[0] for row in sources(reduction)]


@quick
@given(tables(), thresholds, windows, careful, st.integers(1, 16))
def test_the_floor_stops_merging_exactly_when_it_is_reached(table, threshold, window, variant, floor) -> None:
    segments = cut(table, threshold, window)
    free = plan_merging(table, segments, variant=variant)
    floored = plan_merging(table, segments, variant=variant, floor=floor)
    assert floored.outputs == max(free.outputs, min(floor, len(table)))
    if free.outputs >= floor:
        assert floored.to_rows() == free.to_rows()


@quick
@given(tables(), thresholds, windows, careful, st.integers(1, 16))
def test_no_frame_joins_one_that_is_less_similar_than_the_ends_of_its_segment(
    table, threshold, window, variant, floor
) -> None:
    segments = cut(table, threshold, window)
    ends = {frame: table[first][last] for first, last in segments for frame in range(first, last + 1)}
    for row in plan_merging(table, segments, variant=variant, floor=floor).to_rows():
        *before, (last, _) = row
        if len(before) == 1:
            assert table[before[0][0]][last] >= ends[last] - 1e-4
        if len(before) == 2:
            (one, _), (two, _) = before
            pair = dict(before)
            length = (pair[one] ** 2 + pair[two] ** 2 + 2 * pair[one] * pair[two] * table[one][two]) ** 0.5
            similarity = (pair[one] * table[one][last] + pair[two] * table[two][last]) / length if length else 0.0
            assert similarity >= ends[last] - 1e-4


@pytest.mark.parametrize("variant", ["default", "official", "paper"])
def test_similarities_that_are_no_numbers_merge_nothing(variant) -> None:
    table = [[float("nan")] * 5 for _ in range(5)]
    outputs = sources(plan_merging(table, [(0, 4)], variant=variant))
    # The authors' code drops a last middle frame that has not merged.
    assert outputs == [[0], [1], [2], *([] if variant == "official" else [[3]]), [4]]


def test_at_the_floor_a_left_over_frame_does_not_go_where_its_pair_was_not_allowed() -> None:
    table = table_of(5, 0.5, s04=0.88, s12=0.90, s23=0.85, s13=0.99, s34=0.6)
    assert sources(plan_merging(table, [(0, 4)], floor=3)) == [[0], [1, 2, 3], [4]]
    assert sources(plan_merging(table, [(0, 4)], floor=4)) == [[0], [1, 2], [3], [4]]


@quick
@given(tables(), thresholds, windows)
def test_official_ignores_the_floor(table, threshold, window) -> None:
    segments = cut(table, threshold, window)
    floored = plan_merging(table, segments, variant="official", floor=len(table))
    assert floored.to_rows() == plan_merging(table, segments, variant="official").to_rows()


@quick
@given(tables(), thresholds, windows, variants)
def test_segments_of_up_to_three_frames_are_left_alone(table, threshold, window, variant) -> None:
    segments = cut(table, threshold, min(window, 4))
    reduction = plan_merging(table, segments, variant=variant)
    assert reduction.weight is None
    assert reduction.source.tolist() == list(range(len(table)))


@quick
@given(tables(least=4), variants, st.integers(0, 13))
def test_segments_do_not_look_at_one_another(table, variant, split) -> None:
    frames = len(table)
    assume(0 < split < frames)
    whole = plan_merging(table, [(0, split - 1), (split, frames - 1)], variant=variant)
    head = plan_merging([row[:split] for row in table[:split]], [(0, split - 1)], variant=variant)
    tail = plan_merging([row[split:] for row in table[split:]], [(0, frames - split - 1)], variant=variant)
    moved = [[(source + split, weight) for source, weight in row] for row in tail.to_rows()]
    assert whole.to_rows() == head.to_rows() + moved


@quick
@given(scene_clips(), variants, thresholds)
def test_features_are_merged_as_the_plan_says(features, variant, threshold) -> None:
    table = frame_similarity(features).tolist()
    reduction = plan_merging(table, cut(table, threshold, 6), variant=variant)
    expected = dense(reduction) @ features.double().flatten(1)
    torch.testing.assert_close(reduction.apply(features).double().flatten(1), expected, atol=2e-6, rtol=1e-5)
    assert torch.equal(reduction.apply(features), reduction.apply(features))


@pytest.mark.parametrize("variant", ["default", "official", "paper"])
def test_merging_received_attention_equals_reducing_the_merged_maps(variant) -> None:
    queries, keys = torch.randn(7, 2, 9, 4), torch.randn(7, 2, 9, 4)
    maps = attention_maps(queries, keys, 0.5)
    table = table_of(7, 0.5, s12=0.9, s23=0.6, s34=0.8, s45=0.7, s56=0.4)
    reduction = plan_merging(table, [(0, 6)], variant=variant)
    assert reduction.outputs < 7
    merged_maps = torch.einsum("kn,nhij->khij", dense(reduction), maps)
    received = reduction.apply(maps.mean(dim=(1, 2)).float())
    torch.testing.assert_close(received.double(), merged_maps.mean(dim=(1, 2)), atol=1e-6, rtol=0)
    torch.testing.assert_close(received.sum(dim=1), torch.ones(len(received)))


def test_default_merges_ties_and_shrinks_static_segments_to_three_frames() -> None:
    assert sources(plan_merging(ones(4), [(0, 3)])) == [[0], [1, 2], [3]]
    assert sources(plan_merging(ones(5), [(0, 4)])) == [[0], [1, 2, 3], [4]]
    assert sources(plan_merging(ones(6), [(0, 5)])) == [[0], [1, 2], [3, 4], [5]]
    assert weights(plan_merging(ones(5), [(0, 4)]))[1] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("frames", [4, 5, 6, 7])
def test_paper_is_strict_so_static_segments_stay(frames) -> None:
    assert plan_merging(ones(frames), [(0, frames - 1)], variant="paper").outputs == frames


def test_official_keeps_the_first_five_of_six_identical_middle_frames() -> None:
    assert sources(plan_merging(ones(8), [(0, 7)], variant="official")) == [[0], [1], [2], [3], [4], [5], [7]]


@quick
@given(tables(least=4), st.booleans())
def test_official_always_discards_the_last_middle_frame(table, weighted) -> None:
    last = len(table) - 1
    reduction = plan_merging(table, [(0, last)], variant="official")
    assert float(dense(reduction)[:, last - 1].abs().sum()) == 0


@quick
@given(tables(least=5, most=5), variants)
def test_a_segment_of_five_gives_three_to_five_frames(table, variant) -> None:
    outputs = plan_merging(table, [(0, 4)], variant=variant).outputs
    assert outputs in ({3, 4} if variant == "official" else {3, 4, 5} if variant == "default" else {4, 5})


def test_equal_neighbours_merge_in_default_only() -> None:
    table = table_of(6, 0.9, s05=0.5)
    assert sources(plan_merging(table, [(0, 5)])) == [[0], [1, 2], [3, 4], [5]]
    assert sources(plan_merging(table, [(0, 5)], variant="paper")) == [[0], [1], [2], [3], [4], [5]]
    assert sources(plan_merging(table, [(0, 5)], variant="official")) == [[0], [1], [2], [3], [5]]


def test_pairs_as_alike_as_the_ends_merge_in_default_only() -> None:
    table = table_of(4, 0.5, s12=0.8, s23=0.3, s03=0.8)
    outputs = {variant: plan_merging(table, [(0, 3)], variant=variant).outputs for variant in ("default", "paper")}
    assert outputs == {"default": 3, "paper": 4}
    assert sources(plan_merging(table, [(0, 3)], variant="official")) == [[0], [1], [3]]


@pytest.mark.parametrize(("floor", "lengths"), [(1, [3, 3, 3]), (10, [3, 3, 4]), (12, [3, 4, 5]), (14, [4, 5, 5])])
def test_the_floor_counts_over_all_segments_from_the_first_on(floor, lengths) -> None:
    segments = [(0, 4), (5, 9), (10, 14)]
    outputs = plan_merging(ones(15), segments, floor=floor).survivors().tolist()
    assert [sum(first <= frame <= last for frame in outputs) for first, last in segments] == lengths


@pytest.mark.parametrize(
    ("floor", "expected"), [(7, [0, 1, 3, 4, 5, 7, 8]), (8, [0, 1, 2, 3, 4, 5, 7, 8]), (9, [*range(9)])]
)
def test_at_the_floor_the_most_similar_pair_merges_not_the_first(floor, expected) -> None:
    table = table_of(9, 0.5, s12=0.7, s56=0.9)
    assert plan_merging(table, [(0, 3), (4, 8)], variant="paper", floor=1).outputs == 7
    assert plan_merging(table, [(0, 3), (4, 8)], variant="paper", floor=floor).survivors().tolist() == expected


@pytest.mark.parametrize(
    ("duplicate_similarity", "floor", "lost"),
    [(0.95, 1, []), (0.9, 1, [6]), (0.7, 1, [2, 6]), (0.7, 8, [6]), (0.7, 9, [])],
)
def test_a_soft_floor_lets_duplicates_merge_but_the_floor_does_not(duplicate_similarity, floor, lost) -> None:
    table = table_of(9, 0.5, s12=0.7, s56=0.9)
    bounds = {"floor": floor, "soft_floor": 9, "duplicate_similarity": duplicate_similarity}
    left = plan_merging(table, [(0, 3), (4, 8)], variant="paper", **bounds).survivors().tolist()
    assert left == [frame for frame in range(9) if frame not in lost]


@quick
@given(tables(), thresholds, windows, careful, st.integers(1, 16))
def test_without_duplicates_a_soft_floor_is_a_floor(table, threshold, window, variant, floor) -> None:
    segments = cut(table, threshold, window)
    soft = plan_merging(table, segments, variant=variant, soft_floor=floor, duplicate_similarity=1.1)
    assert soft.to_rows() == plan_merging(table, segments, variant=variant, floor=floor).to_rows()


def test_pair_weights_are_the_two_similarities() -> None:
    table = table_of(6, 0.5, s12=0.9, s23=0.6, s34=0.55, s45=0.55, s05=0.56)
    reduction = plan_merging(table, [(0, 5)])
    assert sources(reduction) == [[0], [1, 2], [3], [4], [5]]
    assert weights(reduction)[1] == pytest.approx([0.6, 0.4])


def test_the_last_pair_weighs_against_the_tail_in_default_and_paper_but_not_in_official() -> None:
    table = table_of(4, 0.5, s12=0.9, s23=0.3, s03=0.5)
    for variant in ("default", "paper"):
        assert weights(plan_merging(table, [(0, 3)], variant=variant))[1] == pytest.approx([0.75, 0.25])
    assert plan_merging(table, [(0, 3)], variant="official").to_rows() == [[(0, 1.0)], [(1, 1.0)], [(3, 1.0)]]


def test_a_pair_less_alike_than_the_ends_does_not_merge() -> None:
    table = table_of(4, 0.5, s12=0.7, s03=0.8, s23=0.2)
    for variant in ("default", "paper"):
        assert plan_merging(table, [(0, 3)], variant=variant).outputs == 4


def test_a_left_over_frame_joins_only_in_default_and_only_when_alike() -> None:
    alike = table_of(5, 0.6, s12=0.9, s23=0.8, s13=0.8, s04=0.7)
    assert sources(plan_merging(alike, [(0, 4)])) == [[0], [1, 2, 3], [4]]
    assert sources(plan_merging(alike, [(0, 4)], variant="paper")) == [[0], [1, 2], [3], [4]]
    assert sources(plan_merging(alike, [(0, 4)], variant="official")) == [[0], [1, 2], [4]]
    unlike = table_of(5, 0.6, s12=0.9, s23=0.4, s13=0.4, s04=0.7)
    assert sources(plan_merging(unlike, [(0, 4)])) == [[0], [1, 2], [3], [4]]


def test_a_left_over_frame_weighs_by_the_input_frames_each_side_stands_for() -> None:
    rows = weights(plan_merging(ones(5), [(0, 4)], counts=[1, 3, 2, 5, 1]))
    assert rows[1] == pytest.approx([0.25, 0.25, 0.5])


def test_unweighted_merging_takes_the_plain_mean() -> None:
    table = table_of(5, 0.5, s12=0.9, s23=0.6, s34=0.2, s13=0.1)
    for variant in ("default", "official", "paper"):
        assert weights(plan_merging(table, [(0, 4)], variant=variant, weighted=False))[1] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("first", "second", "weight"),
    [(0.9, 0.6, 0.6), (0.0, 0.0, 0.5), (-0.5, -0.5, 0.5), (0.5, -0.5, 0.5), (0.5, -0.2, 1.0), (-0.2, 0.5, 0.0)],
)
def test_weights_are_clamped_and_half_where_undefined(first, second, weight) -> None:
    assert merge_weight(first, second) == pytest.approx(weight)


def test_no_frames_give_no_frames() -> None:
    reduction = plan_merging([], [])
    assert reduction.outputs == reduction.inputs == 0
