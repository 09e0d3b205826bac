"""``earlytom bench``: tables, JSON, files, and wrong usage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from earlytom.cli import bench
from earlytom.cli.app import app

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
    assert bench.with_preset(texts, None) == texts
    assert bench.with_preset(texts, "quality") == [
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
