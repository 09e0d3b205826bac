"""Horizontal bars, stacked of the parts of a time, with arrows that tell how much sooner one ends than another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from earlytom.bench.plots.style import clean

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["PARTS", "WHOLE", "Bar", "Part", "draw_bars", "legend_entries"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """How a part of a time is called and drawn."""

    label: str
    colour: str
    hatch: str = ""


PARTS: Mapping[str, Part] = {
    "open": Part(label="opening the file", colour="#CC79A7"),
    "decode": Part(label="decoding", colour="#D55E00"),
    "preprocess": Part(label="preprocessing", colour="#F0E442"),
    "to_device": Part(label="to the device", colour="#56B4E9"),
    "vision_encoding": Part(label="vision encoding", colour="#0072B2"),
    "token_processing": Part(label="token processing", colour="#E69F00"),
    "prefill": Part(label="LLM prefill", colour="#009E73"),
    "overhead": Part(label="system overhead", colour="#8C8C8C"),
    "whole": Part(label="not split", colour="#D9D9D9", hatch="////"),
}
"""The parts of a wait in the order in which they come, and last of all a time whose parts are not known."""

WHOLE = "whole"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar; times in milliseconds.

    Attributes:
        label: what stands on its left.
        parts: names of `PARTS` and their times, in order.
        total: where it ends for its speed-up; parts are medians, which need not add up to the median of the whole.
        spread: lower and upper quartile of the total, where known.
        mark: another time on the same bar, drawn as a diamond.
    """

    label: str
    parts: Mapping[str, float] = field(default_factory=dict)
    total: float
    spread: tuple[float, float] | None = None
    mark: float | None = None


_HEIGHT, _EDGE = 0.68, 0.15  # thin edges, so that short parts can be seen
_SHORTEST_ARROW = 0.04  # of the axis
_DIAMOND: Mapping[str, Any] = {
    "marker": "D", "markersize": 3.5, "color": "white", "markeredgecolor": "black", "markeredgewidth": 0.8
}  # fmt: skip


def draw_bars(
    axes: Axes, bars: Sequence[Bar], *, reference: float | None, limit: float, unit: tuple[float, str]
) -> None:
    """Draw bars from top to bottom; on their right stand their totals, and how many times sooner than the reference.

    Args:
        axes: where.
        bars: the bars.
        reference: total of what they are compared with, milliseconds; without it there are no arrows.
        limit: end of the axis, milliseconds.
        unit: milliseconds in a unit of the axis, and its name.
    """
    scale, name = unit
    clean(axes, "x")
    for row, bar in enumerate(bars):
        _draw_bar(axes, row, bar, scale)
        if reference is not None:
            _draw_arrow(axes, row, bar, reference, limit, scale)
        text, weight = _figures(bar, reference, scale, name), "bold" if bar.total < (reference or 0.0) else "normal"
        look: dict[str, Any] = {"fontsize": 7, "fontweight": weight, "va": "center_baseline", "clip_on": False}
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), **look)
    if reference is not None:
        axes.axvline(reference / scale, color="0.25", linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(bars) - 0.45, -0.55)
    axes.set_xlim(0, limit / scale)


def _figures(bar: Bar, reference: float | None, scale: float, unit: str) -> str:
    """The total, and how many times sooner it is than what it is compared with."""
    value = bar.total / scale
    text = f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"
    if reference is None or bar.total == reference:
        return text
    return f"{text}  {reference / bar.total:.2f}\N{MULTIPLICATION SIGN}"


def _draw_bar(axes: Axes, row: int, bar: Bar, scale: float) -> None:
    left = 0.0
    for name, value in bar.parts.items():
        part = PARTS[name]
        axes.barh(
            row, value / scale, _HEIGHT, left=left / scale, color=part.colour, hatch=part.hatch,
            edgecolor="white" if not part.hatch else "0.55", linewidth=_EDGE, zorder=2,
        )  # fmt: skip
        left += max(value, 0.0)
    if bar.spread is not None:
        axes.plot([end / scale for end in bar.spread], [row, row], color="black", linewidth=1.0, zorder=4)
    if bar.mark is not None:
        axes.plot(bar.mark / scale, row, clip_on=False, zorder=5, **_DIAMOND)


def _draw_arrow(axes: Axes, row: int, bar: Bar, reference: float, limit: float, scale: float) -> None:
    """From the reference back to where the bar ends, where there is room for it."""
    end = max([bar.total, sum(bar.parts.values()), *(bar.spread or ()), bar.mark or 0.0]) + 0.012 * limit
    if reference - end < _SHORTEST_ARROW * limit:
        return
    look = {"arrowstyle": "-|>,head_length=0.35,head_width=0.18", "color": "0.25", "linewidth": 0.8}
    look |= {"shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end / scale, row), (reference / scale, row), arrowprops=look)


def legend_entries(bars: Sequence[Bar]) -> tuple[list[Artist], list[str]]:
    """Patches and names of the parts that are there, in order; mark and quartiles behind them."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    there = {name for bar in bars for name in bar.parts}
    shown = [part for name, part in PARTS.items() if name in there]
    handles: list[Artist] = [
        Patch(facecolor=part.colour, hatch=part.hatch, edgecolor="0.55" if part.hatch else "none") for part in shown
    ]
    labels = [part.label for part in shown]
    if any(bar.spread is not None for bar in bars):
        handles.append(Line2D([], [], color="black", linewidth=1.0))
        labels.append("quartiles")
    if any(bar.mark is not None for bar in bars):
        handles.append(Line2D([], [], linestyle="", **_DIAMOND))
        labels.append("file already open")
    return handles, labels
