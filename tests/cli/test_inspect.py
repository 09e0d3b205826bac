"""``earlytom inspect``: text, JSON, picture."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from earlytom.cli import session
from earlytom.cli.app import app
from earlytom.methods import METHODS
from earlytom.shipped import shipped_model
from earlytom.video import read_video
from families.processors import video_qa
from video.clips import make_clip


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_text_tells_how_many_cells_went_on(clip: Path, shared_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "some-cells", "cell_methods:SomeCells")
    result = invoke("inspect", clip, "--method", "some-cells:share=0.25", "--retention", "0.1")
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stdout.split())
    assert "9 of the 36 cells of each frame went on behind layer 3 of the vision encoder." in told
    assert "budget 58" in told


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


def test_what_was_scaled_down_is_told(clip: Path, shared_model: Any) -> None:
    width, height = read_video(clip).frames.shape[2:0:-1]
    text = invoke("inspect", clip, "--shrink-to", "32").stdout
    assert f"read with pyav, scaled down from {width}x{height} as decoded" in " ".join(text.split())
    for options, expected in ((("--shrink-to", "32"), [width, height]), ((), None)):
        document = json.loads(invoke("inspect", clip, "--json", *options).stdout)
        assert document["videos"][0]["source"].get("scaled_from") == expected


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
    assert "Left uncompressed: a clip of one frame (or one temporal grid) has no redundant frames." in result.stdout
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


@pytest.fixture(scope="module")
def qwen3_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3-VL as a folder that `from_pretrained` reads."""
    folder, qa = tmp_path_factory.mktemp("models") / "qwen3_vl", video_qa("qwen3_vl")
    qa.model.save_pretrained(folder)
    qa.processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("frames", [16, 9, 2])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_pairs_of_frames_are_told_as_temporal_grids(
    clip: Path, tmp_path: Path, request: pytest.FixtureRequest, family: str, frames: int
) -> None:
    model = shipped_model(family) if family == "qwen2_5_vl" else request.getfixturevalue(family)
    options = ("--model", model, "--device", "cpu", "--frames", frames, "--method", "earlytom:merge_layers=1/3/5")
    path, grids = tmp_path / "clip.png", -(-frames // 2)
    result = invoke("inspect", clip, *options, "--output", path)
    assert result.exit_code == 0, result.stderr
    assert path.stat().st_size > 1000
    assert f"{frames} frames sampled: 0," in result.stdout
    document = json.loads(invoke("inspect", clip, *options, "--json").stdout)
    (video,) = document["videos"]
    assert (video["sampled_frames"], video["temporal_grids"], video["frames"]) == (frames, grids, grids)
    left = video["temporal_grids_left"]
    counts = f"{frames} frames -> {min(2 * left, frames)} ({grids} temporal grids -> {left});"
    assert counts in " ".join(result.stdout.split())
    assert "tokens a temporal grid" in " ".join(result.stdout.split())
    rows = [[part.strip() for part in line.strip("│").split("│")] for line in result.stdout.splitlines()]
    assert "Temporal grids that are left" in result.stdout
    made_of = [", ".join(map(str, sources)) for sources in document["sampled_sources"]]
    assert [row[1] for row in rows if len(row) == 5 and row[0].isdigit()] == made_of
    assert sorted(frame for sources in document["sampled_sources"] for frame in sources) == list(range(frames))
    expected = [{2 * grid, min(2 * grid + 1, frames - 1)} for grid in range(grids)]
    for grid, sources in zip(video["sources"], document["sampled_sources"], strict=True):
        assert set(sources) == set.union(*(expected[number] for number in grid))
    assert not any(words in result.stdout for words in ("Frames that are left", "Frame merging", "tokens a frame"))


def test_one_frame_is_enough_for_every_family(clip: Path, qwen3_vl: Path) -> None:
    result = invoke("inspect", clip, "--model", qwen3_vl, "--device", "cpu", "--frames", "1", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["sampled_sources"] == [[0]]


def test_frames_that_the_processor_refuses_are_one_line(tmp_path: Path, qwen3_vl: Path) -> None:
    path = make_clip(tmp_path / "wide.mp4", count=4, width=1920, height=8)
    result = invoke("inspect", path, "--model", qwen3_vl, "--device", "cpu")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: " in result.stderr
    assert "wide.mp4: the model's processor refuses frames of the shape (4, 8, 1920, 3)" in result.stderr


def test_a_picture_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "load_model", lambda choice: pytest.fail("a model was loaded"))
    (tmp_path / "folder.png").mkdir()
    for path, reason in ((tmp_path / "missing" / "x.png", "No such file"), (tmp_path / "folder.png", "Is a directory")):
        result = invoke("inspect", clip, "--output", path)
        assert result.exit_code == 1
        assert f"{path}: cannot be written: {reason}" in result.stderr


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
