"""What a session refuses, and that a question that fails changes nothing."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

import earlytom
from earlytom.errors import CompressionError, MethodError, ModelError, VideoError
from families.processors import video_qa
from runtime.sessions.fresh import FIRST, QUARTER, SECOND
from runtime.test_threads import run_threads


@pytest.fixture(scope="module")
def qa() -> earlytom.VideoQA:
    return video_qa("llava_onevision")


@pytest.fixture(scope="module")
def video(qa) -> earlytom.Video:
    return qa.read(earlytom.sample_videos()[0], earlytom.Sampling(frames=8))


@pytest.fixture
def session(qa, video):
    with qa.open(video, method=QUARTER) as opened:
        yield opened


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "fastv"}, MethodError, r"'fastv' acts inside the language model \(before layer \d+\)"),
        ({"method": "pyramiddrop"}, MethodError, "one question only"),
        ({"method": "earlytom:retention=0.25,inner_merging=true"}, MethodError, "acts inside the language model"),
        ({"method": "nonsense"}, MethodError, "nonsense"),
        ({"max_history": -1}, CompressionError, r"max_history must be .* got -1"),
        ({"max_history": True}, CompressionError, "got True"),
        ({"max_history": 1.5}, CompressionError, r"got 1\.5"),
        ({"max_tokens": 0}, CompressionError, "max_tokens is 0"),
        ({"system": "see <video>"}, CompressionError, "the system prompt holds .* '<video>'"),
        ({"system": 3}, CompressionError, "must be text or None, got 3"),
    ],
)
def test_what_cannot_be_opened_is_told_before_the_video_is_read(qa, options, error, words) -> None:
    with pytest.raises(error, match=words):
        qa.open("no such file", **options)


def test_a_session_needs_a_video_that_can_be_read(qa) -> None:
    with pytest.raises(CompressionError, match="needs a video"):
        qa.open()
    with pytest.raises(VideoError, match="no such file"):
        qa.open("nowhere.mp4")
    with pytest.raises(CompressionError, match="max_tokens is for one video, got 2"):
        qa.open("nowhere.mp4", "nor.mp4", max_tokens=900)


@pytest.mark.parametrize(
    ("question", "options", "words"),
    [
        ("  ", {}, "the question is empty"),
        (3, {}, "must be text, got 3"),
        ("a <video> here", {}, "placeholder '<video>'"),
        (FIRST, {"past_key_values": object()}, "past_key_values is what a session itself gives"),
        (FIRST, {"input_ids": torch.ones(1, 1)}, "input_ids is what a session"),
        (FIRST, {"max_length": 90}, "use max_new_tokens"),
        (FIRST, {"min_length": 90}, "use min_new_tokens"),
        (FIRST, {"use_cache": False}, "use_cache=False"),
        (FIRST, {"cache_implementation": "static"}, "cache_implementation='static'"),
        (FIRST, {"prompt_lookup_num_tokens": 2}, "prompt lookup"),
        (FIRST, {"num_beams": 2, "on_text": print}, "cannot be streamed from beam search"),
        (FIRST, {"max_new_tokens": 5000}, r"needs \d+ positions .* but the model has 4096"),
        (FIRST, {"cancelled": 3}, "cancelled must be"),
    ],
)
def test_what_cannot_be_asked(session, question, options, words) -> None:
    with pytest.raises(CompressionError, match=words):
        session.ask(question, **options)
    assert session.history == ()


def test_a_closed_session_says_so(qa, video) -> None:
    session = qa.open(video, method=QUARTER)
    session.close()
    session.close()
    for use in (
        lambda: session.ask(FIRST),
        session.fork,
        lambda: session.memory,
        lambda: session.history,
        lambda: session.save("somewhere"),
        lambda: list(session.stream(FIRST)),
    ):
        with pytest.raises(CompressionError, match="has been closed"):
            use()


def test_an_error_while_answering_leaves_the_session_as_it_was(session) -> None:
    expected = session.fork().ask(FIRST, max_new_tokens=4).text
    memory = session.memory

    class Boom(Exception):
        pass

    def fail(ids, scores):
        raise Boom

    with pytest.raises(Boom):
        session.ask(FIRST, logits_processor=[fail])
    assert (session.history, session.memory) == ((), memory)
    assert session.ask(FIRST, max_new_tokens=4).text == expected


def test_a_session_that_is_closed_while_it_answers_stays_closed(qa, video) -> None:
    session = qa.open(video, method=QUARTER)

    def close(ids, scores):
        session.close()
        return scores

    assert session.ask(FIRST, logits_processor=[close], max_new_tokens=3).new_tokens == 3
    with pytest.raises(CompressionError, match="has been closed"):
        session.ask(SECOND)


def test_a_stopped_answer_is_in_the_history(session) -> None:
    stop = threading.Event()
    stop.set()
    answer = session.ask(FIRST, cancelled=stop, max_new_tokens=9)
    assert answer.new_tokens == 1
    assert session.history == ((FIRST, answer.text),)


def test_a_question_from_inside_an_answer_is_refused(session) -> None:
    other = session.fork()

    def ask(ids, scores):
        other.ask(SECOND)
        return scores

    with pytest.raises(CompressionError, match="from inside the answer"):
        session.ask(FIRST, logits_processor=[ask])


def test_a_model_that_was_cast_or_sits_in_a_block_is_refused(qa, video) -> None:
    qa = video_qa("llava_onevision")
    session = qa.open(video, method=QUARTER)
    with earlytom.compress(qa.model, QUARTER):
        for use in (lambda: session.ask(FIRST), lambda: qa.open(video, method=QUARTER)):
            with pytest.raises(ModelError, match=r"already inside an earlytom\.compress block"):
                use()
    qa.model.to(torch.bfloat16)
    with pytest.raises(CompressionError, match=r"layer 0 .* was torch.float32 on cpu .* torch.bfloat16 on cpu now"):
        session.ask(FIRST)
    qa.model.to(torch.float32)
    assert session.ask(FIRST, max_new_tokens=1).new_tokens == 1


def test_a_language_model_that_forgets_is_refused(qa, video) -> None:
    from conftest import tiny_model

    model = tiny_model()
    text = model.config.text_config
    text.use_sliding_window, text.sliding_window = True, 16
    text.layer_types = ["full_attention", *["sliding_attention"] * 4]
    with pytest.raises(ModelError, match="layer 1 of this one keeps a window of 16 tokens"):
        earlytom.VideoQA(model, qa.processor).open(video, method=QUARTER)


def test_a_context_that_the_videos_fill_is_refused(qa, video) -> None:
    from conftest import tiny_model

    model = tiny_model()
    model.config.text_config.max_position_embeddings = 20
    with pytest.raises(CompressionError, match="but the model has 20: use fewer frames"):
        earlytom.VideoQA(model, qa.processor).open(video, method=QUARTER)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("<video><video>{{ messages[0].content[1].text }}", "wrote 2 placeholders"),
        ("no video", "wrote 0 placeholders"),
        (
            "{% for _ in messages %}what {% endfor %}<video>{{ messages[0].content[1].text }}",
            "writes other text before",
        ),
        ("what <video>", "changed the text behind"),
        ("{{ messages.nothing.at.all }}", "chat template cannot write the prompt"),
    ],
)
def test_templates_of_which_nothing_can_be_kept(qa, video, template, words) -> None:
    processor = copy.copy(qa.processor)
    processor.chat_template = template
    odd = earlytom.VideoQA(qa.model, processor)
    with pytest.raises((CompressionError, ModelError), match=words):  # noqa: PT012  # on opening, or in the second turn
        session = odd.open(video, method=QUARTER)
        session.ask(FIRST, max_new_tokens=1)
        session.ask(SECOND, max_new_tokens=1)


def test_sessions_of_several_threads_on_one_model(qa) -> None:
    videos = [qa.read(path, earlytom.Sampling(frames=6)) for path in earlytom.sample_videos()[:3]]
    questions = [FIRST, SECOND, FIRST]

    def talk(video) -> list[tuple[str, int]]:
        with qa.open(video, method=QUARTER) as session:
            answers = [session.ask(question, max_new_tokens=6) for question in questions]
            whole = qa.ask(video, FIRST, method=QUARTER, max_new_tokens=3)
            return [(answer.text, answer.prefill_tokens) for answer in (*answers, whole)]

    expected = [talk(video) for video in videos]
    found: dict[int, list[tuple[str, int]]] = {}

    def run(number: int) -> None:
        found[number] = talk(videos[number % 3])

    assert run_threads(*[lambda number=number: run(number) for number in range(6)]) == []
    assert [found[number] for number in range(6)] == expected * 2


def test_threads_that_share_a_session_take_turns(session) -> None:
    def ask() -> None:
        session.ask(FIRST, max_new_tokens=3)

    assert run_threads(*[ask] * 4) == []
    assert [question for question, _ in session.history] == [FIRST] * 4
