"""``earlytom demo``: judged answers, own videos, exit codes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import earlytom
from earlytom.cli import demo, session
from earlytom.cli.app import app
from earlytom.shipped import SampleQuestion

QUESTION = "How many objects are there?"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def pretend_samples(monkeypatch: pytest.MonkeyPatch, *samples: SampleQuestion) -> None:
    monkeypatch.setattr(demo, "sample_questions", lambda: list(samples))
    monkeypatch.setattr(session, "sample_videos", lambda: [sample.video for sample in samples])


@pytest.fixture
def said(clip: Path, shared_model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model says what the test wants: each method runs once, its text is replaced."""
    from earlytom.runtime.pipeline import VideoQA

    texts = {"none": "two", "earlytom": "two"}
    original = VideoQA.ask
    real: dict[str, Any] = {}

    def scripted(self: VideoQA, video: Any, question: str, **options: Any) -> Any:
        name = options["method"].name
        if name not in real:
            real[name] = original(self, video, question, **options | {"max_new_tokens": 1})
        return dataclasses.replace(real[name], text=texts[name])

    monkeypatch.setattr(VideoQA, "ask", scripted)
    return texts


def test_right_answers_exit_with_0(clip: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_samples(
        monkeypatch, SampleQuestion(clip, QUESTION, "two", "count"), SampleQuestion(clip, "And?", "Two", "count")
    )
    result = invoke("demo", "--repeats", "1")
    assert result.exit_code == 0, result.stdout
    assert "Right answers: 2 of 2 without compression, 2 of 2 with EarlyTom." in result.stdout
    assert "Visual tokens: 288 of 1152 (25.0%)." in result.stdout
    assert "576 -> 144" in result.stdout
    assert "note:" not in result.stderr


def test_one_wrong_answer_among_right_ones_exits_with_1(clip: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_samples(
        monkeypatch, SampleQuestion(clip, QUESTION, "two", "count"), SampleQuestion(clip, "And?", "three", "count")
    )
    result = invoke("demo", "--repeats", "1")
    assert result.exit_code == 1
    assert "Right answers: 1 of 2 without compression, 1 of 2 with EarlyTom." in result.stdout


@pytest.mark.parametrize("wrong", ["none", "earlytom"])
def test_one_wrong_answer_exits_with_1(wrong: str, clip: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_samples(monkeypatch, SampleQuestion(clip, QUESTION, "two", "count"))
    said[wrong] = "three"
    result = invoke("demo", "--repeats", "1", "--json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)["summary"]
    assert (summary["right_plain"], summary["right_earlytom"]) == ((0, 1) if wrong == "none" else (1, 0))
    assert (summary["judged"], summary["same_answer"]) == (1, 0)


def test_a_video_of_the_users_gets_the_note_and_no_judgement(
    clip: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_samples(monkeypatch)
    result = invoke("demo", clip, "--repeats", "1", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [entry["question"] for entry in document["results"]] == [QUESTION]
    assert document["results"][0]["all_right"] is None
    assert "answers about other videos mean nothing" in document["notes"][0]
    assert "answers about other videos mean nothing" in result.stderr


def test_a_question_about_a_sample_is_judged(clip: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_samples(monkeypatch, SampleQuestion(clip, QUESTION, "one", "count"))
    assert invoke("demo", clip, QUESTION, "--repeats", "1").exit_code == 1
    assert invoke("demo", clip, "Another?", "--repeats", "1").exit_code == 0


def test_missing_samples_and_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> list[SampleQuestion]:
        raise earlytom.EarlyTomError("the sample videos are missing from this installation: here")

    monkeypatch.setattr(demo, "sample_questions", missing)
    result = invoke("demo")
    assert result.exit_code == 1
    assert result.stderr == "error: the sample videos are missing from this installation: here\n"
    result = invoke("demo", "missing.mp4")
    assert (result.exit_code, result.stderr) == (1, "error: missing.mp4: no such file\n")


def test_a_number_of_tokens_instead_of_a_share(clip: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_samples(monkeypatch, SampleQuestion(clip, QUESTION, "two", "count"))
    result = invoke("demo", "--repeats", "1", "--visual-tokens", "50")
    assert "576 -> 50" in result.stdout
    wrong = invoke("demo", "--visual-tokens", "50", "--retention", "0.5")
    assert wrong.exit_code == 2
    assert "cannot be given together with --retention" in " ".join(wrong.stderr.replace("│", " ").split())
