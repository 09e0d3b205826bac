"""VideoQA: files in, answers with honest numbers out. Runs on the shipped model."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import earlytom
from earlytom.runtime import pipeline
from earlytom.runtime.answer import Answer
from video.clips import slice_damaged

QUESTION = "What colour is the circle?"


@pytest.fixture(scope="module")
def qa() -> earlytom.VideoQA:
    return earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 255, (4, 96, 96, 3), dtype=np.uint8)
    return np.repeat(scenes, 5, axis=0)


def test_answer_counts_tokens_frames_and_time(qa, frames) -> None:
    full = qa.ask(frames, "What colour is the circle?", method="none", max_new_tokens=4)
    short = qa.ask(frames, "What colour is the circle?", method="earlytom:retention=0.25", max_new_tokens=4)
    assert full.frames == qa.default_frames == 16
    assert full.visual_tokens == full.visual_tokens_uncompressed == 16 * 36
    assert short.visual_tokens == 16 * 36 // 4
    assert full.prefill_tokens - short.prefill_tokens == full.visual_tokens - short.visual_tokens
    assert short.frames_left < 16
    assert full.frames_left == 16
    assert 0 < short.ttft <= short.generation
    assert short.trace.videos[0].source["frame_indices"][0] == 0
    assert short.to_dict()["trace"]["method"] == "earlytom:retention=0.25"


def test_plain_method_gives_what_stock_generate_gives(qa, frames) -> None:
    answer = qa.ask(frames, "What shape is red?", method="none", max_new_tokens=5)
    inputs = qa.prepare_inputs(qa.read(frames), "What shape is red?")
    stock = qa.model.generate(**inputs, do_sample=False, max_new_tokens=5)
    assert (
        answer.text
        == qa.processor.tokenizer.decode(stock[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    )


def test_stream_gives_the_same_text(qa, frames) -> None:
    question = "How many objects are there?"
    pieces = list(qa.stream(frames, question, max_new_tokens=6))
    assert "".join(pieces).strip() == qa.ask(frames, question, max_new_tokens=6).text
    with pytest.raises(earlytom.VideoError, match="nowhere"):
        list(qa.stream("nowhere.mp4", question))


def test_sampling_and_frames_are_the_callers(qa, frames) -> None:
    answer = qa.ask(frames, "What?", sampling=earlytom.Sampling(frames=7), max_new_tokens=1)
    assert answer.frames == 7
    single = qa.ask(frames[:1], "What?", max_new_tokens=1)
    assert single.frames == 1
    assert "one frame" in single.trace.videos[0].stepped_aside


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "abacus"}, "device"),
        ({"device": "meta"}, "cpu"),
        ({"device": "cuda:99"}, r"torch sees \d+ CUDA"),
        ({"dtype": "int3"}, "float32, bfloat16, float16, auto"),
        ({"attention": "no_such_attention"}, "no_such_attention"),
    ],
)
def test_bad_loading_options_are_named(options, message) -> None:
    with pytest.raises(earlytom.ModelError, match=message):
        earlytom.VideoQA.load(earlytom.shipped_model(), **options)


def test_missing_and_broken_checkpoints_are_named(tmp_path) -> None:
    with pytest.raises(earlytom.ModelError, match="cannot load a model"):
        earlytom.VideoQA.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(earlytom.ModelError):
        earlytom.VideoQA.load(tmp_path)


def test_an_empty_question_is_refused(qa, frames) -> None:
    with pytest.raises(earlytom.EarlyTomError, match="empty"):
        qa.ask(frames, "  ")


def test_half_precision_loads_and_answers(frames) -> None:
    qa = earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu", dtype="bfloat16")
    assert next(qa.model.parameters()).dtype == torch.bfloat16
    assert qa.ask(frames, "What colour is the circle?", max_new_tokens=2).new_tokens <= 2


def test_closing_a_stream_early_frees_the_model(qa, frames) -> None:
    stream = qa.stream(frames, "What colour is the circle?", max_new_tokens=2000, min_new_tokens=1999)
    next(stream)
    stream.close()
    with earlytom.compress(qa.model, "none"):
        pass
    assert qa.ask(frames, "What colour is the circle?", max_new_tokens=2).new_tokens <= 2


def test_beams_and_dictionaries_work(qa, frames) -> None:
    question = "What colour is the circle?"
    plain = qa.ask(frames, question, num_beams=2, max_new_tokens=3)
    assert plain.text == qa.ask(frames, question, num_beams=2, max_new_tokens=3, return_dict_in_generate=True).text
    with pytest.raises(earlytom.CompressionError, match="beam"):
        list(qa.stream(frames, question, num_beams=2))


def test_inputs_are_what_the_processor_made_in_the_models_dtype(qa, frames) -> None:
    made = qa.host_inputs(qa.read(frames), "What shape is red?")
    inputs = qa.prepare_inputs(qa.read(frames), "What shape is red?")
    assert set(inputs) == set(made)
    for name, value in inputs.items():
        assert value.dtype == (qa.model.dtype if name.startswith("pixel_values") else made[name].dtype)
        assert torch.equal(value, made[name].to(value.dtype))


def test_the_trace_knows_decoding_and_preprocessing(qa, frames) -> None:
    split = qa.ask(frames, "What colour is the circle?", max_new_tokens=2).trace.last.split()
    assert split["preprocessing"] > 0
    assert split["decoding"] >= 0
    assert split["ttft"] > split["vision_encoding"] > 0


def test_placeholders_in_a_question_are_refused(qa, frames) -> None:
    with pytest.raises(earlytom.CompressionError, match="placeholder '<video>'"):
        qa.ask(frames, "what is in <video> ?")


def test_a_stream_can_be_cancelled_from_outside(qa, frames) -> None:
    cancelled, pieces = threading.Event(), []
    options = {"max_new_tokens": 200, "min_new_tokens": 200}
    for piece in qa.stream(frames, QUESTION, cancelled=cancelled, **options):
        pieces.append(piece)
        cancelled.set()
    whole = qa.ask(frames, QUESTION, **options)
    assert pieces
    assert len("".join(pieces)) < len(whole.text)


def test_a_stream_hands_its_pieces_to_a_callback_too(qa, frames) -> None:
    heard: list[str] = []
    assert list(qa.stream(frames, QUESTION, on_text=heard.append)) == heard != []


def test_many_answers_can_be_cancelled_but_not_streamed(qa, frames) -> None:
    cancelled = threading.Event()
    cancelled.set()
    answers = qa.ask_all(frames, [QUESTION, "What shape is red?"], cancelled=cancelled, max_new_tokens=20)
    assert [answer.new_tokens for answer in answers] == [1, 1]
    with pytest.raises(earlytom.CompressionError, match="ask one question to stream"):
        qa.ask_all(frames, [QUESTION], on_text=print)


@pytest.mark.parametrize("option", ["onn_text", "temperatur"])
def test_an_option_that_nobody_knows_is_named(qa, frames, option) -> None:
    for call in (
        lambda: qa.ask(frames, QUESTION, **{option: 1}),
        lambda: list(qa.stream(frames, QUESTION, **{option: 1})),
    ):
        with pytest.raises(ValueError, match=option):
            call()


def test_a_question_from_inside_an_answer_is_refused_instead_of_waiting_for_itself(qa, frames) -> None:
    failures: list[str] = []

    def again(text: str) -> None:
        try:
            qa.ask(frames, QUESTION, max_new_tokens=1)
        except earlytom.CompressionError as error:
            failures.append(str(error))

    answer = qa.ask(frames, QUESTION, on_text=again, max_new_tokens=3)
    assert answer.new_tokens
    assert failures
    assert "from inside the answer" in failures[0]
    qa.ask(frames, QUESTION, max_new_tokens=1)


def test_all_who_answer_with_one_model_take_turns(qa, frames) -> None:
    others = [earlytom.VideoQA(qa.model, qa.processor) for _ in range(3)]
    texts: list[str] = []

    def ask(other: earlytom.VideoQA) -> None:
        texts.extend(other.ask(frames, QUESTION, max_new_tokens=3).text for _ in range(3))

    threads = [threading.Thread(target=ask, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [qa.ask(frames, QUESTION, max_new_tokens=3).text] * 9


def test_what_is_no_question_and_no_event_is_named(qa, frames) -> None:
    for question in (None, 5):
        with pytest.raises(earlytom.CompressionError, match=f"must be text, got {question}"):
            qa.ask(frames, question)
    with pytest.raises(earlytom.CompressionError, match="must be text, got None"):
        qa.ask_all(frames, [QUESTION, None])
    for call in (
        lambda: qa.ask(frames, QUESTION, cancelled=True),
        lambda: list(qa.stream(frames, QUESTION, cancelled=1)),
    ):
        with pytest.raises(earlytom.CompressionError, match=r"cancelled must be a threading.Event"):
            call()


def damaged_clip() -> bytes:
    """A shipped clip with one damaged sample in its second half."""
    data = Path(earlytom.sample_videos()[0]).read_bytes()
    for sample in range(60, 90):
        damaged = slice_damaged(data, sample)
        if earlytom.read_video(damaged, earlytom.Sampling(frames=None), damage_tolerance=0.5).damaged:
            return damaged
    raise ValueError("no damage is seen")


def ways_to_read(qa, video, **reading):
    """Every way from a video to what is read of it."""
    short = {"max_new_tokens": 1, **reading}
    yield "read", lambda: qa.read(video, **reading)
    yield "ask", lambda: qa.ask(video, QUESTION, **short)
    yield "ask_all", lambda: qa.ask_all(video, [QUESTION, "What?"], **short)
    yield "stream", lambda: list(qa.stream(video, QUESTION, **short))


@pytest.mark.parametrize("way", range(4))
def test_limits_hold_on_every_way(qa, way) -> None:
    video = earlytom.sample_videos()[0]
    for limits in (earlytom.Limits(max_pixels=100), earlytom.Limits(max_bytes=100)):
        _, run = list(ways_to_read(qa, video, limits=limits))[way]
        with pytest.raises(earlytom.VideoError, match=r"Limits\.max_"):
            run()
    _, run = list(ways_to_read(qa, video, limits=None))[way]
    with pytest.raises(earlytom.VideoError, match="limits is a NoneType"):
        run()


@pytest.mark.parametrize("way", range(4))
def test_damage_is_tolerated_on_every_way_only_where_asked(qa, way) -> None:
    damaged, all_frames = damaged_clip(), earlytom.Sampling(frames=None)
    _, run = list(ways_to_read(qa, damaged, sampling=all_frames))[way]
    with pytest.raises(earlytom.VideoError, match="corrupt or truncated"):
        run()
    _, run = list(ways_to_read(qa, damaged, sampling=all_frames, damage_tolerance=0.5))[way]
    assert run()


def test_limits_scale_frames_down_for_an_answer(qa) -> None:
    answer = qa.ask(earlytom.sample_videos()[0], QUESTION, limits=earlytom.Limits(shrink_to=64), max_new_tokens=1)
    assert answer.trace.videos[0].source["scaled_from"]
    assert isinstance(answer, Answer)
    assert pipeline.Answer is Answer is earlytom.Answer
