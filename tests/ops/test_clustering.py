"""DPC-KNN against the point-by-point reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earlytom.ops import cluster_sizes, density_peaks, join_nearest, squared_distances
from earlytom.ops.clustering import peak_scores
from reference.clustering import cluster_naively, squared_naively
from reference.strategies import quick


def clustered(features: Tensor, valid: Tensor, counts: list[int], neighbours: list[int]) -> Tensor:
    squared = squared_distances(features)
    return join_nearest(squared, valid, density_peaks(squared, valid, counts, neighbours))


@st.composite
def groups(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[int], list[int]]:
    """Groups of points, some of which do not exist; small integers make ties and copies."""
    number, points = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    shape = (number, points, 4)
    integers = draw(st.booleans())
    drawn = (
        torch.randint(-1, 2, shape, generator=generator).float()
        if integers
        else torch.randn(shape, generator=generator)
    )
    valid = torch.rand(number, points, generator=generator) < draw(st.sampled_from([0.4, 0.8, 1.1]))
    counts = [draw(st.integers(0, int(row.sum()))) for row in valid]
    return drawn, valid, counts, draw(st.lists(st.integers(1, 8), min_size=number, max_size=number))


@quick
@given(groups())
def test_equals_the_naive_clusters_with_ties_and_copies(case) -> None:
    features, valid, counts, neighbours = case
    joins = clustered(features, valid, counts, neighbours)
    for group in range(features.shape[0]):
        exist = torch.nonzero(valid[group]).flatten().tolist()
        expected = [features.shape[1]] * features.shape[1]
        if counts[group]:
            clusters = cluster_naively(features[group][exist].tolist(), counts[group], neighbours[group])
            for centre, members in clusters.items():
                for member in members:
                    expected[exist[member]] = exist[centre]
        assert joins[group].tolist() == expected


@quick
@given(groups())
def test_centres_join_themselves_every_point_joins_a_centre_and_runs_repeat(case) -> None:
    features, valid, counts, neighbours = case
    points = features.shape[1]
    joins = clustered(features, valid, counts, neighbours)
    centres = joins == torch.arange(points)
    assert centres.sum(dim=1).tolist() == counts
    for group in range(features.shape[0]):
        joined = joins[group][valid[group]]
        assert centres[group][joined].all() if counts[group] else (joined == points).all()
        assert (joins[group][~valid[group]] == points).all()
    sizes = cluster_sizes(joins)
    assert all(sizes[g, p] == (joins[g] == joins[g, p]).sum() for g in range(len(counts)) for p in range(points))
    assert torch.equal(joins, clustered(features, valid, counts, neighbours))


@quick
@given(groups())
def test_groups_together_equal_each_group_alone(case) -> None:
    features, valid, counts, neighbours = case
    alone = [
        clustered(features[g : g + 1], valid[g : g + 1], counts[g : g + 1], neighbours[g : g + 1])
        for g in range(len(counts))
    ]
    assert torch.equal(clustered(features, valid, counts, neighbours), torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_distances_equal_the_naive_ones(dtype) -> None:
    features = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = torch.tensor([squared_naively(group.double().tolist()) for group in features])
    torch.testing.assert_close(squared_distances(features), expected, atol=1e-5, rtol=1e-5)


def test_memory_is_bounded_by_chunks(monkeypatch) -> None:
    features = torch.randn(9, 6, 8)
    whole = squared_distances(features)
    monkeypatch.setattr("earlytom.ops.clustering._CHUNK_VALUES", 100)
    assert torch.equal(squared_distances(features), whole)


def test_copies_are_no_distance_apart_whatever_rounding_says() -> None:
    """Large vectors that differ in their last bits, as means over identical frames do."""
    generator = torch.Generator().manual_seed(0)
    row = 30 * torch.randn(1, 1, 999, generator=generator) + 30
    squared = squared_distances(row * (1 + 1e-7 * torch.randn(2, 100, 999, generator=generator)))
    assert (squared == 0).all()
    assert peak_scores(squared, torch.ones(2, 100, dtype=torch.bool), [7, 7]).isfinite().all()


def test_of_copies_the_first_are_centres_that_keep_themselves_and_the_first_gets_the_rest() -> None:
    joins = clustered(torch.ones(2, 6, 4), torch.ones(2, 6, dtype=torch.bool), [3, 0], [7, 7])
    assert joins.tolist() == [[0, 1, 2, 0, 0, 0], [6] * 6]


def test_densities_do_not_underflow_where_tokens_lie_far_apart() -> None:
    """exp(-distance^2) is 0 for all of these in float32; their order must not depend on that."""
    near, far = torch.tensor([[0.0], [20.0], [41.0], [63.0]]), torch.tensor([[200.0], [500.0]])
    features = torch.cat([near, far])[None]
    scores = peak_scores(squared_distances(features), torch.ones(1, 6, dtype=torch.bool), [2])
    assert len(set(scores[0].tolist())) == 6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_values_that_are_not_finite_neither_crash_nor_join_the_others(value) -> None:
    features = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0))
    features[0, 3] = value
    joins = clustered(features, torch.ones(1, 8, dtype=torch.bool), [3], [4])
    assert (joins < 8).all()
    assert (joins == torch.arange(8)).sum() == 3
