"""``earlytom inspect``: text, JSON, picture."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from earlytom.cli.app import app


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_text_tells_merging_and_selection(clip: Path, shared_model: Any) -> None:
    result = invoke("inspect", clip, "--retention", "0.1")
    assert result.exit_code == 0, result.stderr
    for words in (
        "24 frames at 12 frames a second, read with pyav",
        "16 frames sampled: 0, 1, 3,",
        "Method: earlytom:retention=0.1",
        "Frame merging",
        "tau_seg",
        "Frames that are left",
        "dynamic",
        "Kept 58 of 576 visual tokens (10.1%), budget 58",
        "6 x 6 tokens a frame",
        "--output FILE.png",
    ):
        assert words in result.stdout, words


def test_json_counts_add_up(clip: Path, shared_model: Any) -> None:
    result = invoke("inspect", clip, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    (video,) = document["videos"]
    assert len(document["kept_tokens"]) == video["frames_left"] == len(video["sources"])
    assert [len(kept) for kept in document["kept_tokens"]] == video["selection"]["tokens_per_frame"]
    assert sum(map(len, document["kept_tokens"])) == video["tokens"] == video["budget"] == 144
    assert video["merges"][0]["frames_before"] == 16
    assert video["merges"][-1]["frames_after"] == video["frames_left"]
    assert document["picture"] is None


def test_stepping_aside_is_explained(clip: Path, shared_model: Any, tmp_path: Path) -> None:
    result = invoke("inspect", clip, "--frames", "1", "-o", tmp_path / "one.png")
    assert result.exit_code == 0, result.stderr
    assert "Left uncompressed: a clip of one frame has no redundant frames." in result.stdout
    assert "Kept 36 of 36 visual tokens" in result.stdout
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_merging_inside_the_language_model_is_shown(clip: Path, shared_model: Any) -> None:
    result = invoke("inspect", clip, "--frames", "8", "--method", "earlytom:inner_merging=true,inner_layer=3")
    assert result.exit_code == 0, result.stderr
    # 72 kept tokens and the newline embedding
    assert "Inside the language model, before layer 3: 73 -> 36 visual tokens" in result.stdout


def test_the_picture_is_written(clip: Path, shared_model: Any, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "clip.png"
    result = invoke("inspect", clip, "--output", path)
    assert result.exit_code == 0, result.stderr
    assert f"Picture: {path}" in result.stdout
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 1820


def test_picture_errors(clip: Path, shared_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke("inspect", clip, "--output", tmp_path / "clip.jpg").exit_code == 2
    result = invoke("inspect", clip, "--frames", "4", "--output", tmp_path / "missing" / "clip.png")
    assert result.exit_code == 1
    assert "cannot be written: No such file or directory" in result.stderr
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    result = invoke("inspect", clip, "--output", tmp_path / "clip.png")
    assert result.exit_code == 1
    assert "pip install earlytom[eval]" in result.stderr
