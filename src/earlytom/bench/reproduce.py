"""The supplementary's Figures 6, 7 and 8, measured here, each beside what the supplementary says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earlytom.bench.claims import CLAIMS
from earlytom.bench.files import make_folder, write_texts
from earlytom.bench.plots import draw_ttft_beside_paper, write_figure
from earlytom.bench.plots.readings import BASELINE, display_name
from earlytom.bench.published import SETTING, published_rows
from earlytom.bench.results import BenchResults, Result
from earlytom.bench.subjects import Subject, make_subjects
from earlytom.bench.tables import Table
from earlytom.errors import EarlyTomError
from earlytom.methods import make_method, parse_method
from earlytom.viz.heat_maps import HeatMap, draw_heat_maps, find_stripes

if TYPE_CHECKING:
    from earlytom.runtime.pipeline import VideoQA
    from earlytom.video import Sampling

__all__ = ["BARS", "FIGURE_6", "BarChart", "Sheet", "bar_subjects", "make_folder", "make_sheet", "write_bars"]

_METHODS = ("visionzip", "holitom", "earlytom")
FIGURE_6 = (
    "In all of six videos some places keep a high attention through all frames: vertical stripes, the attention sinks "
    "that a ranking by attention alone would always choose."
)
"""What the supplementary says of Figure 6, in our words."""


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """One of the supplementary's two bar charts.

    Attributes:
        name: ``figure7`` or ``figure8``.
        model: the paper's, which is built unless another one is asked for.
        frames: of the clip.
        retentions: one a panel.
    """

    name: str
    model: str
    frames: int = 32
    retentions: tuple[float, ...] = (0.1, 0.15, 0.2, 0.25)


BARS = {
    "figure7": BarChart(name="figure7", model="llava-onevision-7b"),
    "figure8": BarChart(name="figure8", model="llava-onevision-0.5b"),
}
"""By name."""


def bar_subjects(chart: BarChart, *, frames: int | None = None, attention: str = "sdpa") -> list[Subject]:
    """Who is measured for a bar chart: VisionZip, HoliTom and EarlyTom at its retentions, and the plain model."""
    methods = [
        (name, parse_method(name, {"retention": retention})) for retention in chart.retentions for name in _METHODS
    ]
    return make_subjects(methods, [frames or chart.frames], attention)


def write_bars(chart: BarChart, found: BenchResults, folder: Path) -> tuple[Table, list[str], list[Path]]:
    """Write a bar chart: picture, JSON document, and a Markdown text with what the supplementary says beside it.

    Args:
        chart: which.
        found: what was measured for `bar_subjects`.
        folder: an existing folder.

    Returns:
        A table of both, lines of what the supplementary says and what was measured, and the files.

    Raises:
        EarlyTomError: nothing could be measured, matplotlib is missing, or a file cannot be written.
    """
    document = found.to_dict()
    figure = draw_ttft_beside_paper(document, chart.model)
    if figure is None:
        raise EarlyTomError(f"nothing could be measured for {chart.name}: {_reasons(found)}")
    table, lines = _beside_paper(chart, found), _claim_lines(chart, document)
    page = f"# {chart.name}\n\n{_listed(lines)}\n\n{table.to_markdown()}\n"
    texts = {f"{chart.name}.json": _json(document), f"{chart.name}.md": page}
    written = write_figure(figure, folder, chart.name)
    return (
        table,
        lines,
        [*written, *write_texts(folder, texts)],
    )


def _reasons(found: BenchResults) -> str:
    return "; ".join(dict.fromkeys(str(entry["reason"]) for entry in found.left_out)) or "no results"


def _claim_lines(chart: BarChart, document: dict[str, Any]) -> list[str]:
    return [
        line
        for claim in CLAIMS[chart.name]
        for line in (f"The supplementary: {claim.says}", f"Here: {claim.measured(document)}.")
    ]


def _beside_paper(chart: BarChart, found: BenchResults) -> Table:
    """Times and speed-ups as measured here, and as published."""
    columns = ("", "retention", "TTFT here (ms)", "speed-up here", "published TTFT (ms)", "published speed-up")
    published = {(row.method, row.retention): row.ttft for row in published_rows(chart.model)}
    whole = published[BASELINE, 1.0]
    cells = []
    for result in found.results:
        reference = found.reference(result.asked)
        ttft = published.get((result.label, 1.0 if result.is_reference else result.retention or 0.0))
        cells.append((
            _row_name(result),
            "-" if result.retention is None or result.is_reference else f"{result.retention:.0%}",
            f"{result.ttft:.1f}",
            "-" if reference is None else f"{reference.ttft / result.ttft:.2f}x",
            "-" if ttft is None else f"{ttft:.1f}",
            "-" if ttft is None or whole is None else f"{whole / ttft:.2f}x",
        ))  # fmt: skip
    title = f"{chart.name}: measured here ({found.model['name']}), and {SETTING} ({chart.model})"
    return Table(title=title, columns=columns, right=columns[1:], cells=tuple(cells))


def _row_name(result: Result) -> str:
    name = display_name(result.label)
    return f"{name}, {result.attention}" if result.is_reference else name


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Figure 6, made here.

    Attributes:
        lines: what the supplementary says, and what the clips show.
        files: what was written.
    """

    lines: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def make_sheet(
    qa: VideoQA,
    videos: Sequence[Path],
    folder: Path,
    *,
    method: str,
    sampling: Sampling | None = None,
    on_video: Callable[[str], object] = lambda name: None,
) -> Sheet:
    """Write the attention heat maps of some videos on one sheet.

    Args:
        qa: the model.
        videos: the files.
        folder: an existing folder.
        method: a method that looks at attention; one that merges frames draws those that are left.
        sampling: which frames; ``None``: as many as the model likes.
        on_video: told the name of each video before it is read.

    Raises:
        EarlyTomError: the method does not look at attention, matplotlib is missing, or a file cannot be written.
        VideoError: a video cannot be read.
    """
    chosen = make_method(method)
    maps = []
    for path in videos:
        on_video(path.name)
        answer = qa.ask(path, "What happens in the video?", method=chosen, sampling=sampling, max_new_tokens=1)
        maps.append(HeatMap.of(path.name, answer.trace.videos[0]))
    unit = "frame" if answer.temporal_grids == answer.frames else "temporal grid"
    figure = draw_heat_maps(maps, unit=unit)
    lines = [f"The supplementary: {FIGURE_6}", *map(_stripe_line, maps)]
    written = write_figure(figure, folder, "figure6")
    text = f"# figure6\n\n{_listed(lines)}\n\nMethod: `{chosen.describe()}`\n"
    return Sheet(lines=lines, files=[*written, *write_texts(folder, {"figure6.md": text})])


def _stripe_line(heat_map: HeatMap) -> str:
    found, (grids, tokens) = find_stripes(heat_map), heat_map.attention.shape
    return (
        f"Here, {heat_map.name}: of {tokens} places {found.steady} are among the {found.strong} strongest in at least "
        f"90% of {grids} rows, and get {found.share:.0%} of all attention."
    )


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"
