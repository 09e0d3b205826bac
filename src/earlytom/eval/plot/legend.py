"""Titles and legends that fit the width of a page."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from earlytom.bench.plots.style import PAGE, draw_legend, new_figure, wrapped

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

__all__ = ["add_legend", "new_page"]

_LETTERS_OF_A_LINE = 140  # at 7 points
_MOST_COLUMNS = 5
_LINE = 0.155  # inches
_HANDLE = 22.0  # points: what stands beside a text, and the gap to the next column


def new_page(height: float, entries: Sequence[str], title: str) -> Figure:
    """An empty figure as wide as a page, ``height`` inches without its title and a legend of these entries."""
    text = wrapped(title, _LETTERS_OF_A_LINE)
    columns = _columns(entries)
    lines = -(-sum(_folded(entry).count("\n") + 1 for entry in entries) // columns)
    figure = new_figure(PAGE, height + _LINE * (1.0 + lines + text.count("\n")))
    figure.suptitle(text, fontsize=7, color="0.35", x=0.01, ha="left")
    return figure


def add_legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """A legend under everything, in as many columns as the page is wide enough for."""
    draw_legend(figure, handles, [_folded(label) for label in labels], _columns(labels))


def _folded(label: str) -> str:
    """A method with so many options that no page is wide enough for them goes over several lines."""
    return textwrap.fill(label, _LETTERS_OF_A_LINE - 40)


def _columns(labels: Sequence[str]) -> int:
    """How many columns fit: entries go down one column after another, each as wide as its widest text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", size=7)
    widths = [TextPath((0, 0), _folded(label), prop=font).get_extents().width + _HANDLE for label in labels]
    for columns in range(min(_MOST_COLUMNS, len(labels)), 1, -1):
        if sum(max(column) for column in _split(widths, columns)) <= 72 * PAGE:
            return columns
    return 1


def _split(widths: Sequence[float], columns: int) -> list[Sequence[float]]:
    """As matplotlib fills columns: evenly, the first ones with one more."""
    least, more = divmod(len(widths), columns)
    edges = [number * least + min(number, more) for number in range(columns + 1)]
    return [widths[start:end] for start, end in itertools.pairwise(edges)]
