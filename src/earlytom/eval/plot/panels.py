"""Accuracy over retention: a panel for all skills and one for each, a line for each method, bars for the intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earlytom.bench.plots.style import clean, style
from earlytom.eval.plot.legend import add_legend, new_page
from earlytom.eval.plot.looks import CHANCE, UNCOMPRESSED, Look, looks_of
from earlytom.eval.plot.shares import by_share, share
from earlytom.eval.rows import ALL, ANY, Row
from earlytom.eval.variants import BASELINE
from earlytom.viz.palette import PLAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_COLUMNS, _PANEL = 4, 1.85  # panels in a line, inches of height
_CHANCE_COLOUR = "0.55"
_BESIDE = 1.35  # all tokens stand so many times farther to the right than the largest share beside them
_LEAST_STEP = 1.13  # between shares that are written on the axis, as a factor


def draw(rows: Sequence[Row], *, title: str) -> Figure:
    """Draw the rows of one run, at the width of a page.

    Args:
        rows: see `earlytom.eval.summary.summarise`; those of single forms have no place in it and are left out. Methods
            without a retention, or with a number of tokens, stand at the share that they kept; those that keep all
            tokens, beside others that do not, on the right of a cut axis.
        title: what was run.

    Raises:
        EarlyTomError: matplotlib is missing.
    """
    mine = [row for row in by_share(rows) if row.form == ANY]
    skills = list(dict.fromkeys(row.skill for row in mine))
    looks = looks_of(row.method for row in mine)
    axis = _Axis.of(mine)
    columns = min(_COLUMNS, len(skills))
    lines = math.ceil(len(skills) / columns)
    with style():
        figure = new_page(_PANEL * lines + 0.2, [UNCOMPRESSED, CHANCE, *looks], title)
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for number, axes in enumerate(panels.flat):
            if number >= len(skills):
                axes.set_axis_off()
                continue
            chosen = [row for row in mine if row.skill == skills[number]]
            axes.set_ylim(_floor(mine), 102)
            _draw_panel(axes, chosen, looks, axis)
            axes.set_title(_heading(chosen[0]), pad=3, fontweight="bold" if skills[number] == ALL else "normal")
            if number % columns == 0:
                axes.set_ylabel("right answers (%)")
            if number + columns >= len(skills):
                axes.set_xlabel("retention (%)")
                axes.tick_params(labelbottom=True)
        add_legend(figure, *panels.flat[0].get_legend_handles_labels())
    return figure


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """The axis of retentions, logarithmic.

    Attributes:
        ticks: the shares that are written on it, ascending; the last one is the largest of all.
        start: the smallest share.
        end: where all tokens stand.
        spread: the factor within which methods of one share are set side by side.
    """

    ticks: tuple[float, ...]
    start: float
    end: float
    spread: float

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Axis:
        """The axis that holds these rows."""
        shares = sorted({share(row) for row in rows if row.method != BASELINE}) or [1.0]
        ticks = _spaced(shares)
        steps = [above / below for below, above in itertools.pairwise(ticks)]
        end = 1.0 if shares[0] >= 1.0 else min(1.0, _BESIDE * max(value for value in shares if value < 1.0))
        return cls(ticks=ticks, start=shares[0], end=end, spread=min([1.25, *steps]) ** 0.7)

    def place(self, value: float) -> float:
        """Where a share stands."""
        return value if value < 1.0 else self.end

    @property
    def is_cut(self) -> bool:
        return self.end < 1.0 and self.ticks[-1] >= 1.0

    @property
    def limits(self) -> tuple[float, float]:
        margin = 1.05 * self.spread**0.8
        return self.place(self.start) / margin, self.place(self.ticks[-1]) * margin


def _spaced(shares: Sequence[float]) -> tuple[float, ...]:
    """As many of the ascending shares as can be written side by side, the largest first."""
    kept = [shares[-1]]
    for value in reversed(shares):
        if value * _LEAST_STEP <= kept[0]:
            kept.insert(0, value)
    return tuple(kept)


def _floor(rows: Sequence[Row]) -> float:
    """Where the axis of accuracies begins: a little below everything that is drawn."""
    return max(-2.0, 100 * min(min(row.low, row.chance) for row in rows) - 5)


def _heading(row: Row) -> str:
    return f"{'all skills' if row.skill == ALL else row.skill}  (n = {row.n})"


def _draw_panel(axes: Axes, rows: Sequence[Row], looks: Mapping[str, Look], axis: _Axis) -> None:
    axes.set_xscale("log")
    clean(axes, "both")
    for row in rows:
        if row.method == BASELINE:
            axes.axhspan(100 * row.low, 100 * row.high, color=PLAIN, alpha=0.10, linewidth=0)
            axes.axhline(100 * row.accuracy, color=PLAIN, linewidth=1.0, linestyle="--", label=UNCOMPRESSED)
            axes.axhline(100 * row.chance, color=_CHANCE_COLOUR, linewidth=0.9, linestyle=":", label=CHANCE)
    for number, (method, look) in enumerate(looks.items()):
        mine = sorted((row for row in rows if row.method == method), key=share)
        _draw_method(axes, method, mine, look, axis, axis.spread ** ((number + 0.5) / len(looks) - 0.5))
    axes.set_xlim(*axis.limits)
    axes.set_xticks([axis.place(tick) for tick in axis.ticks], [f"{100 * tick:.3g}" for tick in axis.ticks])
    axes.set_xticks([], minor=True)
    if axis.is_cut:
        _draw_cut(axes, axis)


def _draw_method(axes: Axes, method: str, rows: Sequence[Row], look: Look, axis: _Axis, aside: float) -> None:
    """A line through the shares below all tokens, with thin bars; ``aside``: a factor away from other methods."""
    places = [axis.place(share(row)) * aside for row in rows]
    low, value, high = ([100 * getattr(row, name) for row in rows] for name in ("low", "accuracy", "high"))
    axes.vlines(places, low, high, color=look.colour, linewidth=0.6, alpha=0.7)
    axes.plot(
        places, value, **look.keywords(), markersize=3.2, markeredgewidth=0.8, linewidth=0.9, label=method, zorder=3
    )


def _draw_cut(axes: Axes, axis: _Axis) -> None:
    """Two strokes through the axis where it is cut."""
    below = max(tick for tick in axis.ticks if tick < 1.0)
    middle = math.sqrt(below * axis.end)
    axes.text(
        middle, 0, "//", transform=axes.get_xaxis_transform(), ha="center", va="center", fontsize=7, zorder=6,
        bbox={"facecolor": "white", "linewidth": 0, "pad": 0.3},
    )  # fmt: skip
