"""``earlytom ask``: options, output, comparison."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import earlytom
from earlytom.cli import session
from earlytom.cli.app import app
from earlytom.cli.choices import build_method
from earlytom.cli.compare import ratio
from earlytom.errors import MethodError
from earlytom.shipped import shipped_folders
from video.clips import make_clip

QUICK = ("--frames", "8", "--max-new-tokens", "2")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_answer_is_all_that_goes_to_stdout(clip: Path, shared_model: Any) -> None:
    expected = shared_model.ask(clip, "How many objects are there?", method="earlytom", max_new_tokens=2).text
    result = invoke("ask", clip, "How many objects are there?", "--max-new-tokens", "2")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == expected + "\n"
    assert "144 of 576 visual tokens (25.0%)" in result.stderr


SKILLS = {question.skill: question for question in earlytom.sample_questions()}


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("retention", ["1.0", "0.25"])
def test_a_question_of_every_skill_is_answered_rightly_about_its_file(
    shared_model: Any, skill: str, retention: str
) -> None:
    asked = SKILLS[skill]
    method = "none" if retention == "1.0" else "earlytom"
    result = invoke("ask", asked.video, asked.question, "--method", method, "--retention", retention)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == asked.answer + "\n"


def test_streaming_prints_the_same_answer(clip: Path, shared_model: Any) -> None:
    plain = invoke("ask", clip, "How many objects are there?", *QUICK)
    streamed = invoke("ask", clip, "How many objects are there?", *QUICK, "--stream")
    assert streamed.exit_code == 0, streamed.stderr
    assert streamed.stdout.strip() == plain.stdout.strip()


def test_the_shipped_model_is_honest_about_other_videos(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = session.shipped_model_note(None, clip)
    assert words is not None
    assert "only knows generated scenes" in words
    assert "mean nothing" in words
    assert "llava-hf/llava-onevision-qwen2-7b-ov-hf" in words
    for folder in shipped_folders().values():
        assert session.shipped_model_note(str(folder), clip) == words
    assert session.shipped_model_note("llava-hf/other", clip) is None
    monkeypatch.setattr(session, "sample_videos", lambda: [clip])
    assert session.shipped_model_note(None, clip) is None


def test_the_note_goes_to_stderr_and_into_json(clip: Path, shared_model: Any) -> None:
    result = invoke("ask", clip, "What?", *QUICK, "--json")
    document = json.loads(result.stdout)
    assert document["notes"] == [session.shipped_model_note(None, clip)]
    assert "note: the model that comes with earlytom is a tiny test model" in result.stderr


def test_json_holds_answer_and_costs(clip: Path, shared_model: Any) -> None:
    result = invoke("ask", clip, "What?", *QUICK, "--json", "--retention", "0.5")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["question"] == "What?"
    assert document["method"] == "earlytom:retention=0.5"
    assert document["visual_tokens"] * 2 == document["visual_tokens_uncompressed"] == 8 * 36
    assert document["frames"] == document["temporal_grids"] == 8
    assert document["frames_left"] == document["temporal_grids_left"] <= 8
    assert document["ttft"] > 0
    assert document["trace"]["videos"][0]["tokens"] == 144
    assert "video decoding and preprocessing are not" in document["ttft_scope"]


def test_compare_runs_in_turns_on_one_reading(clip: Path, shared_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from earlytom.runtime.pipeline import VideoQA

    asked: list[str] = []
    videos: set[int] = set()
    original = VideoQA.ask

    def watched(self: VideoQA, video: Any, question: str, **options: Any) -> Any:
        asked.append(options["method"].name)
        videos.add(id(video))
        return original(self, video, question, **options)

    monkeypatch.setattr(VideoQA, "ask", watched)
    result = invoke("ask", clip, "What?", *QUICK, "--compare", "--repeats", "2", "--json")
    assert result.exit_code == 0, result.stderr
    assert len(videos) == 1
    assert sorted(asked[:2]) == sorted(asked[2:4]) == sorted(asked[4:]) == ["earlytom", "none"]
    document = json.loads(result.stdout)
    plain, short = document["runs"]
    assert (plain["method"], short["method"]) == ("none", "earlytom:retention=0.25")
    assert (plain["visual_tokens"], short["visual_tokens"]) == (288, 72)
    assert plain["prefill_tokens"] - short["prefill_tokens"] == 216
    assert plain["frames_left"] == 8 >= short["frames_left"]
    assert len(plain["ttft_runs"]) == len(short["ttft_runs"]) == document["repeats"] == 2
    assert plain["ttft"] == pytest.approx(sum(plain["ttft_runs"]) / 2)
    assert document["ttft_speedup"] == pytest.approx(plain["ttft"] / short["ttft"])


def test_compare_table(clip: Path, shared_model: Any) -> None:
    result = invoke("ask", clip, "What?", *QUICK, "--compare", "--repeats", "1")
    assert result.exit_code == 0, result.stderr
    for words in ("answer", "72 of 288 (25.0%)", "8 -> 8", "prefill tokens", "TTFT, one run", "speed-up of TTFT"):
        assert words in result.stdout
    assert "temporal grid" not in result.stdout
    assert "video decoding and preprocessing are not" in " ".join(result.stdout.split())


def test_costs_are_told_in_sampled_frames_and_temporal_grids(clip: Path, shared_twin: Any) -> None:
    options = ("--frames", "13", "--max-new-tokens", "2", "--method", "earlytom:merge_layers=1/3/5,least_frames=0.5")
    result = invoke("ask", clip, "What?", *options)
    assert result.exit_code == 0, result.stderr
    left = json.loads(invoke("ask", clip, "What?", *options, "--json").stdout)
    assert (left["frames"], left["temporal_grids"]) == (13, 7)
    assert left["temporal_grids_left"] < 7
    assert left["frames_left"] == 2 * left["temporal_grids_left"]
    counts = f"13 frames -> {left['frames_left']} (7 temporal grids -> {left['temporal_grids_left']}), "
    assert counts in result.stderr
    compared = invoke("ask", clip, "What?", *options, "--compare", "--repeats", "1")
    rows = [[part.strip() for part in line.strip("│").split("│")] for line in compared.stdout.splitlines()]
    assert ["frames through the encoder", "13 -> 13", f"13 -> {left['frames_left']}"] in rows
    assert ["as temporal grids", "7 -> 7", f"7 -> {left['temporal_grids_left']}"] in rows


def test_a_slow_down_is_called_one() -> None:
    assert ratio(1.25) == "1.25x"
    assert ratio(0.8) == "0.80x (slower)"


def test_a_malformed_method_is_told() -> None:
    with pytest.raises(MethodError, match="expected option=value, got 'retention'"):
        build_method("earlytom:retention", 0.2)


def test_data_addresses_and_a_file_called_dash(clip: Path, shared_model: Any, tmp_path: Path, monkeypatch) -> None:
    expected = json.loads(invoke("ask", clip, "What?", "--json", *QUICK).stdout)["text"]
    address = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_bytes(clip.read_bytes())
    for video in (address, "./-"):
        result = invoke("ask", video, "What?", "--json", *QUICK)
        assert result.exit_code == 0, result.stderr[:300]
        assert json.loads(result.stdout)["text"] == expected


@pytest.mark.parametrize("compare", [False, True])
def test_a_budget_of_tokens_holds_before_compression(clip, shared_model, compare) -> None:
    found = invoke("ask", clip, "What?", "--max-tokens", 150, "--json", *QUICK, *(("--compare",) if compare else ()))
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    for run in document["runs"] if compare else [document]:
        assert (run["frames"], run["visual_tokens_uncompressed"]) == (4, 144)


def test_a_budget_shrinks_the_pictures_of_the_twin(clip, shared_twin) -> None:
    found = invoke("ask", clip, "What?", "--max-tokens", 60, "--json", *QUICK)
    document = json.loads(found.stdout)
    assert document["frames"] == 8
    assert 4 <= document["visual_tokens_uncompressed"] <= 60


def test_a_budget_below_one_picture_is_an_error(clip, shared_model) -> None:
    found = invoke("ask", clip, "What?", "--max-tokens", 5, *QUICK)
    assert (found.exit_code, found.stdout) == (1, "")
    assert "max_tokens is 5" in found.stderr


def test_frames_near_those_asked_for_are_told(tmp_path: Path, shared_model: Any) -> None:
    path = make_clip(tmp_path / "clip.mp4", count=240, options={"g": "12", "bf": "0", "sc_threshold": "0"})

    def source(*options: str) -> dict[str, Any]:
        result = invoke("ask", path, "What?", "--max-new-tokens", "1", "--json", *options)
        assert result.exit_code == 0, result.stderr
        told: dict[str, Any] = json.loads(result.stdout)["trace"]["videos"][0]["source"]
        return told

    near = source("--frames", "3", "--near", "0.5")
    assert (near["frames_asked"], near["frame_indices"]) == ([0, 119, 239], [0, 120, 228])
    assert near["frame_deviations"] == pytest.approx([0, 1 / 30, -11 / 30])
    assert "frames_asked" not in source("--frames", "3")
    assert len(source("--near", "0.5")["frames_asked"]) == 16
    assert source("--fps", "1", "--near", "0.4")["frames_asked"] == [*range(0, 240, 30)]
    assert invoke("ask", path, "What?", "--near", "0.6").exit_code == 2
    text = " ".join(invoke("inspect", path, "--frames", "3", "--near", "0.5").stdout.split())
    assert "3 frames sampled near those asked for, 0.13 s off on average, 0.37 at most: 0, 120, 228" in text
