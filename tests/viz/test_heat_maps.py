"""The sheet of heat maps, judged by its arrays, and the stripes in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from earlytom.errors import EarlyTomError
from earlytom.reduction import Reduction
from earlytom.trace import VideoTrace
from earlytom.types import FrameGrid
from earlytom.viz.heat_maps import HeatMap, draw_heat_maps, find_stripes

pytest.importorskip("matplotlib")


def random_map(name: str, grids: int = 12, tokens: int = 100) -> HeatMap:
    attention = np.random.default_rng(0).random((grids, tokens), dtype=np.float32)
    return HeatMap(name=name, attention=attention, columns=10)


def test_stripes_are_places_that_stay_strong() -> None:
    quiet = find_stripes(random_map("a"))
    assert (quiet.strong, quiet.steady, quiet.share) == (5, 0, 0.0)
    striped = random_map("b")
    striped.attention[:, [3, 40]] = 50.0
    striped.attention[0, 3] = 0.0  # in one of twelve grids it may be missing
    found = find_stripes(striped)
    assert (found.strong, found.steady) == (5, 2)
    assert found.share == pytest.approx(23 * 50 / striped.attention.sum())
    striped.attention[:4, 3] = 0.0
    assert find_stripes(striped).steady == 1


def test_a_panel_for_each_clip_on_one_scale() -> None:
    maps = [random_map(name) for name in "abcd"]
    maps[2].attention[:, 7] = 30.0
    figure = draw_heat_maps(maps, unit="temporal grid")
    panels, bar = figure.axes[:6], figure.axes[-1]
    assert [axes.get_title(loc="left") for axes in panels] == ["a", "b", "c", "d", "", ""]
    assert [axes.axison for axes in panels] == [True] * 4 + [False] * 2
    for axes in panels[:4]:
        assert axes.images[0].get_clim() == pytest.approx((0.0, np.quantile(maps[2].scaled, 0.995)))
    assert np.asarray(panels[0].images[0].get_array()).mean() == pytest.approx(1.0, abs=1e-5)
    assert panels[3].get_xlabel() == "token of the temporal grid, in raster order"
    assert bar.get_ylabel() == "attention received, times the mean"


def test_one_clip_of_one_grid_and_none_at_all() -> None:
    figure = draw_heat_maps([random_map("a", grids=1, tokens=4)])
    assert figure.axes[0].images[0].get_array().shape == (1, 4)
    with pytest.raises(EarlyTomError, match="at least one clip, got none"):
        draw_heat_maps([])


def test_a_map_comes_from_a_trace_that_has_attention() -> None:
    grid = FrameGrid(frames=3, rows=2, columns=4)
    trace = VideoTrace(grid=grid, budget=24, stepped_aside=None, origin=Reduction.identity(3))
    with pytest.raises(EarlyTomError, match=r"a\.mp4: the method did not look at the attention"):
        HeatMap.of("a.mp4", trace)
    trace.attention = torch.rand(3, 8, dtype=torch.bfloat16)
    made = HeatMap.of("a.mp4", trace)
    assert made.attention.dtype == np.float32
    assert (made.attention.shape, made.columns) == ((3, 8), 4)
