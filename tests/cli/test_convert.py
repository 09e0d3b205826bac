"""``earlytom convert``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import earlytom
from earlytom.cli.app import app
from reference.published_llava_video import make_settings, make_weights, write_checkpoint


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source")


def test_both_ways_of_loading_give_the_same_model(source: Path, tmp_path: Path) -> None:
    done = invoke("convert", source, tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "9 tokens each, average pooling" in done.stdout
    assert "768 positions for 64 frames, newlines included (grid)" in done.stdout
    old, new = (earlytom.VideoQA.load(folder, device="cpu") for folder in (source, tmp_path / "out"))
    state = new.model.state_dict()
    assert state.keys() == old.model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in old.model.state_dict().items())
    frames = torch.randint(
        0, 255, (5, 30, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    ).numpy()
    inputs = [qa.prepare_inputs(qa.read(frames), "What is it?") for qa in (old, new)]
    assert inputs[0].keys() == inputs[1].keys()
    assert all(torch.equal(value, inputs[1][name]) for name, value in inputs[0].items())
    with torch.no_grad():
        assert torch.equal(old.model(**inputs[0]).logits, new.model(**inputs[1]).logits)
    assert new.model.generation_config.eos_token_id == old.model.generation_config.eos_token_id
    answers = [qa.ask(frames, "What is it?", max_new_tokens=4).text for qa in (old, new)]
    assert answers[0] == answers[1]


def test_json_and_changed_layout(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = invoke("convert", source, out, "--json", "--pool-mode", "bilinear", "--newline-position", "one_token")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["destination"] == str(out)
    assert document["parameters"] == sum(value.numel() for value in make_weights().values())
    assert document["bytes"] == (out / "model.safetensors").stat().st_size
    assert (document["pool_mode"], document["tokens_per_frame"], document["prompt_tokens"]) == ("bilinear", 16, 1025)
    config = earlytom.VideoQA.load(out, device="cpu").model.config
    assert (config.spatial_pool_mode, config.newline_position) == ("bilinear", "one_token")


def test_weights_keep_their_type(tmp_path: Path) -> None:
    weights = {name: value.bfloat16() for name, value in make_weights().items()}
    write_checkpoint(tmp_path / "source", weights=weights, layout="bin")
    done = invoke("convert", tmp_path / "source", tmp_path / "out", "--json")
    assert json.loads(done.stdout)["dtype"] == "bfloat16"
    model = earlytom.VideoQA.load(tmp_path / "out", device="cpu", dtype="bfloat16").model
    assert torch.equal(model.model.image_newline, weights["model.image_newline"])


def test_a_folder_that_holds_something_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    refused = invoke("convert", source, out)
    assert refused.exit_code == 1
    assert "is not empty" in refused.stderr
    assert [file.name for file in out.iterdir()] == ["notes.txt"]
    assert invoke("convert", source, out, "--force").exit_code == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert earlytom.VideoQA.load(out, device="cpu").default_frames == 64


def test_errors_say_what_is_wrong(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        ((source, source, "--force"), "is the source"),
        ((source, source / "config.json"), "is a file"),
        ((tmp_path / "nowhere", out), "cannot convert"),
        ((earlytom.shipped_model(), out), "needs no conversion"),
        (
            (source, out, "--pool-mode", "median"),
            "spatial_pool_mode must be one of average, max, bilinear, got 'median'",
        ),
        ((write_checkpoint(tmp_path / "other", make_settings(mm_projector_type="linear")), out), "mm_projector_type"),
    ):
        done = invoke("convert", *arguments)
        assert done.exit_code == 1
        assert message in done.stderr
    assert not out.exists()
