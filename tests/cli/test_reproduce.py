"""``earlytom reproduce``: files, text, errors."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("matplotlib")

from earlytom.bench.reproduce import BARS
from earlytom.cli.app import app


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


def test_a_sheet_of_videos(clip: Path, shared_model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "sheet"
    result = invoke("figure6", clip, clip, "--frames", "4", "--output", folder)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["figure6.md", "figure6.png", "figure6.svg"]
    assert result.stdout.count("Here, clip.mp4: of 36 places") == 2
    assert "90% of 4 rows" in result.stdout
    assert f"Written: {folder / 'figure6.svg'}" in result.stdout


def test_bars_of_a_tiny_model(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BARS, "figure8", dataclasses.replace(BARS["figure8"], retentions=(0.1,)))
    options = ("--config", "tiny", "--device", "cpu", "--video", clip, "--frames", "2", "--repeats", "1")
    result = invoke("figure8", *options, "--output", tmp_path)
    assert result.exit_code == 0, result.stderr
    names = ["figure8.json", "figure8.md", "figure8.png", "figure8.svg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    document = json.loads((tmp_path / "figure8.json").read_text())
    names = [entry["name"] for entry in document["results"]]
    assert names == ["none sdpa", "none eager", "visionzip 10%", "holitom 10%", "earlytom 10%"]
    assert document["settings"]["methods"] == ["visionzip", "holitom", "earlytom"]
    assert document["clip"]["name"] == "clip.mp4"
    assert "The supplementary: HoliTom is slower than the plain model: 0.90x at 10%." in result.stdout
    assert "measured here (tiny)" in result.stdout


def test_the_paper_s_flops_of_one_model() -> None:
    result = invoke("flops", "--config", "llava-onevision-0.5b")
    assert result.exit_code == 0, result.stderr
    assert "llava-onevision-0.5b, TFLOP" in result.stdout
    assert "45.3" in result.stdout
    assert "llava-video-7b" not in result.stdout
    assert "no table for 'tiny'" in invoke("flops", "--config", "tiny").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("figure6", "missing.mp4"), "missing.mp4: no such file"),
        (("figure7", "--video", "missing.mp4"), "missing.mp4: no such file"),
        (("figure7", "--config", "nothing"), "unknown configuration 'nothing'"),
        (("figure6", "--method", "nothing"), "unknown method 'nothing'"),
    ],
)
def test_slips_are_told_before_anything_long(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = invoke(*arguments, "--output", tmp_path / "folder")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "folder").exists()


def test_without_matplotlib_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for figure in ("figure6", "figure7", "figure8"):
        result = invoke(figure)
        assert result.exit_code == 1
        assert "pip install earlytom[eval]" in result.stderr
