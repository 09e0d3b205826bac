"""How plots look, and how they are written: for a column of a paper, legible in print and to the colour-blind."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from earlytom.bench.plots.readings import Document
from earlytom.errors import EarlyTomError, shortened
from earlytom.viz.inspect import check_matplotlib
from earlytom.viz.palette import COLOURS, MARKERS, PLAIN

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLUMN",
    "PAGE",
    "caption",
    "clean",
    "draw_legend",
    "looks",
    "new_figure",
    "plain_looks",
    "style",
    "time_unit",
    "wrapped",
    "write_figure",
]

COLUMN, PAGE = 3.4, 7.0
"""Widths, in inches, of one column and of a page of two."""

_LOOK: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that pictures are the same everywhere
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "earlytom",  # the same names inside an SVG at every run
}
_DOTS_PER_INCH = 300


@contextmanager
def style() -> Iterator[None]:
    """Everything drawn inside looks alike.

    Raises:
        EarlyTomError: matplotlib is missing.
    """
    check_matplotlib()
    from matplotlib import rc_context

    with rc_context(_LOOK):
        yield


def clean(axes: Axes, grid: Literal["both", "x"]) -> None:
    """No frame above and on the right, and a faint grid along one axis or ``both``, behind everything."""
    axes.grid(axis=grid, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def looks(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method, by its place among ``labels``."""
    methods = [label for label in dict.fromkeys(labels) if label != "none"]
    made = {
        label: {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        for number, label in enumerate(methods)
    }
    return {"none": {"color": PLAIN, "marker": "*"}} | made


def plain_looks(count: int) -> list[dict[str, Any]]:
    """Of each way to run without compression: the first filled, all others hollow and dashed."""
    first: dict[str, Any] = {"color": PLAIN, "marker": "*"}
    return [
        first if number == 0 else first | {"linestyle": "--", "markerfacecolor": "white"} for number in range(count)
    ]


def time_unit(longest: float) -> tuple[float, str]:
    """Milliseconds in a unit of the axis, and its name, for times of up to ``longest`` milliseconds."""
    return (1000.0, "s") if longest >= 10_000 else (1.0, "ms")


def caption(document: Document, frames: int | None = None) -> str:
    """What was measured, in a line: model, frames, number type, device."""
    model, settings, environment = (document.get(key) or {} for key in ("model", "settings", "environment"))
    clip = None if frames is None else f"{frames} frames"
    words = (model.get("name"), clip, settings.get("dtype"), environment.get("device"))
    return ", ".join(str(word) for word in words if word)


def wrapped(text: str, letters: int = 60) -> str:
    """A text in lines that fit into a column."""
    return textwrap.fill(text, letters)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, whose parts make room for one another."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    return Figure(figsize=(width, height), facecolor="white", layout=layout)


def draw_legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], columns: int) -> None:
    """A legend under everything, so that it covers nothing."""
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), frameon=False,
        columnspacing=1.0, handlelength=1.2, handletextpad=0.5, borderpad=0.1,
    )  # fmt: skip


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG and PNG; returns their paths.

    Raises:
        EarlyTomError: a file cannot be written.
    """
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    try:
        with style():
            figure.savefig(paths[0], metadata={"Date": None})
            figure.savefig(paths[1], dpi=_DOTS_PER_INCH)
    except OSError as error:
        raise EarlyTomError(f"{shortened(folder / name)}: cannot be written: {error.strerror or error}") from error
    return paths
