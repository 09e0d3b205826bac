"""What is new about a token against the naive count, and what holds for any encoder."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom.ops import over_mean, relative_change, relative_contrast
from reference.novelty import change_naively, contrast_naively, over_mean_naively
from reference.scenes import EXTREMES, extreme_features, scene_features
from reference.strategies import quick

clips = st.builds(
    scene_features,
    st.integers(1, 6),
    st.sampled_from([1, 3, 8]),
    st.sampled_from(["noisy", "noisy", "identical", "black"]),
    st.integers(1, 5),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.integers(0, 1000),
)


@quick
@given(clips)
def test_change_equals_the_naive_count(features) -> None:
    assert torch.allclose(relative_change(features), torch.tensor(change_naively(features)), atol=1e-4)


@quick
@given(clips, st.integers(0, 1000), st.data())
def test_change_of_some_cells_is_from_the_newest_that_is_left(features, seed, data) -> None:
    grids, places, _ = features.shape
    kept = data.draw(st.integers(1, places))
    generator = torch.Generator().manual_seed(seed)
    cells = torch.stack([torch.randperm(places, generator=generator)[:kept].sort().values for _ in range(grids)])
    taken = features.gather(1, cells[..., None].expand(-1, -1, features.shape[2]))
    found = relative_change(taken, cells, places)
    assert torch.allclose(found, torch.tensor(change_naively(taken, cells)), atol=1e-4)


def test_all_cells_are_a_whole_grid() -> None:
    features = scene_features(5, 8, "noisy", 2, 0.3, 0)
    assert torch.equal(relative_change(features, torch.arange(8).expand(5, 8), 8), relative_change(features))


@quick
@given(clips)
def test_contrast_equals_the_naive_count(features) -> None:
    found, expected = relative_contrast(features), torch.tensor(contrast_naively(features))
    assert torch.allclose(found, expected, atol=2e-3, rtol=2e-3)


@quick
@given(st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=1, max_size=4))
def test_over_the_mean(rows) -> None:
    assert torch.allclose(over_mean(torch.tensor(rows)), torch.tensor(over_mean_naively(rows)), rtol=1e-4)


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("count", [relative_change, relative_contrast])
def test_extreme_clips_give_finite_scores(name, count) -> None:
    scores = count(extreme_features(name, 6, 8))
    assert scores.shape == (6, 8)
    assert bool(scores.isfinite().all())
    assert bool((scores >= 0).all())


def test_the_first_grid_and_still_clips_change_as_much_as_the_mean() -> None:
    moving = scene_features(4, 8, "noisy", 4, 0.3, 0)
    assert torch.equal(relative_change(moving)[0], torch.ones(8))
    assert relative_change(moving)[1:].mean() == pytest.approx(1.0)
    assert torch.equal(relative_change(moving[:1].expand(4, -1, -1)), torch.ones(4, 8))


def test_a_token_that_moves_or_stands_out_comes_first() -> None:
    features = torch.ones(3, 6, 8) + 0.01 * torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    features[2, 4] *= -1
    assert int(relative_change(features)[2].argmax()) == 4
    assert int(relative_contrast(features)[2].argmax()) == 4


def test_scaling_all_features_changes_nothing() -> None:
    features = scene_features(5, 8, "noisy", 2, 0.3, 0)
    for count in (relative_change, relative_contrast):
        assert torch.allclose(count(16 * features), count(features), rtol=1e-4)


def test_bfloat16_is_read_in_float32() -> None:
    features = scene_features(5, 8, "noisy", 2, 0.3, 0).bfloat16()
    for count in (relative_change, relative_contrast):
        assert torch.equal(count(features), count(features.float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [4, 512, 896])
def test_rounding_of_equal_tokens_is_no_change(dtype, width) -> None:
    still = torch.randn(1, 16, width, generator=torch.Generator().manual_seed(0)).to(dtype).expand(6, 16, width)
    assert torch.equal(relative_change(still.clone()), torch.ones(6, 16))


def test_one_value_that_is_no_number_costs_its_own_token_only() -> None:
    scores = torch.rand(3, 8, generator=torch.Generator().manual_seed(0))
    broken = scores.clone()
    broken[1, 2] = float("nan")
    ranked = over_mean(broken)
    assert ranked[1, 2] == 0
    assert torch.allclose(ranked[0] / ranked[0, 0], scores[0] / scores[0, 0])
