"""Plots as they are printed: at the width of a page nothing covers another thing, and everything can be read."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from earlytom.eval.plot import draw, draw_front, draw_over_ttft
from earlytom.eval.rows import Row, read_rows
from earlytom.methods import METHODS
from eval.plot.made_rows import make_rows

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
KEPT = ["methods", "presets", "twin", "testbed"]
DRAW = {"accuracy": draw, "ttft": draw_over_ttft, "front": draw_front}
MANY = "many"
LONG = "long"


def data(name: str) -> list[Row]:
    """Rows of a kept run; of all methods, 4 retentions and 8 skills; of methods with long names."""
    if name == MANY:
        return make_rows()
    if name == LONG:
        return make_rows(
            ("earlytom", *(f"earlytom@encoder+fastvid@tokens:scores=received,ema=0.{n}" for n in range(9)))
        )
    return read_rows(RESULTS / name / "rows.json")


@functools.cache
def made(kind: str, name: str) -> Any:
    return DRAW[kind](data(name), title="a model  |  cpu, float32, sdpa  |  100 clips of seed 0")


def drawn(kind: str, name: str, dpi: int = 100) -> tuple[Any, Any]:
    """The figure, laid out again for a resolution, and what measures its texts."""
    figure = made(kind, name)
    figure.set_dpi(dpi)
    figure.draw_without_rendering()
    return figure, FigureCanvasAgg(figure).get_renderer()


def texts_of(figure: Any) -> list[Text]:
    """Every text that is seen; ticks beyond the limits have texts, which are not."""
    hidden = {text for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in beyond(axis)}
    return [
        text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible() and text not in hidden
    ]


def beyond(axis: Any) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]


def box(text: Text, renderer: Any) -> Bbox:
    """The text's own box, without the line that ties it to a point."""
    return Text.get_window_extent(text, renderer)


def markers(axes: Any, dpi: float) -> list[Bbox]:
    """Squares inside the markers of an axes."""
    radius = 2.0 * dpi / 72
    places = [place for line in axes.get_lines() for place in line.get_xydata() if line.get_marker() != "None"]
    return [
        Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in axes.transData.transform(places)
    ]


@pytest.mark.parametrize("name", [*KEPT, MANY, LONG])
@pytest.mark.parametrize("kind", DRAW)
def test_no_text_covers_another_and_none_leaves_the_page(kind: str, name: str) -> None:
    figure, renderer = drawn(kind, name)
    boxes = {text: box(text, renderer) for text in texts_of(figure)}
    assert len(boxes) > 10
    for one, other in itertools.combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one.get_text(), other.get_text())
    for text, place in boxes.items():
        assert figure.bbox.x0 <= place.x0 < place.x1 <= figure.bbox.x1, text.get_text()
        assert figure.bbox.y0 <= place.y0 < place.y1 <= figure.bbox.y1, text.get_text()


@pytest.mark.parametrize("dpi", [100, 300])
@pytest.mark.parametrize("name", [*KEPT, MANY, LONG])
@pytest.mark.parametrize("kind", ["ttft", "front"])
def test_labels_cover_no_point_and_lie_inside_the_axes(kind: str, name: str, dpi: int) -> None:
    figure, renderer = drawn(kind, name, dpi)
    (axes,) = figure.axes
    points, frame = markers(axes, dpi), axes.get_window_extent(renderer)
    assert points
    assert axes.texts
    for label in axes.texts:
        place = box(label, renderer)
        assert not any(place.overlaps(point) for point in points), label.get_text()
        assert frame.x0 <= place.x0 < place.x1 <= frame.x1, label.get_text()
        assert frame.y0 <= place.y0 < place.y1 <= frame.y1, label.get_text()


@pytest.mark.parametrize("name", [*KEPT, MANY, LONG])
@pytest.mark.parametrize("kind", DRAW)
def test_every_text_can_be_read_at_the_width_of_a_page(kind: str, name: str) -> None:
    figure, renderer = drawn(kind, name)
    assert figure.get_figwidth() == pytest.approx(7.0)
    assert figure.get_figheight() < 9.0
    assert min(text.get_fontsize() for text in texts_of(figure)) >= 7.0
    (legend,) = figure.legends
    place = legend.get_window_extent(renderer)
    assert not any(place.overlaps(axes.get_window_extent(renderer)) for axes in figure.axes)


@pytest.mark.parametrize("name", [*KEPT, MANY])
@pytest.mark.parametrize("kind", DRAW)
def test_every_method_of_the_rows_is_in_every_plot(kind: str, name: str) -> None:
    expected = {row.method for row in data(name) if row.method != "none"} | {"no compression"}
    figure, _ = drawn(kind, name)
    (legend,) = figure.legends
    assert expected <= {text.get_text() for text in legend.get_texts()}
    for axes in figure.axes:
        looks = {look(line) for line in axes.get_lines() if line.get_label() in expected}
        assert len(looks) == len(expected)
        assert looks <= {look(line) for line in axes.get_lines() if len(line.get_xdata())}


def look(line: Any) -> tuple[Any, ...]:
    return line.get_color(), line.get_marker(), line.get_markerfacecolor()


def test_retentions_stand_at_both_ends_of_each_line_however_many_there_are() -> None:
    figure, _ = drawn("ttft", MANY)
    labels = sorted(text.get_text() for text in figure.axes[0].texts)
    methods = len(METHODS) - 1  # all but none
    assert labels == ["10%"] * methods + ["25%"] * methods


def test_labels_are_the_same_whenever_they_are_drawn() -> None:
    one, other = (
        [text.get_position() for text in draw_over_ttft(make_rows(), title="").axes[0].texts] for _ in range(2)
    )
    assert one == other


def test_intervals_are_thin_bars() -> None:
    rows = make_rows(("earlytom", "tome"))
    for figure in (draw(rows, title=""), draw_over_ttft(rows, title="")):
        bars = figure.axes[0].collections[0]
        assert bars.get_linewidth()[0] < 1.0
        low, high = sorted(bars.get_segments()[-1][:, 1])
        assert high - low == pytest.approx(6.0)


def test_without_times_there_is_no_front() -> None:
    assert draw_front([dataclasses.replace(row, ttft=None) for row in make_rows()], title="") is None
