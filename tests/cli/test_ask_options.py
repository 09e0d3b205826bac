"""``earlytom ask``: its options, what they exclude, and which videos it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from earlytom.cli.app import app
from earlytom.cli.choices import build_method, choose_clip
from earlytom.cli.options import DecoderName
from earlytom.video import Limits
from video.clips import make_clip, slice_damaged

QUICK = ("--frames", "8", "--max-new-tokens", "2")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_retention_and_preset_are_added_to_the_method() -> None:
    method = build_method("earlytom:ema=0.8,merge_layers=6/14/20", 0.1, "videomme")
    assert method.describe() == "earlytom:retention=0.1,merge_layers=6/14/20,ema=0.8,preset=videomme"
    assert build_method("earlytom:retention=0.10", 0.1).retention == 0.1
    assert build_method("none").name == "none"


def test_retention_and_preset_are_added_to_compositions() -> None:
    method = build_method("earlytom:ema=0.8+visionzip", 0.1, "videomme")
    assert method.describe() == "earlytom@encoder/llm:ema=0.8,preset=videomme+visionzip@tokens:retention=0.1"
    assert build_method("earlytom:retention=0.10+visionzip", 0.1).retention == 0.1
    with pytest.raises(typer.BadParameter, match=r"differs from retention=0\.2"):
        build_method("earlytom+visionzip:retention=0.2", 0.1)


def test_a_number_of_tokens_is_added_to_the_method() -> None:
    assert build_method("earlytom:ema=0.8", visual_tokens=9).describe() == "earlytom:visual_tokens=9,ema=0.8"
    assert build_method("earlytom+visionzip", visual_tokens=9).describe().endswith("visionzip@tokens:visual_tokens=9")
    assert build_method("earlytom:visual_tokens=9", visual_tokens=9).visual_tokens == 9


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("earlytom", ("--visual-tokens", "9", "--retention", "0.1"), "cannot be given together with --retention"),
        ("earlytom:retention=0.1", ("--visual-tokens", "9"), "together with retention=0.1 in --method earlytom"),
        ("earlytom:visual_tokens=9", ("--retention", "0.1"), "together with visual_tokens=9 in --method earlytom"),
        ("earlytom+visionzip:retention=0.1", ("--visual-tokens", "9"), "cannot be given together with retention=0.1"),
        ("earlytom:visual_tokens=8", ("--visual-tokens", "9"), "differs from visual_tokens=8"),
        ("earlytom", ("--visual-tokens", "many"), "--visual-tokens"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "inspect"])
def test_a_share_and_a_number_of_tokens_are_wrong_usage(
    clip: Path, command: str, method: str, options: tuple[str, ...], words: str
) -> None:
    question = ["What?"] if command == "ask" else []
    result = invoke(command, clip, *question, "--method", method, *options)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_a_number_of_tokens_is_what_is_kept(shared_model: Any, clip: Path) -> None:
    document = json.loads(invoke("ask", clip, "What?", *QUICK, "--json", "--visual-tokens", "50").stdout)
    assert (document["method"], document["visual_tokens"]) == ("earlytom:visual_tokens=50", 50)


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [("earlytom:retention=0.1", "--retention", "0.2"), ("earlytom:preset=mvbench", "--preset", "videomme")],
)
def test_an_option_given_twice_with_other_values_is_wrong_usage(
    clip: Path, method: str, option: str, value: str
) -> None:
    result = invoke("ask", clip, "What?", "--method", method, option, value)
    assert result.exit_code == 2
    assert "give it once" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--stream", "--json"), "cannot be given together with --json"),
        (("--stream", "--compare"), "cannot be given together with --compare"),
        (("--frames", "4", "--fps", "2"), "cannot be given together with --frames"),
        (("--max-frames", "4"), "is a limit for --fps"),
        (("--compare", "--method", "none"), "needs a --method other than none"),
    ],
)
def test_options_that_exclude_one_another(clip: Path, options: tuple[str, ...], words: str) -> None:
    result = invoke("ask", clip, "What?", *options)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "nonsense"), "unknown method 'nonsense'; the methods are: none"),
        (("--retention", "1.5"), "retention must be a number in (0.0, 1.0], got 1.5"),
        (("--visual-tokens", "0"), "visual_tokens must be an integer of at least 1, got 0"),
        (("--method", "fastv", "--visual-tokens", "9"), "method 'fastv' takes no visual_tokens (got 9)"),
        (("--preset", "videomme", "--visual-tokens", "9"), "preset 'videomme' goes by the retention"),
        (("--method", "none", "--retention", "0.5"), "method 'none' keeps every token"),
        (("--method", "none", "--preset", "mvbench"), "method 'none' has no option 'preset'"),
        (("--preset", "nonsense"), "unknown preset 'nonsense'; the presets are: fast, quality, paper, mvbench"),
        (("--fps", "-1"), "Sampling.fps is -1.0"),
        (("--model", "/nonexistent/model"), "cannot load a model from '/nonexistent/model'"),
        (("--device", "abacus"), "device must be"),
    ],
)
def test_bad_values_are_one_line_and_exit_code_1(clip: Path, options: tuple[str, ...], words: str) -> None:
    result = invoke("ask", clip, "What?", *options)
    assert result.exit_code == 1
    assert result.stdout == ""
    last = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(last) == 1
    assert words in last[0]


def test_a_file_that_is_no_video(tmp_path: Path, shared_model: Any) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("this is not a video")
    result = invoke("ask", path, "What?")
    assert result.exit_code == 1
    assert str(path) in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1


@pytest.mark.parametrize("command", [("ask", "What?"), ("inspect",)])
def test_frames_that_the_processor_refuses_are_one_line(tmp_path: Path, shared_twin: Any, command: tuple[str]) -> None:
    path = make_clip(tmp_path / "wide.mp4", count=6, width=1920, height=8)
    result = invoke(command[0], path, *command[1:])
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert str(path) in line
    assert "240" in line


def test_one_frame_is_answered(tmp_path: Path, shared_twin: Any) -> None:
    path = make_clip(tmp_path / "one.mp4", count=1)
    result = invoke("ask", path, "What?", "--max-new-tokens", "2", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["frames"] == 1


def test_sampling_options() -> None:
    sampled = choose_clip(Path("x.mp4"), None, 2.0, 6, DecoderName.pyav).sampling
    assert sampled is not None
    assert (sampled.frames, sampled.fps, sampled.max_frames) == (None, 2.0, 6)
    assert choose_clip(Path("x.mp4"), None, None, None, DecoderName.torchcodec).sampling is None
    assert choose_clip(Path("x.mp4"), None, None, None, DecoderName.torchcodec).decoder == "torchcodec"


def test_limits_of_pictures_and_clips(clip: Path, shared_model: Any) -> None:
    assert choose_clip(Path("x.mp4"), None, None, None, DecoderName.pyav).limits == Limits()
    limits = choose_clip(Path("x.mp4"), None, None, None, DecoderName.pyav, 10, 20, 30).limits
    assert limits == Limits(max_pixels=10, max_bytes=20, shrink_to=30)
    for option, text in (("--max-pixels", "allowed: at most 10 (Limits.max_pixels)"), ("--max-bytes", "at most 10")):
        result = invoke("ask", clip, "What?", option, "10")
        assert (result.exit_code, result.stdout) == (1, "")
        assert text in result.stderr


def test_damage_is_let_pass_where_asked_for_and_told(clip: Path, tmp_path: Path, shared_model: Any) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(slice_damaged(clip.read_bytes(), 10))
    arguments = ("ask", damaged, "What?", "--max-new-tokens", "1")
    assert "frames can be decoded" in invoke(*arguments, "--frames", "24").stderr
    result = invoke(*arguments, "--frames", "24", "--damage-tolerance", "0.9", "--json")
    assert result.exit_code == 0, result.stderr
    (note,) = [note for note in json.loads(result.stdout)["notes"] if "damaged" in note]
    assert note.endswith(" of the video's 24 frames are damaged; only whole ones were taken.")
    assert invoke(*arguments, "--damage-tolerance", "2").exit_code == 2


def test_video_from_standard_input(clip: Path, shared_model: Any) -> None:
    expected = invoke("ask", clip, "What?", "--json")
    piped = CliRunner().invoke(app, ["ask", "-", "What?", "--json"], input=clip.read_bytes())
    assert json.loads(piped.stdout)["text"] == json.loads(expected.stdout)["text"]


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ("https://example.org/a.mp4", "https addresses are not read"),
        ("x." * 100_000, "x.: no such file"),
        ("missing%03d.mp4", "missing%03d.mp4: no such file"),
    ],
)
def test_videos_that_are_not_there_are_told_before_loading(video: str, words: str) -> None:
    result = invoke("ask", video, "What?", "--model", "no/such-model")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert len(result.stderr) < 500


def test_frames_can_be_spread_over_time(tmp_path: Path, shared_model: Any) -> None:
    ticks = [0, 3000, 6000, *range(9000, 9990, 33)]
    path = make_clip(tmp_path / "screen.mkv", count=len(ticks), ticks=ticks, rate=1000)

    def times(*options: str) -> list[float]:
        result = invoke("ask", path, "What?", "--max-new-tokens", "1", "--json", *options)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)["trace"]["videos"][0]["source"]["frame_timestamps"]

    assert times("--frames", "5") == times("--frames", "5", "--spacing", "index")
    assert times("--frames", "5")[1] > 9
    assert times("--frames", "5", "--spacing", "time") == [0.0, 3.0, 6.0, 9.957]
    assert times("--spacing", "time")[:3] == [0.0, 3.0, 6.0]
    assert times()[2] > 9
    assert len(times("--fps", "30", "--max-frames", "5", "--spacing", "time")) == 4
    assert len(times("--fps", "30", "--max-frames", "5")) == 5
    assert invoke("ask", path, "What?", "--spacing", "space").exit_code == 2
