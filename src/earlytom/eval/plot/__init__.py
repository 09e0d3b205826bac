"""The plots of an evaluation, at the width of a page: accuracy over retention, over the time to the first token, and
the front of both.

Every method has one look in all of them (`looks`), and no label covers a point or another label (`labels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from earlytom.bench.plots.style import write_figure
from earlytom.eval.plot.over_ttft import draw_front, draw_over_ttft, pareto_front
from earlytom.eval.plot.panels import draw
from earlytom.eval.report import file_name
from earlytom.eval.rows import Row

__all__ = ["draw", "draw_front", "draw_over_ttft", "pareto_front", "write_plots"]


def write_plots(folder: Path, rows: Sequence[Row], about: Sequence[tuple[str, str]]) -> list[Path]:
    """Write every plot for which something was measured, as PNG and SVG.

    Returns:
        The paths, those of PNG first.

    Args:
        folder: where ``accuracy``, ``ttft`` and ``front`` go.
        rows: of one run.
        about: names and values of what was run, as `earlytom.eval.report.to_markdown` takes them.

    Raises:
        EarlyTomError: matplotlib is missing, or a file cannot be written.
    """
    title = "  |  ".join(value for _, value in about)
    figures = {
        "accuracy": draw(rows, title=title),
        "ttft": draw_over_ttft(rows, title=title),
        "front": draw_front(rows, title=title),
    }
    drawn = {file_name(name, rows): figure for name, figure in figures.items() if figure}
    written = [path for name, figure in drawn.items() for path in write_figure(figure, folder, name)]
    return sorted(written, key=lambda path: path.suffix)
