"""Throughput over floating-point operations, a line for each method through its retentions; up and left is better.

Where accuracies are known they fill the markers with colour, so that the three sides of the trade are in one picture,
as in the paper's first figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earlytom.bench.plots.readings import (
    BASELINE,
    Document,
    Result,
    display_name,
    median,
    names_of,
    results_at,
    usual_frames,
)
from earlytom.bench.plots.style import (
    COLUMN,
    caption,
    clean,
    draw_legend,
    looks,
    new_figure,
    plain_looks,
    style,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_throughput"]

_TERA = 1e12
_COLOURS = "viridis"  # told apart by brightness, too
_HEIGHT, _LINE, _LEGEND_COLUMNS = 2.45, 0.15, 3  # inches: all but the legend, one of its lines
_RADIUS = 3.2  # of a marker, points
# Where a label may stand, best first: to the right or left of its point, over or under it.
_AROUND = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
_SIDES = {-1: "right", 0: "center", 1: "left"}
_ALIGNMENTS = {-1: "top", 0: "center_baseline", 1: "bottom"}


@dataclass(frozen=True, kw_only=True)
class _Point:
    """One method at one retention; 1e12 operations, tokens a second, percent."""

    flops: float
    throughput: float
    retention: float | None
    accuracy: float | None


def draw_throughput(
    document: Document, accuracy: Mapping[str, float] | None = None, *, frames: int | None = None
) -> Figure | None:
    """Draw new tokens a second of the whole ``generate`` over true operations up to the first token.

    Args:
        document: of a measurement.
        accuracy: percent by the unique name of a result, such as ``earlytom 10%``; where a result has none, its marker
            stays empty.
        frames: the results with so many frames; ``None``: the number with the most results.

    Returns:
        The figure; ``None`` where nothing was counted.

    Raises:
        EarlyTomError: matplotlib is missing.
    """
    frames = usual_frames(document) if frames is None else frames
    lines = _lines(results_at(document, frames), accuracy or {})
    if not lines:
        return None
    scores = [point.accuracy for points in lines.values() for point in points if point.accuracy is not None]
    with style():
        from matplotlib.colors import Normalize

        figure = new_figure(COLUMN, _HEIGHT + _LINE * -(-len(lines) // _LEGEND_COLUMNS))
        figure.suptitle(wrapped(caption(document, frames)), fontsize=7, color="0.35", x=0.01, ha="left")
        axes = figure.add_subplot()
        clean(axes, "both")
        norm = Normalize(min(scores), max(scores)) if scores else None
        for (name, points), look in zip(lines.items(), _looks(lines), strict=True):
            _draw_line(axes, name, points, look, norm)
        _frame(axes)
        if norm is not None:
            _draw_scale(figure, axes, norm)
        handles, labels = axes.get_legend_handles_labels()
        draw_legend(figure, handles, labels, _LEGEND_COLUMNS)
        _label_ends(figure, axes, lines)
    return figure


def _lines(results: Sequence[Result], accuracy: Mapping[str, float]) -> dict[str, list[_Point]]:
    """The points of each method, by falling retention; every way to run without compression is a line of its own."""
    lines: dict[str, list[_Point]] = {}
    plain = [result for result in results if result["label"] == BASELINE]
    names = dict(zip((result["name"] for result in plain), names_of(plain), strict=True))
    for result in results:
        throughput, flops = median(result, "throughput", None), (result.get("flops") or {}).get("total")
        if throughput is None or flops is None:
            continue
        name = names.get(result["name"]) or display_name(result["label"])
        point = _Point(
            flops=flops / _TERA,
            throughput=throughput,
            retention=result.get("retention"),
            accuracy=accuracy.get(result["name"]),
        )
        lines.setdefault(name, []).append(point)
    return {name: sorted(points, key=lambda point: -(point.retention or 1.0)) for name, points in lines.items()}


def _looks(lines: Mapping[str, Sequence[_Point]]) -> list[dict[str, Any]]:
    plain = [name for name in lines if name.startswith(display_name(BASELINE))]
    known = looks([name for name in lines if name not in plain]) | dict(
        zip(plain, plain_looks(len(plain)), strict=True)
    )
    return [known[name] for name in lines]


def _draw_line(axes: Axes, name: str, points: Sequence[_Point], look: Mapping[str, Any], norm: Any) -> None:
    from matplotlib import colormaps

    flops, throughput = [point.flops for point in points], [point.throughput for point in points]
    fill = look.get("markerfacecolor", look["color"]) if norm is None else "white"
    size = 9.0 if look["marker"] == "*" else 5.5
    axes.plot(
        flops, throughput, color=look["color"], marker=look["marker"], markersize=size, markerfacecolor=fill,
        markeredgewidth=1.1, linewidth=1.1, label=name, zorder=3,
    )  # fmt: skip
    for point in points:
        if norm is not None and point.accuracy is not None:
            axes.plot(
                point.flops, point.throughput, color=look["color"], marker=look["marker"], markersize=size,
                markerfacecolor=colormaps[_COLOURS](norm(point.accuracy)), markeredgewidth=1.1, zorder=4,
            )  # fmt: skip


def _label_ends(figure: Figure, axes: Axes, lines: Mapping[str, Sequence[_Point]]) -> None:
    """Write the first and the last retention of each line beside its end, where nothing is covered."""
    from matplotlib.transforms import Bbox

    renderer = _renderer(figure)
    places = axes.transData.transform([(point.flops, point.throughput) for line in lines.values() for point in line])
    radius = _RADIUS * figure.dpi / 72
    taken = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in places]
    for point in (line[end] for line in lines.values() for end in {0, len(line) - 1}):
        if point.retention is not None:
            _label(axes, point, f"{100 * point.retention:.3g}%", taken, renderer)


def _label(axes: Axes, point: _Point, text: str, taken: list[Any], renderer: Any) -> None:
    """Try the places around a point; in a crowd that leaves no room the label is left out."""
    for x, y in _AROUND:
        label = axes.annotate(
            text, (point.flops, point.throughput), (_RADIUS * 1.4 * x, _RADIUS * 1.4 * y), fontsize=6.5,
            textcoords="offset points", ha=_SIDES[x], va=_ALIGNMENTS[y], annotation_clip=False, zorder=5,
        )  # fmt: skip
        box = label.get_window_extent(renderer)
        if not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return
        label.remove()


def _renderer(figure: Figure) -> Any:
    """What measures texts, once everything has its place."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.draw_without_rendering()
    return FigureCanvasAgg(figure).get_renderer()


def _frame(axes: Axes) -> None:
    axes.margins(x=0.08, y=0.14)
    axes.set_xlabel(r"true operations to the first token ($10^{12}$)", labelpad=2)
    axes.set_ylabel("throughput (tokens/s)")
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))


def _draw_scale(figure: Figure, axes: Axes, norm: Any) -> None:
    """What the colours inside the markers mean, beside the plot."""
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(norm, _COLOURS), ax=axes, aspect=30, pad=0.02)
    bar.set_label("accuracy (%)", fontsize=7)
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=6.5)
