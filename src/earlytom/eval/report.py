"""Rows as tables, for a terminal and as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from earlytom.bench.tables import Table
from earlytom.errors import EarlyTomError, shortened, shown_cause
from earlytom.eval.mixes import EVEN
from earlytom.eval.rows import ALL, ANY, Row, read_rows

__all__ = [
    "NOTES",
    "Table",
    "file_name",
    "form_table",
    "notes",
    "read_report",
    "skill_table",
    "summary_table",
    "to_markdown",
    "write_report",
]

_ROWS, _REPORT = "rows.json", "report.md"
_FACT = re.compile(r"- (?P<name>[^:\n]+): (?P<value>.+)")
_EVEN_MEAN = "Accuracy over all skills is the mean of the skills'."
_MIXED_MEAN = "Accuracy over all skills is the mean of the skills', weighed by the mix."

NOTES = (
    "Brackets: 95% intervals from resampled clips. Differences are against method none on the same questions, in "
    "points; p is McNemar's exact test over all of them. Over random: the same against as many tokens at random. "
    f"{_EVEN_MEAN} Tokens: visual tokens that go into the language model; a "
    "layer: how many of them its layers work on, on average; frames: of those sampled, how many come out of the vision "
    "encoder (a pair that it takes as one counts as two). TTFT is the median of single questions."
)


def notes(rows: Sequence[Row]) -> str:
    """What the tables of these rows mean: `NOTES`, and how the skills are averaged."""
    return NOTES if _mix(rows) == EVEN else NOTES.replace(_EVEN_MEAN, _MIXED_MEAN)


def file_name(name: str, rows: Sequence[Row]) -> str:
    """Where rows of a mix are written: under ``name`` if it is ``even``, else as in ``rows_benchmarks.json``."""
    stem, dot, suffix = name.partition(".")
    return name if _mix(rows) == EVEN else f"{stem}_{_mix(rows)}{dot}{suffix}"


def _mix(rows: Sequence[Row]) -> str:
    return rows[0].mix if rows else EVEN


def summary_table(rows: Sequence[Row]) -> Table:
    """One line a method and retention: accuracy over all skills, what it costs and what it saves."""
    columns = (
        "method",
        "retention",
        "accuracy (%)",
        "difference",
        "p",
        "over random",
        "tokens",
        "a layer",
        "frames",
        "TTFT (ms)",
    )
    cells = [
        (
            row.method,
            _share(row.retention),
            f"{_percent(row.accuracy)} {_span(row.low, row.high)}",
            _difference(row.difference, row.difference_low, row.difference_high),
            "-" if row.p_value is None else _p_value(row.p_value),
            _difference(row.over_random, row.over_random_low, row.over_random_high),
            f"{row.visual_tokens:.4g}",
            f"{row.tokens_per_layer:.4g}",
            f"{row.frames_left:.1f}",
            "-" if row.ttft is None else f"{row.ttft * 1000:.1f}",
        )
        for row in rows
        if (row.skill, row.form) == (ALL, ANY)
    ]
    return Table(title="Accuracy and cost", columns=columns, right=columns[1:], cells=tuple(cells))


def skill_table(rows: Sequence[Row], *, intervals: bool = False) -> Table:
    """Accuracy of every method and retention in every skill, in percent."""
    mine = [row for row in rows if row.form == ANY]
    skills = list(dict.fromkeys(row.skill for row in mine))
    variants = list(dict.fromkeys((row.method, row.retention) for row in mine))
    found = {(row.method, row.retention, row.skill): row for row in mine}
    first = {skill: found[(*variants[0], skill)] for skill in skills}
    cells = [
        ("questions", "", *(str(first[skill].n) for skill in skills)),
        ("chance", "", *(_percent(first[skill].chance) for skill in skills)),
    ]
    for method, retention in variants:
        chosen = [found[method, retention, skill] for skill in skills]
        accuracies = [_percent(row.accuracy) + (f" {_span(row.low, row.high)}" if intervals else "") for row in chosen]
        cells.append((method, _share(retention), *accuracies))
    columns = ("method", "retention", *skills)
    return Table(title="Accuracy by skill (%)", columns=columns, right=columns[1:], cells=tuple(cells))


def form_table(rows: Sequence[Row]) -> Table | None:
    """Accuracy over all skills for free answers and for letters; ``None`` where there is one form only."""
    mine = [row for row in rows if row.skill == ALL and row.form != ANY]
    if not mine:
        return None
    heads = {row.form: f"{row.form} (n = {row.n})" for row in mine}
    found = {(row.method, row.retention, row.form): row for row in mine}
    cells = []
    for method, retention in dict.fromkeys((row.method, row.retention) for row in mine):
        chosen = [found[method, retention, form] for form in heads]
        accuracies = [f"{_percent(row.accuracy)} {_span(row.low, row.high)}" for row in chosen]
        cells.append((method, _share(retention), *accuracies))
    columns = ("method", "retention", *heads.values())
    return Table(title="Accuracy by form of question (%)", columns=columns, right=columns[1:], cells=tuple(cells))


def write_report(folder: Path, rows: Sequence[Row], about: Sequence[tuple[str, str]]) -> tuple[Path, Path]:
    """Write the rows as JSON and the report as Markdown, under the names of `file_name`; returns both paths.

    Raises:
        EarlyTomError: a file cannot be written.
    """
    rows_path, report_path = (folder / file_name(name, rows) for name in (_ROWS, _REPORT))
    texts = {
        rows_path: json.dumps([row.to_dict() for row in rows], indent=2) + "\n",
        report_path: to_markdown(rows, about),
    }
    for path, text in texts.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise EarlyTomError(f"{path}: cannot be written: {error.strerror or error}") from error
    return rows_path, report_path


def read_report(folder: Path) -> tuple[list[Row], list[tuple[str, str]]]:
    """The rows that `write_report` has written, and the names and values of what was run.

    Raises:
        EarlyTomError: a file cannot be read, or holds something else.
    """
    rows, path = read_rows(folder / _ROWS), folder / _REPORT
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise EarlyTomError(f"{shortened(path)}: cannot be read as a report: {shown_cause(error)}") from error
    about = [(found["name"], found["value"]) for line in text.splitlines() if (found := _FACT.fullmatch(line))]
    if not about:
        raise EarlyTomError(f"{shortened(path)}: does not tell what was run, in lines of '- name: value'")
    return rows, about


def to_markdown(rows: Sequence[Row], about: Sequence[tuple[str, str]]) -> str:
    """The whole report.

    Args:
        rows: of one run.
        about: names and values of what was run, in the order to be shown.
    """
    tables = (summary_table(rows), skill_table(rows, intervals=True), _difference_table(rows), form_table(rows))
    facts = [f"- {name}: {value}" for name, value in about]
    head = ["# What compression costs", "\n".join(facts), notes(rows)]
    return "\n\n".join([*head, *(table.to_markdown() for table in tables if table)]) + "\n"


def _difference_table(rows: Sequence[Row]) -> Table | None:
    """What every method changes in every skill."""
    mine = [row for row in rows if row.form == ANY and row.difference is not None]
    if not mine:
        return None
    columns = ("method", "retention", "skill", "questions", "difference", "p")
    cells = tuple(
        (
            row.method,
            _share(row.retention),
            row.skill,
            str(row.n),
            _difference(row.difference, row.difference_low, row.difference_high),
            _p_value(row.p_value or 0.0),
        )
        for row in mine
    )
    right = ("retention", "questions", "difference", "p")
    return Table(title="Difference from no compression", columns=columns, right=right, cells=cells)


def _share(retention: float | None) -> str:
    return "-" if retention is None else f"{retention:.4g}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _span(low: float, high: float) -> str:
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def _difference(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "-"
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _p_value(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else "<0.001"
