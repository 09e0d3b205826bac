"""``earlytom bench roofline`` and ``load``: tables, JSON, files, and wrong usage."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from earlytom.bench import ceilings
from earlytom.cli import bench
from earlytom.cli.app import app
from earlytom.errors import EarlyTomError
from earlytom.runtime.pipeline import VideoQA

QUICK = ("--config", "tiny", "--frames", 4, "--device", "cpu")
ROOFLINE = ("roofline", *QUICK, "--repeats", 1, "--warm-ups", 0, "--decoding-steps", 2)
LOAD = ("load", *QUICK, "--callers", "1,2", "--requests", 1, "--rounds", 1, "--new-tokens", 2)


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = partial(ceilings.measure_ceilings, side=64, copied=1 << 16, repeats=1)
    monkeypatch.setattr(ceilings, "measure_ceilings", quick)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_roofline_tells_and_keeps_every_stage(clip: Path, tmp_path: Path) -> None:
    result = invoke(*ROOFLINE, "--video", clip, "--retention", "0.25", "--output", tmp_path / "kept")
    assert result.exit_code == 0, result.stderr
    shown = " ".join(result.stdout.split())
    for words in (
        "model: tiny (random, seed 0)",
        "clip: clip.mp4, 4 frames",
        "64 x 64 by 64 x 64, float32",
        "Stages of none sdpa",
        "Stages of earlytom 25%",
        "x bound",
        "decoding",
        f"Written: {tmp_path}/kept/roofline.json, {tmp_path}/kept/roofline.md",
    ):
        assert words in shown, words
    kept = json.loads((tmp_path / "kept/roofline.json").read_text())
    assert kept["schema"] == "earlytom.roofline/1"
    assert [found["name"] for found in kept["results"]] == ["none sdpa", "earlytom 25%"]
    assert kept["settings"]["decoding_steps"] == 2
    assert kept["model"]["weights"] == "random, seed 0"
    assert kept["clip"]["kind"] == "file"
    page = (tmp_path / "kept/roofline.md").read_text()
    assert "# Roofline\n" in page
    assert "## Stages of earlytom 25%\n" in page
    assert "- command: `" in page
    assert str(clip) not in json.dumps(kept["clip"])


def test_roofline_of_the_test_model_as_json(shared_model, clip: Path) -> None:
    options = ("--frames", 4, "--repeats", 1, "--warm-ups", 0, "--methods", "visionzip,earlytom", "--json")
    result = invoke("roofline", *options, "--video", clip)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [one["name"] for one in found["results"]] == ["none sdpa", "visionzip 10%", "earlytom 10%"]
    assert found["model"]["name"] == "the test model"


@pytest.mark.parametrize("turns", [False, True])
def test_load_tells_rates_and_percentiles(clip: Path, tmp_path: Path, turns: bool) -> None:
    result = invoke(*LOAD, *["--turns"] * turns, "--video", clip, "--output", tmp_path)
    assert result.exit_code == 0, result.stderr
    for words in ("requests/s", "TTFT p50 ms", "none sdpa", "earlytom 10%", "load.md"):
        assert words in " ".join(result.stdout.split()), words
    kept = json.loads((tmp_path / "load.json").read_text())
    assert (kept["schema"], kept["settings"]["turns"]) == ("earlytom.load/1", turns)
    assert [(level["name"], level["concurrency"], level["requests"]) for level in kept["results"]] == [
        ("none sdpa", 1, 1), ("earlytom 10%", 1, 1), ("none sdpa", 2, 2), ("earlytom 10%", 2, 2),
    ]  # fmt: skip
    assert all(0 < level["ttft"]["p50"] <= level["ttft"]["p99"] for level in kept["results"])
    assert kept["environment"]["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("command", [ROOFLINE, LOAD], ids=["roofline", "load"])
def test_budget_near_frames_and_preset_are_passed_on(command, clip: Path, tmp_path: Path) -> None:
    options = ("--max-tokens", 33, "--near", 0.25, "--preset", "fast", "--methods", "earlytom,visionzip")
    result = invoke(*command, *options, "--retention", 0.5, "--video", clip, "--output", tmp_path)
    assert result.exit_code == 0, result.stderr
    kept = json.loads((tmp_path / f"{command[0]}.json").read_text())
    settings = kept["settings"]
    assert (settings["frames"], settings["near"], settings["max_tokens"], settings["preset"]) == (4, 0.25, 33, "fast")
    assert (kept["clip"]["temporal_grids"], kept["clip"]["visual_tokens"]) == (2, 32)
    if command is ROOFLINE:
        methods = {found["name"]: found["method"] for found in kept["results"]}
        assert "preset=fast" in methods["earlytom:preset=fast 50%"]
    assert f"clip: clip.mp4, 4 frames, {kept['clip']['visual_tokens']} visual tokens" in " ".join(result.stdout.split())


@pytest.mark.parametrize("near", [0.0, 0.5])
def test_how_far_frames_are_off_stands_in_the_clip(near: float, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = VideoQA.read

    def moved(self, source, sampling, **options):
        video = read(self, source, sampling, **options)
        return dataclasses.replace(video, deviations=(0.0, -0.5, 0.25, 0.25) if sampling.near else ())

    monkeypatch.setattr(VideoQA, "read", moved)
    result = invoke(*LOAD, "--near", near, "--video", clip, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["clip"]["deviation"] == ({"mean": 0.25, "largest": 0.5} if near else None)


@pytest.mark.parametrize("name", ["roofline", "load"])
def test_frames_are_near_where_that_was_asked_for(name: str, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the clip is read with."""
    asked = []

    def read(self, source, sampling=None, **options):
        asked.append(sampling)
        raise EarlyTomError("far enough")

    monkeypatch.setattr(VideoQA, "read", read)
    result = invoke(name, *QUICK, "--near", 0.25, "--video", clip)
    assert "far enough" in result.stderr
    assert [(sampling.frames, sampling.near) for sampling in asked] == [(4, 0.25)]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("roofline", "--config", "tiny", "--model", "x"), 2, "cannot be given together with --model"),
        (("roofline", "--config", "huge"), 1, "unknown configuration 'huge'"),
        (("roofline", "--video", "nowhere.mp4"), 1, "nowhere.mp4: no such file"),
        (("roofline", "--retention", "2"), 2, "shares above 0 and at most 1"),
        (("roofline", "--methods", "earlytim"), 1, "unknown method 'earlytim'"),
        (("load", "--callers", "2,1"), 2, "must be ascending, got 2,1"),
        (("load", "--callers", "none"), 2, "must be integers of at least 1"),
        (("load", "--requests", "0"), 2, "'--requests'"),
        (("load", "--max-tokens", "0"), 2, "'--max-tokens'"),
        (("roofline", "--near", "0.6"), 2, "'--near'"),
        (("roofline", "--preset", "fastest"), 1, "fastest"),
    ],
)
def test_slips_are_told_before_a_model_is_made(
    options, code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.session, "load_model", lambda choice: pytest.fail("loaded"))
    result = invoke(*options)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
