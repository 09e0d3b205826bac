"""``earlytom ask``: options, output, comparison."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import earlytom
from earlytom.cli import session
from earlytom.cli.app import app
from earlytom.cli.choices import build_method, choose_clip
from earlytom.cli.compare import ratio
from earlytom.cli.options import DecoderName
from earlytom.errors import MethodError
from earlytom.shipped import shipped_folders
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
