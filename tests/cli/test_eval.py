"""``earlytom eval testbed``: tables, JSON, files, going on, and wrong usage."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from earlytom.cli.app import app
from earlytom.eval import runner
from earlytom.eval.mixes import MIXES
from earlytom.eval.rows import Row
from earlytom.testbed.series import SERIES

SMALL = ("--clips", 2, "--skills", "count,colour", "--source", "frames", "--retention", "0.25", "--no-controls")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", "testbed", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results") / "run"


def test_tables_and_files(shared_model: Any, folder: Path) -> None:
    result = invoke(*SMALL, "--output", folder)
    assert result.exit_code == 0, result.stderr
    for words in (
        "model: the test model that comes with the package",
        "data: 2 clips of seed 0, straight from the generator, 16 frames each",
        "Accuracy and cost",
        "Accuracy by skill",
        "chance",
        "earlytom",
        "95% intervals",
        "TTFT runs from generate()",
        f"Written: {folder}/rows.json, {folder}/report.md, {folder}/accuracy.png, {folder}/ttft.png",
    ):
        assert words in " ".join(result.stdout.split()), words
    rows = [Row.from_dict(row) for row in json.loads((folder / "rows.json").read_text())]
    assert [(row.method, row.skill) for row in rows if row.form == "any"] == [
        (method, skill) for method in ("none", "earlytom") for skill in ("all", "colour", "count")
    ]
    assert "## Accuracy and cost" in (folder / "report.md").read_text()
    for picture in ("accuracy", "ttft", "front"):
        assert (folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{picture}.svg").read_bytes().startswith(b"<?xml")


def test_json_goes_on_from_the_folder_and_is_all_of_stdout(
    shared_model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records of the test before are there already, so no clip is drawn again."""
    monkeypatch.setattr(runner, "make_task", lambda benchmark, clip: pytest.fail("drawn again"))
    result = invoke(*SMALL, "--output", folder, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == json.loads((folder / "rows.json").read_text())


def test_another_mix_is_reported_from_the_same_records(
    shared_model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "make_task", lambda benchmark, clip: pytest.fail("drawn again"))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    result = invoke(*SMALL, "--output", folder, "--mix", "benchmarks")
    assert result.exit_code == 0, result.stderr
    words = " ".join(result.stdout.split())
    assert "mix: benchmarks, weights colour 5, shape 5, brief 3, order 4, count 2, direction 1, position 1" in words
    assert f"Written: {folder}/rows_benchmarks.json, {folder}/report_benchmarks.md" in words
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before} == before
    found, even = (
        {row["skill"]: row for row in json.loads((folder / name).read_text()) if row["form"] == "any"}
        for name in ("rows_benchmarks.json", "rows.json")
    )
    mean = (5 * even["colour"]["accuracy"] + 2 * even["count"]["accuracy"]) / 7
    assert found["all"]["accuracy"] == pytest.approx(mean, abs=2e-6)
    assert {"accuracy_benchmarks.png", "ttft_benchmarks.png"} <= {path.name for path in folder.iterdir()}


def test_another_seed_in_the_same_folder_is_refused(shared_model: Any, folder: Path) -> None:
    result = invoke(*SMALL, "--output", folder, "--seed", 1)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "holds results of a run with other settings: seed is 0 there, 1 now" in result.stderr


def test_through_files_without_a_folder(shared_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(
        "--clips", 1, "--skills", "colour", "--form", "free", "--frames", 8, "--retention", 1, "--no-controls",
        "--methods", "earlytom:ema=0.5,retention=0.5", "--methods", "none,earlytom:max_window=4", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [(row["method"], row["retention"], row["visual_tokens"]) for row in rows if row["skill"] == "all"] == [
        ("none", 1.0, 288.0),
        ("earlytom:ema=0.5", 0.5, 144.0),
        ("earlytom:max_window=4", 1.0, 288.0),
    ]
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_tokens_instead_of_retentions(shared_model: Any, tmp_path: Path) -> None:
    result = invoke(
        "--clips", 1, "--skills", "colour", "--form", "free", "--frames", 8, "--source", "frames", "-o", tmp_path,
        "--methods", "earlytom,visionzip:retention=0.5", "--visual-tokens", "100,30", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    rows = {row["method"]: row for row in json.loads(result.stdout) if row["skill"] == "all"}
    assert {name: (row["retention"], row["visual_tokens"]) for name, row in rows.items()} == {
        "none": (1.0, 288.0),
        "visionzip": (0.5, 144.0),
        **{f"{name}:visual_tokens={number}": (None, float(number))
           for name in ("earlytom", "random", "uniform", "average-pooling") for number in (100, 30)},
    }  # fmt: skip
    assert rows["earlytom:visual_tokens=30"]["over_random"] is not None
    assert "| earlytom:visual_tokens=30 | - |" in (tmp_path / "report.md").read_text()
    assert {"accuracy.png", "ttft.png"} <= {path.name for path in tmp_path.iterdir()}


def test_a_series_gives_its_number_of_frames_and_asks_for_its_skills(shared_model: Any, tmp_path: Path) -> None:
    arguments = ("--clips", 1, "--form", "free", "--source", "frames", "--retention", "0.25", "--no-controls")
    result = invoke(*arguments, "--clips-of", "long", "-o", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "data: 1 clips of series long, seed 0, straight from the generator, 32 frames each" in result.stdout
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["visual_tokens"] for row in rows if row["method"] == "none"} == {32 * 36}
    assert {row["skill"] for row in rows} <= {"all", *SERIES["long"].skills}
    assert json.loads((tmp_path / "run.json").read_text())["clips_of"] == "long"
    refused = invoke(*arguments, "--frames", 32, "-o", tmp_path)
    assert refused.exit_code == 1
    assert "clips_of is 'long' there, None now" in refused.stderr


def test_without_matplotlib_everything_else_is_written(
    shared_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    result = invoke("--clips", 1, "--skills", "colour", "--source", "frames", "--retention", "0.25", "-o", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "pip install earlytom[eval]; rows and report will be written, the plot will not" in result.stderr
    assert {"rows.json", "report.md"} < {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "accuracy.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--retention", "0.25,2"), 2, "above 0 and at most 1"),
        (("--retention", "much"), 2, "above 0 and at most 1"),
        (("--retention", ","), 2, "above 0 and at most 1"),
        (("--visual-tokens", "64,0"), 2, "must be integers of at least 1"),
        (("--visual-tokens", "0.5"), 2, "must be integers of at least 1"),
        (("--visual-tokens", ","), 2, "must be integers of at least 1"),
        (("--visual-tokens", "64", "--retention", "0.25,0.10"), 2, "cannot be given together with --retention"),
        (("--visual-tokens", "64", "--methods", "dycoke"), 1, "method 'dycoke' takes no visual_tokens"),
        (("--skills", "smell"), 2, "must be some of colour"),
        (("--clips-of", "odd"), 2, "series of clips must be one of usual"),
        (("--mix", "odd"), 2, "mix must be one of even, benchmarks, got 'odd'"),
        (("--clips", 0), 2, "--clips"),
        (("--seed", -1), 2, "--seed"),
        (("--form", "long"), 2, "--form"),
        (("--source", "film"), 2, "--source"),
        (("--methods", "nonsense"), 1, "unknown method 'nonsense'"),
        (("--methods", "earlytom,ema=0.5"), 1, "write earlytom:ema=0.5"),
    ],
)
def test_wrong_usage_is_told_before_a_model_is_loaded(
    arguments: tuple[object, ...], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from earlytom.cli import session

    monkeypatch.setattr(session, "load_model", lambda choice: pytest.fail("loaded"))
    result = invoke(*arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


def test_clips_without_a_fitting_question_are_told(shared_model: Any) -> None:
    from earlytom.eval.tasks import Benchmark

    brief = Benchmark(skills=("brief",), form="letters")
    seed = next(seed for seed in range(50) if not Benchmark(**{**vars(brief), "seed": seed}).questions(0))
    result = invoke("--clips", 1, "--skills", "brief", "--form", "letters", "--seed", seed)
    assert result.exit_code == 1
    assert "there is no question of the skills and the form that were asked for" in result.stderr


def test_help_says_what_is_measured() -> None:
    text = " ".join(invoke("--help").stdout.split())
    for words in ("--methods", "--retention", "--skills", "--form", "--source", "--output", "--json", "McNemar"):
        assert words in text
    assert CliRunner().invoke(app, ["eval", "--help"]).stdout.count("testbed") >= 1
    assert all(name in text for name in (*SERIES, *MIXES))
