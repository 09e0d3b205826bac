"""``earlytom bench``: tables, JSON, files, and wrong usage."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from earlytom.bench import plots
from earlytom.cli import benching
from earlytom.cli.app import app
from earlytom.eval.rows import Row
from video.clips import make_clip

SMALL = (
    "--config", "tiny", "--device", "cpu", "--methods", "earlytom", "--retention", "0.25", "--frames", "4",
    "--repeats", 1, "--warm-ups", 0, "--new-tokens", 2,
)  # fmt: skip
MADE = ("--size", "64x48", "--seconds", 1)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *(str(argument) for argument in arguments)])


def test_tables_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "run"
    result = invoke(*SMALL, *MADE, "--redundant", "0.75", "--output", folder)
    assert result.exit_code == 0, result.stderr
    for words in (
        "model: tiny (random, seed 0",
        "clip: generated, 64x48, 1 s, ",
        "(75% of its time stands still)",
        "runs: 1 of each in turns, after 0 warm-up(s)",
        "Time to first token",
        "The wait from the file to the first token",
        "Peak memory (MiB)",
        "Work up to the first token",
        "none eager",
        "earlytom 25%",
        f"Written: {folder}/bench.json, {folder}/bench.md",
    ):
        assert words in " ".join(result.stdout.split()), words
    written = json.loads((folder / "bench.json").read_text())
    assert written["schema"] == "earlytom.bench/1"
    assert [entry["name"] for entry in written["results"]] == ["none sdpa", "none eager", "earlytom 25%"]
    assert written["settings"]["methods"] == ["earlytom"]
    assert written["settings"]["retentions"] == [0.25]
    assert written["settings"]["question_tokens"] == 38
    assert (folder / "bench.md").read_text().startswith("# Time, memory and work")
    for name in ("ttft", "wait", "throughput"):
        assert (folder / f"{name}.svg").stat().st_size > 1000
        assert f"{folder}/{name}.png" in " ".join(result.stdout.split())


def test_accuracy_of_an_evaluation_fills_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {field.name: 0 for field in dataclasses.fields(Row)} | {"skill": "all", "form": "any", "mix": "even"}
    rows = [
        row | {"method": "none", "retention": 1.0, "accuracy": 0.9},
        row | {"method": "earlytom", "retention": 0.25, "accuracy": 0.8},
        row | {"method": "earlytom", "retention": 0.25, "accuracy": 0.1, "skill": "colour"},
        row | {"method": "tome", "retention": 0.25, "accuracy": 0.2},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "write_plots", lambda document, folder, accuracy: drawn.append(accuracy) or [])
    result = invoke(*SMALL, *MADE, "--output", tmp_path, "--accuracy", tmp_path / "rows.json")
    assert result.exit_code == 0, result.stderr
    assert drawn == [{"none sdpa": 90.0, "none eager": 90.0, "earlytom 25%": 80.0}]


@pytest.mark.parametrize("text", ["{}", "[1]", "[{}]", "no json", None])
def test_what_are_no_rows_is_an_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "rows.json").write_text(text)
    result = invoke(*SMALL, *MADE, "--accuracy", tmp_path / "rows.json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "row" in result.stderr


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("accuracy", None, "accuracy must be a finite number, got None"),
        ("accuracy", "x", "accuracy must be a finite number, got 'x'"),
        ("accuracy", [1], r"accuracy must be a finite number, got [1]"),
        ("accuracy", float("nan"), "accuracy must be a finite number, got nan"),
        ("method", ["a"], "method must be a text, got ['a']"),
        ("retention", "half", "retention must be a finite number or null, got 'half'"),
    ],
)
def test_rows_of_wrong_types_are_an_error_before_anything_runs(tmp_path: Path, field, value, told) -> None:
    row = {one.name: 0 for one in dataclasses.fields(Row)} | {"method": "none", "skill": "all", "form": "any"}
    (tmp_path / "rows.json").write_text(json.dumps([row | {field: value}]))
    result = invoke(*SMALL, *MADE, "--accuracy", tmp_path / "rows.json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert told in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", [(), ("roofline",), ("load",)])
def test_a_folder_that_cannot_be_made_is_told_before_a_model_is(command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(benching, "build_configured", lambda *arguments: pytest.fail("built"))
    (tmp_path / "file").write_text("no folder")
    result = invoke(*command, "--config", "tiny", "--output", tmp_path / "file")
    assert result.exit_code == 1
    assert "cannot be written" in " ".join(result.stderr.split())


def test_a_folder_in_which_nothing_can_be_written_is_told_before_a_model_is(tmp_path: Path, monkeypatch) -> None:
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(benching, "build_configured", lambda *arguments: pytest.fail("built"))
    monkeypatch.setattr("earlytom.bench.files.TemporaryFile", refuse)
    result = invoke("--config", "tiny", "--output", tmp_path)
    assert result.exit_code == 1
    assert "cannot be written: Permission denied" in " ".join(result.stderr.split())


def test_frames_near_and_a_budget_of_tokens(shared_model: Any, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", count=240, options={"g": "12", "bf": "0", "sc_threshold": "0"})
    result = invoke(*SMALL[4:], "--video", path, "--near", 0.5, "--max-tokens", 80, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["settings"]["near"], found["settings"]["max_tokens"]) == (0.5, 80)
    assert all(entry["tokens"]["uncompressed"] == 72 for entry in found["results"])


def test_json_of_the_shipped_model_and_a_video_is_all_of_stdout(shared_model: Any, clip: Path) -> None:
    result = invoke(*SMALL[4:], "--video", clip, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["model"]["weights"] == "checkpoint"
    assert found["model"]["name"] == "the test model"
    assert (found["clip"]["kind"], found["clip"]["name"]) == ("file", clip.name)
    assert found["clip"]["redundant_share_asked"] is None
    plain, _, compressed = found["results"]
    assert compressed["tokens"]["visual"] * 4 == plain["tokens"]["visual"]
    assert compressed["milliseconds"]["wait"]["median"] > compressed["milliseconds"]["ttft"]["median"]


def test_a_preset_goes_to_the_methods_that_have_presets() -> None:
    texts = ["earlytom", "visionzip", "earlytom:preset=fast", "earlytom:ema=0.5", "earlytom+visionzip"]
    assert benching.with_preset(texts, None) == texts
    assert benching.with_preset(texts, "quality") == [
        "earlytom:preset=quality",
        "visionzip",
        "earlytom:preset=fast",
        "earlytom:ema=0.5,preset=quality",
        "earlytom+visionzip:preset=quality",
    ]


def test_what_does_not_fit_the_model_is_noted() -> None:
    shares = ("--methods", "fastv:layer=2", "--retention", "0.25,0.75")
    result = invoke(*SMALL[:4], *shares, *SMALL[8:], *MADE, "--json")
    assert result.exit_code == 0, result.stderr
    assert "left out: fastv" in " ".join(result.stderr.split())
    names = [entry["name"] for entry in json.loads(result.stdout)["results"]]
    assert names == ["none sdpa", "none eager", "fastv:layer=2 75%"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "tiny", "--model", "somewhere"), "cannot be given together with --model"),
        (("--config", "gpt"), "unknown configuration 'gpt'"),
        (("--frames", "8,none"), "must be integers of at least 1"),
        (("--retention", "1.5"), "must be shares above 0"),
        (("--methods", "nothing"), "unknown method 'nothing'"),
        (("--size", "64"), "two numbers joined by x, got '64'"),
        (("--size", "65x48"), "width is an even number"),
        (("--redundant", "2"), "from 0 to 1"),
        (("--video", "missing.mp4"), "missing.mp4: no such file"),
        (("--video", "missing.mp4", "--redundant", "0.5"), "is of the generated video; leave --video out"),
    ],
)
def test_wrong_usage_is_told_before_anything_runs(arguments, message) -> None:
    result = invoke(*arguments)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_frames_that_a_short_clip_lacks_are_told_and_drawn_once(
    shared_model: Any, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "write_plots", lambda document, folder, accuracy: drawn.append(document) or [])
    arguments = ("--methods", "earlytom", "--retention", "0.25", "--repeats", 1, "--warm-ups", 0, "--new-tokens", 1)
    result = invoke(*arguments, "--frames", "12,32,64", "--video", clip, "--output", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "24 of 64 asked for" in (tmp_path / "bench.md").read_text()
    written = json.loads((tmp_path / "bench.json").read_text())
    told = [(one["frames"], one["frames_asked"]) for one in written["results"][::3]]
    assert told == [(12, 12), (24, 32), (24, 64)]
    assert [(one["frames"], one["name"]) for one in drawn[0]["results"]] == [
        (frames, name) for frames in (12, 24) for name in ("none sdpa", "none eager", "earlytom 25%")
    ]
    assert str(tmp_path) not in json.dumps(written["environment"])
