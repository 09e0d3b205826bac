"""What goes to the terminal: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from earlytom.errors import EarlyTomError

if TYPE_CHECKING:
    from earlytom.bench.tables import Table as PlainTable
    from earlytom.runtime.pipeline import Answer

__all__ = [
    "can_draw",
    "cell",
    "drawn",
    "fail",
    "frame_counts",
    "note",
    "on_terminal",
    "output",
    "print_json",
    "progress",
    "status",
    "table",
    "timing",
]

# Lines of a pipe or a file need not end where those of an 80-column terminal do.
_PIPE_WIDTH = 120


def output() -> Console:
    """Where results go."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False, emoji=False)


def _messages() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def on_terminal() -> bool:
    """Whether somebody watches stderr."""
    return sys.stderr.isatty()


def fail(message: str) -> None:
    """Print an error as one line."""
    _messages().print(Text("error: ", style="bold red") + Text(" ".join(message.split())), soft_wrap=True)


def note(message: str) -> None:
    """Print a note."""
    _messages().print(Text("note: ", style="bold yellow") + Text(message), soft_wrap=True)


def timing(message: str) -> None:
    """Print what something cost, beside the result."""
    _messages().print(Text(message, style="dim"), soft_wrap=True)


def frame_counts(answer: Answer) -> str:
    """Frames before and after merging, and temporal grids where these are not single frames."""
    counts = f"{answer.frames} frames -> {answer.frames_left}"
    if answer.temporal_grids == answer.frames:
        return counts
    return f"{counts} ({answer.temporal_grids} temporal grids -> {answer.temporal_grids_left})"


def status(message: str) -> AbstractContextManager[object]:
    """A spinner while something runs; nothing when nobody watches."""
    return _messages().status(message) if on_terminal() else nullcontext()


def progress() -> Progress:
    """A bar for work of known length; nothing when nobody watches."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=_messages(),
        transient=True,
        disable=not on_terminal(),
    )


def table(columns: Sequence[str], *, title: str | None = None, right: Sequence[str] = ()) -> Table:
    """An empty table; the columns named in ``right`` hold numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        made.add_column(Text(column), justify="right" if column in right else "left", overflow="fold")
    return made


def cell(value: object, style: str = "") -> Text:
    """A cell whose text is shown as it is, brackets included."""
    return Text(str(value), style=style)


def drawn(made: PlainTable) -> Table:
    """A table of plain text as the terminal shows it, the first column bold."""
    shown = table(made.columns, title=made.title, right=made.right)
    for row in made.cells:
        shown.add_row(*(cell(text, "bold" if place == 0 else "") for place, text in enumerate(row)))
    return shown


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print one JSON document, in ASCII, which every pipe can carry."""
    # default=str: the knobs of other packages' methods may be anything.
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def can_draw(otherwise: str) -> bool:
    """Whether plots can be drawn; a note says why not, and what happens ``otherwise``."""
    from earlytom.viz.inspect import check_matplotlib

    try:
        check_matplotlib()
    except EarlyTomError as error:
        note(f"{error}; {otherwise}")
        return False
    return True
