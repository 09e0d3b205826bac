"""Bipartite soft matching against lists, and the schedule of merges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom.ops import match_tokens, matched_means, merge_down, merge_schedule
from reference.strategies import quick
from reference.tome import match_naively, merge_down_naively, schedule_naively


@st.composite
def frames(draw: st.DrawFn, most: int = 17) -> torch.Tensor:
    """[F, L, E] tokens: all different, many alike (their cosines exact), all alike, or zero."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, most)))
    kind = draw(st.sampled_from(["random", "axes", "alike", "zero"]))
    if kind == "random":
        return torch.randn(*shape, 6, generator=generator)
    if kind == "axes":
        return torch.eye(4)[torch.randint(0, 4, shape, generator=generator)] * 2
    return torch.zeros(*shape, 4) + (kind == "alike")


def groups(row: torch.Tensor) -> list[list[int]]:
    return [(row == left).nonzero().flatten().tolist() for left in range(int(row.max()) + 1)]


@quick
@given(frames(), st.data())
def test_matching_equals_the_lists(metric, data) -> None:
    count = data.draw(st.integers(0, metric.shape[1] // 2))
    matched = match_tokens(metric, count)
    for row, frame in zip(matched, metric, strict=True):
        assert groups(row) == match_naively(frame, count)


@quick
@given(frames(), st.data())
def test_as_many_are_left_as_asked_for_in_the_order_of_first_members(metric, data) -> None:
    tokens = metric.shape[1]
    count = data.draw(st.integers(0, tokens // 2))
    for row in match_tokens(metric, count):
        found = groups(row)
        assert len(found) == tokens - count
        assert sorted(token for members in found for token in members) == list(range(tokens))
        assert [min(members) for members in found] == sorted(min(members) for members in found)


def test_values_that_are_not_numbers_match_last() -> None:
    metric = torch.randn(1, 8, 4)
    metric[0, 2] = torch.nan
    assert [2] in groups(match_tokens(metric, 2)[0])
    assert len(groups(match_tokens(torch.full((1, 8, 4), torch.nan), 4)[0])) == 4


@quick
@given(frames(), st.data())
def test_means_weigh_by_size(metric, data) -> None:
    number, tokens, _ = metric.shape
    count = data.draw(st.integers(0, tokens // 2))
    sizes = torch.randint(1, 9, (number, tokens), generator=torch.Generator().manual_seed(count)).float()
    matched = match_tokens(metric, count)
    reduction = matched_means(matched, sizes, tokens - count)
    assert torch.equal(reduction.destination().view_as(matched) % (tokens - count), matched)
    rows = torch.randn(number * tokens, 3)
    expected = []
    for frame in range(number):
        for members in groups(matched[frame]):
            weight = sizes[frame, members] / sizes[frame, members].sum()
            expected.append((rows[[frame * tokens + member for member in members]] * weight[:, None]).sum(dim=0))
    torch.testing.assert_close(reduction.apply(rows), torch.stack(expected))
    assert reduction.survivors().tolist() == [
        frame * tokens + min(members) for frame in range(number) for members in groups(matched[frame])
    ]


def test_tokens_that_merged_with_none_are_exact_copies() -> None:
    rows = torch.randn(20, 5, dtype=torch.float32)
    matched = match_tokens(rows[None], 3)
    merged = matched_means(matched, torch.full((1, 20), 3.0), 17).apply(rows)
    alone = [number for number, members in enumerate(groups(matched[0])) if len(members) == 1]
    assert alone
    assert all(torch.equal(merged[number], rows[groups(matched[0])[number][0]]) for number in alone)


@quick
@given(frames(), st.data())
def test_merging_down_equals_the_lists(features, data) -> None:
    number, tokens, _ = features.shape
    counts = data.draw(st.lists(st.integers(1, tokens), min_size=number, max_size=number))
    reduction = merge_down(features, counts)
    if torch.unique(features).numel() > 4:  # means of tokens on few axes have equal cosines that rounding tells apart
        expected = [
            [frame * tokens + token for token in members]
            for frame, count in enumerate(counts)
            for members in merge_down_naively(features[frame], count)
        ]
        assert [sorted(source for source, _ in row) for row in reduction.to_rows()] == expected
    assert reduction.outputs == sum(counts)
    for row in reduction.to_rows():
        assert [weight for _, weight in row] == pytest.approx([1 / len(row)] * len(row))
        assert len({source // tokens for source, _ in row}) == 1


def test_copies_find_each_other_first() -> None:
    distinct = torch.randn(1, 4, 6)
    copies = distinct[:, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])]
    reduction = merge_down(copies, [4])
    assert [sorted(source for source, _ in row) for row in reduction.to_rows()] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_the_published_schedule() -> None:
    """608 merges in 26 layers, as observed of the published port: 121 of 729 tokens are left."""
    assert merge_schedule(608, 729, 26, -0.5) == (
        32, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 12,
    )  # fmt: skip


@pytest.mark.parametrize("left", [20, 29, 39, 49, 73, 182])
def test_26_layers_reach_every_retention_of_the_paper(left) -> None:
    assert sum(merge_schedule(729 - left, 729, 26, -0.5)) == 729 - left


@quick
@given(st.integers(1, 300), st.integers(1, 30), st.sampled_from([-1.0, -0.5, 0.0, 0.3, 1.0]), st.data())
def test_schedules_merge_what_is_asked_for_or_say_that_they_cannot(tokens, depth, inflection, data) -> None:
    total = data.draw(st.integers(0, tokens - 1))
    least = tokens
    for _ in range(depth):
        least -= least // 2
    if tokens - total < least:
        with pytest.raises(ValueError, match=f"{depth} layers merge at most {tokens - least} of {tokens} tokens"):
            merge_schedule(total, tokens, depth, inflection)
        return
    schedule, left = merge_schedule(total, tokens, depth, inflection), tokens
    plain = schedule_naively(total, depth, inflection)
    fits = min(plain) >= 0
    for count, wanted in zip(schedule, plain, strict=True):
        assert 0 <= count <= left // 2
        fits = fits and wanted <= left // 2
        left -= count
    assert left == tokens - total
    if fits:
        assert list(schedule) == plain
