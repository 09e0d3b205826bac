"""Stacked times of all methods, a panel for each retention, as in the supplementary's Figures 7 and 8.

`draw_ttft` splits the time to the first token, `draw_wait` all that passes from the closed file to the first token.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earlytom.bench.plots.bars import WHOLE, Bar, draw_bars, legend_entries
from earlytom.bench.plots.readings import (
    BASELINE,
    Document,
    Result,
    display_name,
    find_baseline,
    median,
    names_of,
    quartiles,
    results_at,
    retentions_of,
    usual_frames,
)
from earlytom.bench.plots.style import COLUMN, PAGE, caption, draw_legend, new_figure, style, time_unit
from earlytom.bench.published import READ_OFF_FIGURE_7, SETTING, published_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_ttft", "draw_ttft_beside_paper", "draw_wait"]

_TTFT = ("vision_encoding", "token_processing", "prefill", "overhead")
_WAIT = ("open", "decode", "preprocess", "to_device", *_TTFT)
# Inches: a bar, a panel's title and gap, the axis under the last one, a line of the head or the legend.
_ROW, _PANEL, _FOOT, _LINE = 0.17, 0.2, 0.42, 0.15
_LEGEND_COLUMNS, _LETTERS = 3, 60
_SPLIT_AT = 0.1
_IN_FIGURES_7_AND_8 = ("visionzip", "holitom", "earlytom")


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """Bars that are compared with one another."""

    title: str
    bars: list[Bar]
    reference: float | None


def draw_ttft(document: Document, *, frames: int | None = None) -> Figure | None:
    """Draw the time to the first token in its four parts.

    Args:
        document: of a measurement.
        frames: the results with so many frames; ``None``: the number with the most results.

    Returns:
        The figure; ``None`` where nothing was timed.

    Raises:
        EarlyTomError: matplotlib is missing.
    """
    return _draw_one(document, _TTFT, "ttft", "time to the first token", frames)


def draw_wait(document: Document, *, frames: int | None = None) -> Figure | None:
    """Draw the whole wait from the closed file to the first token in its parts.

    A diamond shows how long it takes where the file is open already. Arguments and errors are those of `draw_ttft`.
    """
    return _draw_one(document, _WAIT, "wait", "from the file to the first token", frames)


def draw_ttft_beside_paper(document: Document, paper_model: str, *, frames: int | None = None) -> Figure | None:
    """Draw the time to the first token as measured, and in panels of their own what the paper reports.

    Args:
        document: of a measurement.
        paper_model: a name of `earlytom.bench.published.PUBLISHED`.
        frames: see `draw_ttft`.

    Returns:
        The figure; ``None`` where nothing was timed.

    Raises:
        EarlyTomError: matplotlib is missing.
    """
    frames = usual_frames(document) if frames is None else frames
    measured = _panels(results_at(document, frames), _TTFT, "ttft")
    if not measured:
        return None
    split = "; parts read off its bars" if paper_model in READ_OFF_FIGURE_7 else ""
    heads = [f"measured here: {caption(document, frames)}", SETTING + split]
    return _draw([measured, _published_panels(paper_model)], heads, "time to the first token")


def _draw_one(document: Document, parts: Sequence[str], total: str, axis: str, frames: int | None) -> Figure | None:
    frames = usual_frames(document) if frames is None else frames
    panels = _panels(results_at(document, frames), parts, total)
    return _draw([panels], [caption(document, frames)], axis) if panels else None


def _panels(results: Sequence[Result], parts: Sequence[str], total: str) -> list[_Panel]:
    """A panel for each retention: what runs without compression, and the methods at this retention."""
    timed = [result for result in results if median(result, total) is not None]
    plain = [result for result in timed if result["label"] == BASELINE]
    first = find_baseline(timed)
    reference = None if first is None else median(first, total)
    made = []
    for retention in retentions_of(timed) or [None]:
        chosen = [result for result in timed if result["label"] != BASELINE and result.get("retention") == retention]
        shown = [*plain, *chosen]
        bars = [_bar(result, name, parts, total) for result, name in zip(shown, names_of(shown), strict=True)]
        if bars:
            made.append(_Panel(title=_heading(retention, chosen), bars=bars, reference=reference))
    return made


def _heading(retention: float | None, methods: Sequence[Result]) -> str:
    if not methods:
        return "no compression"
    return "kept by number of tokens" if retention is None else f"{100 * retention:.3g}% of the visual tokens"


def _bar(result: Result, name: str, parts: Sequence[str], total: str) -> Bar:
    times = {part: median(result, part) for part in parts}
    known = {part: value for part, value in times.items() if value is not None}
    whole = median(result, total) or 0.0
    mark = median(result, f"{total}_open")
    return Bar(label=name, parts=known or {WHOLE: whole}, total=whole, spread=quartiles(result, total), mark=mark)


def _published_panels(model: str) -> list[_Panel]:
    """What the paper says, a panel for each retention; the parts of two bars can be read off its picture."""
    rows = [row for row in published_rows(model) if row.ttft is not None]
    plain = next(row for row in rows if row.method == BASELINE)
    rows = [row for row in rows if row.method in _IN_FIGURES_7_AND_8]
    reference = plain.ttft or 0.0
    panels = []
    for retention in sorted({row.retention for row in rows if row.retention < 1}):
        chosen = [plain, *(row for row in rows if row.retention == retention)]
        split = READ_OFF_FIGURE_7.get(model, {}) if retention == _SPLIT_AT else {}
        bars = [
            Bar(
                label=display_name(row.method),
                parts=split.get(row.method) or {WHOLE: row.ttft or 0.0},
                total=row.ttft or 0.0,
            )
            for row in chosen
        ]
        panels.append(_Panel(title=f"{100 * retention:.3g}% of the visual tokens", bars=bars, reference=reference))
    return panels


def _draw(columns: Sequence[Sequence[_Panel]], heads: Sequence[str], axis: str) -> Figure:
    """Panels under one another, in one column for a paper's column or two for its page."""
    heads = _filled(heads)
    rows = max(len(panels) for panels in columns)
    heights = [
        max((len(panels[row].bars) for panels in columns if row < len(panels)), default=1) for row in range(rows)
    ]
    narrow = len(columns) == 1
    with style():
        handles, labels = legend_entries([bar for panels in columns for panel in panels for bar in panel.bars])
        across = _LEGEND_COLUMNS if narrow else 2 * _LEGEND_COLUMNS
        head = max(text.count("\n") + 1 for text in heads)
        height = sum(_ROW * count + _PANEL for count in heights) + _FOOT + _LINE * (head - -len(labels) // across)
        figure = new_figure(COLUMN if narrow else PAGE, height)
        parts = figure.subfigures(1, len(columns), squeeze=False)[0]
        for part, panels, text in zip(parts, columns, heads, strict=True):
            part.suptitle(text, fontsize=7, color="0.35", x=0.01, ha="left", linespacing=1.15)
            places = part.subplots(rows, 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})
            _draw_column([place for (place,) in places], panels, axis)
        draw_legend(figure, handles, labels, across)
    return figure


def _filled(heads: Sequence[str]) -> list[str]:
    """Texts broken into lines, equally many each, so that what stands under them is level."""
    lines = [textwrap.wrap(head, _LETTERS) for head in heads]
    most = max(map(len, lines))
    return ["\n".join([*text, *[" "] * (most - len(text))]) for text in lines]


def _draw_column(places: Sequence[Axes], panels: Sequence[_Panel], axis: str) -> None:
    bars = [bar for panel in panels for bar in panel.bars]
    limit = 1.04 * max(max(bar.total, sum(bar.parts.values()), *(bar.spread or (0.0,))) for bar in bars)
    unit = time_unit(limit)
    for place, panel in zip(places, panels, strict=False):
        draw_bars(place, panel.bars, reference=panel.reference, limit=limit, unit=unit)
        place.set_title(panel.title, loc="left", pad=3)
    for place in places[len(panels) :]:
        place.set_axis_off()
    places[len(panels) - 1].set_xlabel(f"{axis} ({unit[1]})", labelpad=2)
