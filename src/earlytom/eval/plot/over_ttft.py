"""Accuracy over the time to the first token: every method through its retentions, and the front of them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earlytom.bench.plots.style import clean, style
from earlytom.eval.plot.labels import Label, place_labels
from earlytom.eval.plot.legend import add_legend, new_page
from earlytom.eval.plot.looks import UNCOMPRESSED, Look, looks_of
from earlytom.eval.plot.shares import by_share, share
from earlytom.eval.rows import ALL, ANY, Row
from earlytom.eval.variants import BASELINE
from earlytom.viz.palette import PLAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_front", "draw_over_ttft", "pareto_front"]

_HEIGHT = 4.2  # inches
_FRONT, _FRONT_COLOUR = "Pareto front", "0.72"
_FONT_SIZE = 7.0
_SIZE, _STAR_SIZE = 4.5, 8.5  # of markers, points
_PALE = 0.35
_LINES = {BASELINE: "--"}


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A method at one retention: milliseconds, percent."""

    method: str
    share: float
    time: float
    accuracy: float
    low: float
    high: float

    @property
    def at(self) -> tuple[float, float]:
        return self.time, self.accuracy

    @property
    def bar(self) -> list[tuple[float, float]]:
        """The interval of the accuracy."""
        return [(self.time, self.low), (self.time, self.high)]

    @property
    def shown_share(self) -> str:
        return f"{100 * self.share:.3g}%"


def draw_over_ttft(rows: Sequence[Row], *, title: str) -> Figure | None:
    """Draw accuracy over all skills against the median time to the first token; up and to the left is better.

    A line for each method through its retentions, the first and the last of which are written beside it; bars are the
    intervals of the accuracy.

    Args:
        rows: see `earlytom.eval.summary.summarise`; only the averages over all skills have a place in it.
        title: what was run.

    Returns:
        The figure; ``None`` where nothing was timed.

    Raises:
        EarlyTomError: matplotlib is missing.
    """
    lines, looks = _lines(rows), _looks(rows)
    if not lines:
        return None
    ends = [end for points in lines.values() for end in dict.fromkeys((points[0], points[-1]))]
    with style():
        figure = new_page(_HEIGHT, [_name(method) for method in lines], title)
        axes = figure.add_subplot()
        for method, points in lines.items():
            _draw_points(axes, points, looks[method], linestyle=_LINES.get(method, "-"), label=_name(method))
            _draw_bars(axes, points, looks[method])
        level = _finish(figure, axes, lines)
        labels = [_label(end, end.shown_share, looks) for end in ends if end.method != BASELINE]
        paths = [[point.at for point in points] for points in lines.values()]
        place_labels(
            axes, labels, _places(lines), [*paths, *level, *(point.bar for point in _all(lines))], fontsize=_FONT_SIZE
        )
    return figure


def draw_front(rows: Sequence[Row], *, title: str) -> Figure | None:
    """Draw which methods at which retentions no other one beats in accuracy and time to the first token together.

    The front is a staircase: the best accuracy within each time. What is on it is named and has its interval; all else
    is pale.

    Args:
        rows: see `earlytom.eval.summary.summarise`; only the averages over all skills have a place in it.
        title: what was run.

    Returns:
        The figure; ``None`` where nothing was timed.

    Raises:
        EarlyTomError: matplotlib is missing.
    """
    lines, looks = _lines(rows), _looks(rows)
    if not lines:
        return None
    every = _all(lines)
    best = [every[number] for number in pareto_front([point.at for point in every])]
    with style():
        figure = new_page(_HEIGHT, [*map(_name, lines), _FRONT], title)
        axes = figure.add_subplot()
        for method, points in lines.items():
            axes.plot([], [], linestyle="", markersize=_SIZE, label=_name(method), **looks[method].keywords())
            _draw_points(axes, [point for point in points if point not in best], looks[method], alpha=_PALE)
            chosen = [point for point in points if point in best]
            _draw_points(axes, chosen, looks[method])
            _draw_bars(axes, chosen, looks[method])
        stairs = _draw_stairs(axes, best, max(point.time for point in every))
        level = _finish(figure, axes, lines)
        labels = [_label(point, _full_name(point), looks) for point in best]
        place_labels(
            axes, labels, _places(lines), [stairs, *level, *(point.bar for point in best)], fontsize=_FONT_SIZE
        )
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points (cost, worth) no other one beats: in one of the two, and in the other at least even.

    Returns:
        Their numbers, by rising cost; of equal points all.
    """
    best = [
        number
        for number, (cost, worth) in enumerate(points)
        if not any(c <= cost and w >= worth and (c, w) != (cost, worth) for c, w in points)
    ]
    return sorted(best, key=lambda number: points[number])


def _lines(rows: Sequence[Row]) -> dict[str, list[_Point]]:
    """The timed points of each method, by rising share."""
    lines: dict[str, list[_Point]] = {}
    for row in sorted(by_share(rows), key=share):
        if (row.skill, row.form) == (ALL, ANY) and row.ttft is not None and math.isfinite(row.ttft):
            low, accuracy, high = (100 * value for value in (row.low, row.accuracy, row.high))
            point = _Point(
                method=row.method, share=share(row), time=1000 * row.ttft, accuracy=accuracy, low=low, high=high
            )
            lines.setdefault(row.method, []).append(point)
    return {method: lines[method] for method in dict.fromkeys(row.method for row in by_share(rows)) if method in lines}


def _looks(rows: Sequence[Row]) -> dict[str, Look]:
    return {BASELINE: Look(colour=PLAIN, marker="*")} | looks_of(row.method for row in by_share(rows))


def _all(lines: dict[str, list[_Point]]) -> list[_Point]:
    return [point for points in lines.values() for point in points]


def _places(lines: dict[str, list[_Point]]) -> list[tuple[float, float]]:
    return [point.at for point in _all(lines)]


def _name(method: str) -> str:
    return UNCOMPRESSED if method == BASELINE else method


def _full_name(point: _Point) -> str:
    return UNCOMPRESSED if point.method == BASELINE else f"{point.method} {point.shown_share}"


def _label(point: _Point, text: str, looks: dict[str, Look]) -> Label:
    return Label(text=text, x=point.time, y=point.accuracy, colour=looks[point.method].ink)


def _draw_points(axes: Axes, points: Sequence[_Point], look: Look, linestyle: str = "", **how: Any) -> None:
    axes.plot(
        [point.time for point in points],
        [point.accuracy for point in points],
        linestyle=linestyle,
        linewidth=1.0,
        markersize=_STAR_SIZE if look.marker == "*" else _SIZE,
        markeredgewidth=0.9,
        zorder=3,
        **look.keywords(),
        **how,
    )


def _draw_bars(axes: Axes, points: Sequence[_Point], look: Look) -> None:
    times, low, high = ([getattr(point, name) for point in points] for name in ("time", "low", "high"))
    axes.vlines(times, low, high, color=look.colour, linewidth=0.6, alpha=0.6)


def _draw_stairs(axes: Axes, best: Sequence[_Point], last: float) -> list[tuple[float, float]]:
    """The best accuracy within each time, up to the last one; returns the corners."""
    times = [point.time for point in best]
    axes.stairs(
        [point.accuracy for point in best], [*times, last], baseline=None, color=_FRONT_COLOUR, linewidth=2.2,
        label=_FRONT, zorder=1.5,
    )  # fmt: skip
    ends = [*times[1:], last]
    return [corner for point, end in zip(best, ends, strict=True) for corner in (point.at, (end, point.accuracy))]


def _finish(figure: Figure, axes: Axes, lines: dict[str, list[_Point]]) -> list[list[tuple[float, float]]]:
    """Names of the axes, the legend, limits that stay, and the level of no compression, which is returned if known."""
    from matplotlib.collections import LineCollection

    clean(axes, "both")
    axes.margins(x=0.05, y=0.06)
    axes.autoscale_view()
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    axes.set_xlabel("time to the first token (ms, median)")
    axes.set_ylabel("right answers over all skills (%)")
    add_legend(figure, *axes.get_legend_handles_labels())
    levels = [[(edge, point.accuracy) for edge in axes.get_xlim()] for point in lines.get(BASELINE, [])]
    axes.add_collection(LineCollection(levels, colors=PLAIN, linewidths=0.8, linestyles="--"))
    return levels
