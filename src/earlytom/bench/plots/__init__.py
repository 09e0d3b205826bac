"""Plots of a measurement, from its JSON document. They need matplotlib, in the extra ``eval``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from earlytom.bench.plots.frames import draw_over_frames
from earlytom.bench.plots.readings import Document
from earlytom.bench.plots.stacked import draw_ttft, draw_ttft_beside_paper, draw_wait
from earlytom.bench.plots.style import write_figure
from earlytom.bench.plots.throughput import draw_throughput

__all__ = [
    "draw_over_frames",
    "draw_throughput",
    "draw_ttft",
    "draw_ttft_beside_paper",
    "draw_wait",
    "write_figure",
    "write_plots",
]


def write_plots(document: Document, folder: Path, accuracy: Mapping[str, float] | None = None) -> list[Path]:
    """Write as SVG and PNG what a document has the numbers for: ``ttft``, ``wait``, ``throughput``, ``frames``.

    Args:
        document: of a measurement, schema ``earlytom.bench/1``.
        folder: an existing folder.
        accuracy: percent by the unique name of a result, where known; see `draw_throughput`.

    Returns:
        The files.

    Raises:
        EarlyTomError: matplotlib is missing, or a file cannot be written.
    """
    figures = {
        "ttft": draw_ttft(document),
        "wait": draw_wait(document),
        "throughput": draw_throughput(document, accuracy),
        "frames": draw_over_frames(document),
    }
    return [path for name, figure in figures.items() if figure for path in write_figure(figure, folder, name)]
