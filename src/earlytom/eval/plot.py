"""Accuracy over retention, a panel for all skills and one for each, and accuracy over the time to the first token.

One line a method; bands or bars for the intervals.
"""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from earlytom.eval.rows import ALL, ANY, Row
from earlytom.eval.variants import BASELINE
from earlytom.viz.palette import COLOURS, MARKERS, PLAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "draw_over_ttft"]

_CHANCE = "0.55"
_COLUMNS = 4
_LETTERS_PER_INCH = 11
_LINES_WITH_BANDS = 3
_NUMBER = re.compile(r":visual_tokens=\d+(,?)")


def draw(rows: Sequence[Row], *, title: str) -> Figure:
    """Draw the rows of one run.

    Args:
        rows: see `earlytom.eval.summary.summarise`; those of single forms, and methods without a retention or at 100%
            beside others below, have no place in it and are left out. Methods that were given a number of tokens stand
            at the share that they kept.
        title: what was run.
    """
    from matplotlib.figure import Figure

    rows = _by_share(rows)
    mine = [row for row in rows if row.form == ANY and row.retention is not None]
    if any(row.retention < 1.0 for row in mine if row.retention is not None):
        # What lets every token in would squeeze all others together.
        mine = [row for row in mine if row.retention != 1.0 or row.method == BASELINE]
    skills = list(dict.fromkeys(row.skill for row in mine))
    styles = _styles(rows)
    methods = [method for method in styles if any(row.method == method for row in mine)]
    columns = min(_COLUMNS, len(skills))
    lines = math.ceil(len(skills) / columns)
    width, height = max(3.3 * columns, 5.0), 2.75 * lines + 1.1
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    figure.suptitle(textwrap.fill(title, int(_LETTERS_PER_INCH * width)), fontsize=10, x=0.01, ha="left")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    ticks = sorted({_place(row) for row in mine if row.method != BASELINE}) or [1.0]
    for number, axes in enumerate(panels.flat):
        if number >= len(skills):
            axes.set_axis_off()
            continue
        chosen = [row for row in mine if row.skill == skills[number]]
        _draw_panel(axes, chosen, methods, styles, ticks)
        axes.set_title(_heading(chosen[0]), fontsize=10, fontweight="bold" if skills[number] == ALL else "normal")
        if number % columns == 0:
            axes.set_ylabel("right answers (%)", fontsize=9)
        if number + columns >= len(skills):
            axes.set_xlabel("retention (%)", fontsize=9)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), fontsize=9, frameon=False)
    return figure


def draw_over_ttft(rows: Sequence[Row], *, title: str) -> Figure | None:
    """Draw accuracy over all skills against the median time to the first token; up and to the left is better.

    Args:
        rows: see `earlytom.eval.summary.summarise`; only the averages over all skills have a place in it.
        title: what was run.

    Returns:
        The figure; ``None`` where nothing was timed.
    """
    from matplotlib.figure import Figure

    rows = _by_share(rows)
    mine = [row for row in rows if (row.skill, row.form) == (ALL, ANY) and row.ttft is not None]
    if not mine:
        return None
    figure = Figure(figsize=(10.5, 5.5), facecolor="white", layout="constrained")
    figure.suptitle(textwrap.fill(title, int(_LETTERS_PER_INCH * 10.5)), fontsize=10, x=0.01, ha="left")
    axes = figure.add_subplot()
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    styles = _styles(rows)
    for method in dict.fromkeys(row.method for row in mine):
        points = sorted((row for row in mine if row.method == method), key=_place)
        _draw_over_ttft(axes, points, styles.get(method, 0))
    axes.set_xlabel("time to the first token (ms, median)", fontsize=9)
    axes.set_ylabel("right answers over all skills (%)", fontsize=9)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    return figure


def _by_share(rows: Sequence[Row]) -> list[Row]:
    """The rows, those of methods that were given a number of tokens with the share that these were of all."""
    whole = {(row.skill, row.form): row.visual_tokens for row in rows if row.method == BASELINE}
    return [_with_share(row, whole.get((row.skill, row.form))) for row in rows]


def _with_share(row: Row, whole: float | None) -> Row:
    method, numbers = _NUMBER.subn(lambda found: ":" if found[1] else "", row.method)
    if whole is None or not numbers:
        return row
    return dataclasses.replace(row, method=method, retention=row.visual_tokens / whole)


def _styles(rows: Sequence[Row]) -> dict[str, int]:
    """A number for each method but the baseline, which its colour, marker and line follow from in every plot."""
    methods = dict.fromkeys(row.method for row in rows if row.method != BASELINE)
    return {method: number for number, method in enumerate(methods)}


def _draw_over_ttft(axes: Axes, rows: Sequence[Row], number: int) -> None:
    """One method: a line through its retentions, the first and the last of which are written beside it."""
    plain = rows[0].method == BASELINE
    colour = PLAIN if plain else COLOURS[number % len(COLOURS)]
    times = [1000 * (row.ttft or 0.0) for row in rows]
    low, value, high = ([100 * getattr(row, name) for row in rows] for name in ("low", "accuracy", "high"))
    axes.vlines(times, low, high, color=colour, linewidth=1.0, alpha=0.5)
    label = "no compression" if plain else rows[0].method
    marker = "*" if plain else MARKERS[number % len(MARKERS)]
    style = "-" if number < len(COLOURS) else "--"
    axes.plot(times, value, style, color=colour, marker=marker, markersize=11 if plain else 6, label=label, zorder=3)
    for row, time, height in zip(rows, times, value, strict=True):
        if not plain and row.retention is not None and row in (rows[0], rows[-1]):
            axes.annotate(f"{100 * row.retention:.3g}%", (time, height), (4, 4), textcoords="offset points", fontsize=7)


def _heading(row: Row) -> str:
    return f"{'all skills' if row.skill == ALL else row.skill}  (n = {row.n})"


def _draw_panel(
    axes: Axes, rows: Sequence[Row], methods: Sequence[str], styles: Mapping[str, int], ticks: Sequence[float]
) -> None:
    axes.set_xscale("log")
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    for row in rows:
        if row.method == BASELINE:
            axes.axhspan(100 * row.low, 100 * row.high, color=PLAIN, alpha=0.10, linewidth=0)
            axes.axhline(100 * row.accuracy, color=PLAIN, linewidth=1.4, label="no compression")
            axes.axhline(100 * row.chance, color=_CHANCE, linewidth=1.0, linestyle=":", label="chance")
    for number, method in enumerate(methods):
        mine = sorted((row for row in rows if row.method == method), key=_place)
        _draw_method(axes, mine, styles[method], _apart(number, len(methods)), bands=len(methods) <= _LINES_WITH_BANDS)
    axes.set_xlim(ticks[0] / 1.3, ticks[-1] * 1.3)
    axes.set_xticks(ticks, [f"{100 * tick:.3g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(-2, 102)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _apart(number: int, methods: int) -> float:
    """A factor that sets methods a little to the side of one another, but never as far as another retention."""
    return min(1.03, 1.25 ** (1 / methods)) ** (number - (methods - 1) / 2)


def _draw_method(axes: Axes, rows: Sequence[Row], number: int, apart: float, *, bands: bool) -> None:
    """A line with its band; with many methods, whose bands would cover one another, with bars, side by side."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    style = "-" if number < len(COLOURS) else "--"
    places = [_place(row) * apart for row in rows]
    low, value, high = ([100 * getattr(row, name) for row in rows] for name in ("low", "accuracy", "high"))
    label = rows[0].method if rows else ""
    axes.plot(places, value, style, color=colour, marker=marker, markersize=4.5, linewidth=1.6, label=label, zorder=3)
    if len(rows) > 1 and bands:
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    else:
        axes.vlines(places, low, high, color=colour, linewidth=1.1, alpha=0.7)


def _place(row: Row) -> float:
    return 1.0 if row.retention is None else row.retention
