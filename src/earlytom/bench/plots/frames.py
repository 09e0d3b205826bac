"""What more frames cost: times and peak memory of each method over the number of frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earlytom.bench.plots.readings import BASELINE, Document, Result, median, names_of, peak
from earlytom.bench.plots.style import (
    COLUMN,
    caption,
    clean,
    draw_legend,
    looks,
    new_figure,
    plain_looks,
    style,
    time_unit,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_over_frames"]

_GIB = 2**30
_PANEL = 1.45  # inches
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class _Quantity:
    """Something that grows with frames: what it is called, and how a result tells it."""

    name: str
    read: Callable[[Result], float | None]
    time: bool = True


_QUANTITIES = (
    _Quantity(name="first token", read=lambda result: median(result, "ttft")),
    _Quantity(name="from the file", read=lambda result: median(result, "wait")),
    _Quantity(name="memory of the call", read=peak, time=False),
)


def draw_over_frames(document: Document, *, retention: float | None = None) -> Figure | None:
    """Draw the time to the first token, the whole wait and peak memory over the number of frames, where measured.

    Args:
        document: of a measurement.
        retention: of the methods; ``None``: the lowest in the document.

    Returns:
        The figure; ``None`` with fewer than two numbers of frames.

    Raises:
        EarlyTomError: matplotlib is missing.
    """
    chosen = _choose(document["results"], retention)
    numbers = sorted({result["frames"] for result in chosen})
    quantities = [quantity for quantity in _QUANTITIES if _measured(chosen, quantity) >= _FEWEST]
    if len(numbers) < _FEWEST or not quantities:
        return None
    lines = _lines(chosen)
    with style():
        figure = new_figure(COLUMN, _PANEL * len(quantities) + 0.55 + 0.16 * -(-len(lines) // 2))
        figure.suptitle(wrapped(caption(document)), fontsize=7, color="0.35", x=0.01, ha="left")
        places = figure.subplots(len(quantities), 1, sharex=True, squeeze=False)
        for (axes,), quantity in zip(places, quantities, strict=True):
            _draw_panel(axes, lines, quantity, numbers)
        places[-1][0].set_xlabel("frames", labelpad=2)
        figure.align_ylabels()
        handles, labels = places[0][0].get_legend_handles_labels()
        draw_legend(figure, handles, labels, 2)
    return figure


def _choose(results: Sequence[Result], retention: float | None) -> list[Result]:
    """What runs without compression, and the methods at one retention; those that have none, too."""
    known = [result["retention"] for result in results if result.get("retention") is not None]
    wanted = min(known, default=None) if retention is None else retention
    return [result for result in results if result["label"] == BASELINE or result.get("retention") in (wanted, None)]


def _measured(results: Sequence[Result], quantity: _Quantity) -> int:
    return len({result["frames"] for result in results if quantity.read(result) is not None})


def _lines(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each method, by rising number of frames, under a name that says its retention."""
    lines: dict[str, list[Result]] = {}
    for count in sorted({result["frames"] for result in results}):
        side_by_side = [result for result in results if result["frames"] == count]
        for result, name in zip(side_by_side, names_of(side_by_side), strict=True):
            kept = result.get("retention") if result["label"] != BASELINE else None
            lines.setdefault(name if kept is None else f"{name} {100 * kept:.3g}%", []).append(result)
    return lines


def _draw_panel(axes: Axes, lines: dict[str, list[Result]], quantity: _Quantity, numbers: Sequence[int]) -> None:
    clean(axes, "both")
    values = [value for line in lines.values() for value in map(quantity.read, line) if value is not None]
    scale, unit = time_unit(max(values)) if quantity.time else (_GIB, "GiB")
    plain = [name for name, line in lines.items() if line[0]["label"] == BASELINE]
    known = looks([name for name in lines if name not in plain]) | dict(
        zip(plain, plain_looks(len(plain)), strict=True)
    )
    for name, line in lines.items():
        look: dict[str, Any] = known[name]
        points = [(result["frames"], value / scale) for result in line if (value := quantity.read(result)) is not None]
        size = 6.5 if look["marker"] == "*" else 3.8
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1.1, markersize=size, **look)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set_xticks([], minor=True)
    axes.set_ylabel(f"{quantity.name} ({unit})")
    if quantity.time:
        _make_logarithmic(axes)
    else:
        axes.set_ylim(bottom=0)


def _make_logarithmic(axes: Axes) -> None:
    """Numbers as people write them, at 1, 2 and 5 of each power of ten, none between."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
