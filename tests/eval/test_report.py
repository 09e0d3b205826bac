"""Rows as tables and files."""

from __future__ import annotations

import dataclasses
import json

import pytest

from earlytom.errors import EarlyTomError
from earlytom.eval.report import form_table, read_report, skill_table, summary_table, to_markdown, write_report
from earlytom.eval.rows import Row

PLAIN = Row(
    method="none",
    retention=1.0,
    skill="all",
    form="any",
    n=40,
    clips=5,
    accuracy=0.925,
    low=0.85,
    high=0.98,
    chance=0.3,
    visual_tokens=576.0,
    tokens_per_layer=576.0,
    frames_left=16.0,
    ttft=0.05,
)
SHORT = dataclasses.replace(
    PLAIN,
    method="earlytom:compat=official",
    retention=0.25,
    accuracy=0.9,
    ttft=None,
    visual_tokens=144.0,
    tokens_per_layer=144.0,
    frames_left=9.25,
    difference=-0.025,
    difference_low=-0.05,
    difference_high=0.01,
    p_value=0.0001,
    over_random=0.03,
    over_random_low=0.01,
    over_random_high=0.05,
)
ROWS = [row for plain in (PLAIN, SHORT) for row in (plain, dataclasses.replace(plain, skill="colour", n=12))]
LETTERS = [dataclasses.replace(row, form=form) for row in (PLAIN, SHORT) for form in ("free", "letters")]


def test_the_summary_has_one_line_a_method() -> None:
    table = summary_table(ROWS + LETTERS)
    assert table.cells == (
        ("none", "1", "92.5 [85.0, 98.0]", "-", "-", "-", "576", "576", "16.0", "50.0"),
        (
            *("earlytom:compat=official", "0.25", "90.0 [85.0, 98.0]", "-2.5 [-5.0, +1.0]", "<0.001"),
            *("+3.0 [+1.0, +5.0]", "144", "144", "9.2", "-"),
        ),
    )
    assert len(table.columns) == 10


def test_skills_stand_beside_their_number_of_questions_and_chance() -> None:
    table = skill_table(ROWS)
    assert table.columns == ("method", "retention", "all", "colour")
    assert table.cells[0] == ("questions", "", "40", "12")
    assert table.cells[1] == ("chance", "", "30.0", "30.0")
    assert table.cells[3] == ("earlytom:compat=official", "0.25", "90.0", "90.0")
    assert skill_table(ROWS, intervals=True).cells[2][2] == "92.5 [85.0, 98.0]"


def test_forms_have_a_table_only_where_there_are_two() -> None:
    assert form_table(ROWS) is None
    table = form_table(ROWS + LETTERS)
    assert table is not None
    assert table.columns == ("method", "retention", "free (n = 40)", "letters (n = 40)")
    assert table.cells[1] == ("earlytom:compat=official", "0.25", "90.0 [85.0, 98.0]", "90.0 [85.0, 98.0]")


def test_markdown_holds_everything() -> None:
    text = to_markdown(ROWS + LETTERS, [("model", "tiny"), ("clips", "5")])
    for words in (
        "# What compression costs",
        "- model: tiny\n- clips: 5",
        "## Accuracy and cost",
        "| none | 1 | 92.5 [85.0, 98.0] | - | - | - | 576 | 576 | 16.0 | 50.0 |",
        "## Accuracy by skill (%)",
        "## Difference from no compression",
        "| earlytom:compat=official | 0.25 | colour | 12 | -2.5 [-5.0, +1.0] | <0.001 |",
        "## Accuracy by form of question",
    ):
        assert words in text, words
    assert text.endswith("|\n")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)
    assert "Difference" not in to_markdown(ROWS[:2], []).replace("Differences are", "")


def test_files_are_written_and_read_back(tmp_path) -> None:
    rows, report = write_report(tmp_path, ROWS, [("model", "tiny")])
    assert [Row.from_dict(entry) for entry in json.loads(rows.read_text())] == ROWS
    assert report.read_text() == to_markdown(ROWS, [("model", "tiny")])
    with pytest.raises(EarlyTomError, match=r"rows\.json: cannot be written: No such file"):
        write_report(tmp_path / "missing", ROWS, [])


def test_a_report_is_read_back_with_what_was_run(tmp_path) -> None:
    about = [("model", "tiny: with a colon"), ("data", "5 clips of seed 0")]
    write_report(tmp_path, ROWS, about)
    assert read_report(tmp_path) == (ROWS, about)
    (tmp_path / "report.md").write_text("# Another text\n")
    with pytest.raises(EarlyTomError, match=r"report\.md: does not tell what was run"):
        read_report(tmp_path)
    (tmp_path / "report.md").unlink()
    with pytest.raises(EarlyTomError, match=r"report\.md: cannot be read as a report: .*No such file"):
        read_report(tmp_path)
