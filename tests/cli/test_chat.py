"""``earlytom chat``: questions and commands, line by line."""

from __future__ import annotations

import io
import json

import pytest
from typer.testing import CliRunner, Result

import earlytom
from earlytom.cli import session
from earlytom.cli.app import app
from earlytom.cli.chatting import Chat
from earlytom.cli.choices import build_method, choose_clip
from earlytom.cli.options import DecoderName

VIDEO, OTHER = earlytom.sample_videos()[:2]
COLOUR, COUNT = "What colour is the circle?", "How many objects are there?"


def talk(lines: list[str], *arguments: object) -> Result:
    words = ["chat", str(VIDEO), "--max-new-tokens", "8", *map(str, arguments)]
    return CliRunner().invoke(app, words, input="".join(f"{line}\n" for line in lines))


def test_piped_questions_are_answered_in_one_conversation(shared_model) -> None:
    result = talk([COLOUR, "", COUNT], "--retention", "0.1")
    assert result.exit_code == 0
    with shared_model.open(VIDEO, method="earlytom:retention=0.1") as conversation:
        answers = [conversation.ask(question, max_new_tokens=8) for question in (COLOUR, COUNT)]
    assert result.stdout.splitlines() == [answer.text for answer in answers]
    for turn, answer in enumerate(answers, 1):
        assert f"turn {turn}: TTFT " in result.stderr
        assert f"prefill {answer.prefill_tokens} tokens, {answer.new_tokens} new tokens" in result.stderr
    assert ">" not in result.stdout


def test_json_has_a_line_for_every_answer(shared_model) -> None:
    result = talk([COLOUR, COUNT], "--json", "--max-history", "0", "--system", "Look well.")
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["question"], second["question"]) == (COLOUR, COUNT)
    assert first["prefill_tokens"] > 0
    assert first["memory"] > 0
    assert first["trace"]["prefill_tokens"] == first["prefill_tokens"]
    with shared_model.open(VIDEO, max_history=0, system="Look well.") as conversation:
        assert conversation.ask(COLOUR, max_new_tokens=8).text == first["text"]


def test_commands_change_video_and_method_and_save(shared_model, tmp_path) -> None:
    path = tmp_path / "talk.earlytom"
    lines = [f"/video {OTHER}", "/method visionzip:retention=0.25", COLOUR, f"/save {path}", "/quit", "never asked"]
    result = talk(lines, "--frames", "8")
    assert result.exit_code == 0
    expected = shared_model.ask(
        OTHER, COLOUR, method="visionzip:retention=0.25", sampling=earlytom.Sampling(frames=8), max_new_tokens=8
    )
    assert result.stdout.splitlines() == [expected.text]
    with shared_model.load_session(path) as saved:
        assert (saved.method, saved.visual_tokens) == ("visionzip:retention=0.25", expected.visual_tokens)
        assert [question for question, _ in saved.history] == [COLOUR]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/nothing", "no command of this chat: '/nothing'; /video PATH"),
        ("/video", "no command of this chat: '/video'"),
        ("/video nowhere.mp4", "nowhere.mp4: no such file"),
        ("/method nonsense", "nonsense"),
        ("/method fastv", "acts inside the language model"),
        ("/save nowhere/at/all", "cannot be written"),
        ("see <video>", "placeholder"),
    ],
)
def test_the_first_error_ends_a_pipe_with_1(shared_model, line, words) -> None:
    result = talk([line, COLOUR])
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "code"), [(("--method", "fastv"), 1), (("--max-history", "-1"), 2), (("--max-tokens", "0"), 2)]
)
def test_what_cannot_be_opened_is_told(shared_model, arguments, code) -> None:
    assert talk([COLOUR], *arguments).exit_code == code


def test_standard_input_cannot_be_the_video(shared_model) -> None:
    result = CliRunner().invoke(app, ["chat", "-"], input="x")
    assert result.exit_code == 2
    assert "questions are read from standard input" in " ".join(result.stderr.replace("│", " ").split())


def typed(qa, lines: list[str]) -> Chat:
    clip = choose_clip(str(VIDEO), 8, None, None, DecoderName.pyav)
    chat = Chat(
        qa=qa,
        clip=clip,
        video=session.read_clip(qa, clip),
        method=build_method("earlytom"),
        opening={},
        max_new_tokens=8,
        as_json=False,
        interactive=True,
    )
    chat.run(io.StringIO("".join(f"{line}\n" for line in lines)))
    return chat


def test_who_types_goes_on_behind_errors_and_sees_the_answer_grow(shared_model, capsys) -> None:
    typed(shared_model, ["/nothing", "/video nowhere.mp4", "/method nonsense", "/help", COLOUR])
    printed = capsys.readouterr()
    expected = shared_model.ask(VIDEO, COLOUR, sampling=earlytom.Sampling(frames=8), max_new_tokens=8)
    assert printed.out.strip() == expected.text
    assert printed.err.count("error: ") == 3
    assert printed.err.count("> ") == 6
    assert "ask away" in printed.err


def test_an_interrupted_answer_leaves_the_conversation_as_it_was(shared_model, monkeypatch, capsys) -> None:
    from earlytom.runtime.sessions import VideoSession

    ask, asked = VideoSession.ask, []

    def interrupted(self, question, **options):
        asked.append(question)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return ask(self, question, **options)

    monkeypatch.setattr(VideoSession, "ask", interrupted)
    typed(shared_model, [COUNT, COLOUR])
    printed = capsys.readouterr()
    assert "stopped; the conversation is as it was" in printed.err
    assert "turn 1: " in printed.err
    assert "turn 2: " not in printed.err
