"""Where methods break: tables from rows, and a run of one clip of a series."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from earlytom.eval.rows import Row

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from harder import accuracy_table, break_table, main

PLAIN = Row(
    method="none", retention=1.0, skill="all", form="any", n=40, clips=5, accuracy=0.9, low=0.8, high=1.0, chance=0.25,
    visual_tokens=576.0, tokens_per_layer=576.0, frames_left=16.0, ttft=0.05,
)  # fmt: skip


def lost(skill: str, value: float, low: float, high: float, form: str = "any") -> Row:
    differences = {"difference": value, "difference_low": low, "difference_high": high}
    return dataclasses.replace(PLAIN, method="earlytom", retention=0.1, skill=skill, form=form, **differences)


@pytest.fixture
def rows() -> dict[str, list[Row]]:
    usual = [PLAIN, lost("all", -0.02, -0.05, 0.01), lost("brief", -0.15, -0.3, -0.05)]
    small = [
        PLAIN,
        dataclasses.replace(lost("all", -0.3, -0.4, -0.2), accuracy=0.6),
        lost("count", -0.2, -0.3, -0.11),
        lost("brief", -0.5, -0.7, -0.3),
        lost("brief", -0.6, -0.8, -0.4, form="letters"),
    ]
    return {"usual": usual, "small": small}


def test_accuracies_stand_beside_what_is_there_to_lose(rows: dict[str, list[Row]]) -> None:
    table = accuracy_table(rows)
    assert table.columns == ("method", "retention", "usual", "small")
    assert table.cells == (
        ("no compression (%)", "", "90.0", "90.0"),
        ("chance (%)", "", "25.0", "25.0"),
        ("earlytom", "0.1", "90.0, -2.0 [-5.0, 1.0]", "60.0, -30.0 [-40.0, -20.0]"),
    )


def test_a_method_that_a_series_lacks_has_no_accuracy_there(rows: dict[str, list[Row]]) -> None:
    assert accuracy_table({"usual": rows["usual"], "small": [PLAIN]}).cells[-1][2:] == ("90.0, -2.0 [-5.0, 1.0]", "-")


def test_a_method_breaks_where_it_loses_ten_points_for_sure(rows: dict[str, list[Row]]) -> None:
    assert break_table(rows).cells == (("earlytom", "0.1", "-", "brief -50, count -20"),)


def test_a_run_fills_a_folder_a_series_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output", str(tmp_path), "--clips", "1", "--series", "usual,small", "--form", "free"]
    main([*arguments, "--methods", "earlytom,dycoke:retention=0.1", "--retention", "0.25"])
    report = (tmp_path / "harder.md").read_text()
    assert "- small: " in report
    assert "| earlytom | 0.25 |" in report
    said = capsys.readouterr()
    assert "Breaks in" in said.out
    assert "left out: dycoke:retention=0.1" in said.err
    content = json.loads((tmp_path / "harder.json").read_text())
    assert {row["method"] for row in content["rows"]["small"]} == {"none", "earlytom"}
    before = {path: path.read_bytes() for path in tmp_path.glob("*/records/*")}
    main([*arguments, "--methods", "earlytom", "--retention", "0.25", "--mix", "benchmarks"])
    assert {path: path.read_bytes() for path in tmp_path.glob("*/records/*")} == before
    assert (tmp_path / "harder.md").read_text() == report
    assert {row["mix"] for row in json.loads((tmp_path / "harder_benchmarks.json").read_text())["rows"]["usual"]} == {
        "benchmarks"
    }
