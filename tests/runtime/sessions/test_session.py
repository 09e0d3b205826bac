"""A conversation equals prompts that are made afresh with the whole history."""

from __future__ import annotations

import pytest
import torch

import earlytom
from families import FAMILY_NAMES
from families.processors import video_qa
from models.test_wrapping import with_lora
from runtime.sessions.fresh import FIRST, QUARTER, SECOND, THIRD, asked, fresh

METHODS = [QUARTER, "none", "visionzip:retention=0.25"]


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def qa(request) -> earlytom.VideoQA:
    return video_qa(request.param)


@pytest.fixture(scope="module")
def llava() -> earlytom.VideoQA:
    return video_qa("llava_onevision")


def read(qa, number=0, frames=12) -> earlytom.Video:
    return qa.read(earlytom.sample_videos()[number], earlytom.Sampling(frames=frames))


def assert_same(one, other) -> None:
    assert one[0] == other[0]
    assert one[1].shape == other[1].shape
    torch.testing.assert_close(one[1], other[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_turn_equals_a_fresh_prompt_with_the_whole_history(qa, method) -> None:
    video = read(qa)
    with qa.open(video, method=method) as session:
        for question in (FIRST, SECOND, THIRD):
            turns = session.history
            expected = fresh(qa, [video], turns, question, method=method, max_new_tokens=4)
            assert_same(asked(session, question, max_new_tokens=4), expected)
        assert [question for question, _ in session.history] == [FIRST, SECOND, THIRD]


def test_an_odd_number_of_frames_and_a_single_one(qa) -> None:
    for frames in (7, 1):
        video = read(qa, frames=frames)
        with qa.open(video, method=QUARTER) as session:
            expected = fresh(qa, [video], (), FIRST, max_new_tokens=3)
            assert_same(asked(session, FIRST, max_new_tokens=3), expected)


def test_several_videos(qa) -> None:
    lengths = (12, 6) if "qwen" in qa.model.config.model_type else (8, 8)
    videos = [read(qa, number, frames) for number, frames in enumerate(lengths)]
    with qa.open(*videos, method=QUARTER) as session:
        for question in (FIRST, SECOND):
            expected = fresh(qa, videos, session.history, question, max_new_tokens=4)
            assert_same(asked(session, question, max_new_tokens=4), expected)
        alone = [qa.ask(video, FIRST, method=QUARTER, max_new_tokens=1) for video in videos]
        together = session.ask(THIRD, max_new_tokens=1)
    for count in ("frames", "frames_left", "temporal_grids", "visual_tokens", "visual_tokens_uncompressed"):
        assert getattr(together, count) == sum(getattr(answer, count) for answer in alone), count


def test_a_system_prompt_stands_before_the_videos(qa) -> None:
    video, system = read(qa), "here is what moves\n"
    with qa.open(video, method=QUARTER, system=system) as session:
        for question in (FIRST, SECOND):
            expected = fresh(qa, [video], session.history, question, system=system, max_new_tokens=4)
            assert_same(asked(session, question, max_new_tokens=4), expected)


def test_a_limited_history(qa) -> None:
    video = read(qa)
    for limit in (0, 1):
        with qa.open(video, method=QUARTER, max_history=limit) as session:
            for question in (FIRST, SECOND, THIRD):
                kept = session.history
                assert len(kept) <= limit
                expected = fresh(qa, [video], kept, question, max_new_tokens=4)
                assert_same(asked(session, question, max_new_tokens=4), expected)


def test_beams_and_what_is_asked_behind_them(qa) -> None:
    video = read(qa)
    with qa.open(video, method=QUARTER) as session:
        beams, plain = {"max_new_tokens": 4, "num_beams": 3}, {"max_new_tokens": 4}
        for question, options in ((FIRST, beams), (SECOND, beams), (THIRD, plain)):
            expected = fresh(qa, [video], session.history, question, **options)
            assert_same(asked(session, question, **options), expected)


def test_sampling_draws_as_a_fresh_prompt_does(qa) -> None:
    video, options = read(qa), {"do_sample": True, "temperature": 2.0, "max_new_tokens": 6}
    with qa.open(video, method=QUARTER) as session:
        for several in ({}, {"num_return_sequences": 2}):
            torch.manual_seed(3)
            expected = fresh(qa, [video], session.history, FIRST, **options, **several)
            torch.manual_seed(3)
            assert_same(asked(session, FIRST, **options, **several), expected)


def test_penalties_count_the_tokens_of_the_prompt(llava) -> None:
    """In families with text between frames those of frames that are gone are not in the session's prompt."""
    video, options = read(llava), {"repetition_penalty": 2.0, "max_new_tokens": 4}
    with llava.open(video, method=QUARTER) as session:
        assert_same(asked(session, FIRST, **options), fresh(llava, [video], (), FIRST, **options))


def test_the_encoder_runs_once_and_a_question_prefills_itself(qa) -> None:
    vision = qa.model.model.visual if hasattr(qa.model.model, "visual") else qa.model.model.vision_tower
    projector = next(module for name, module in vision.named_modules() if name.endswith(("patch_embed", "embeddings")))
    runs: list[int] = []
    handle = projector.register_forward_hook(lambda *_: runs.append(1))
    try:
        with qa.open(read(qa), method=QUARTER) as session:
            opened = len(runs)
            assert opened
            whole = qa.ask(read(qa), FIRST, method=QUARTER, max_new_tokens=1).prefill_tokens
            again = len(runs)
            answers = [session.ask(question, max_new_tokens=2) for question in (FIRST, SECOND)]
            assert len(runs) == again
    finally:
        handle.remove()
    assert session.trace.last.prefill_tokens + answers[0].prefill_tokens == whole
    assert answers[1].prefill_tokens < whole
    assert answers[1].trace.last.prefill_tokens == answers[1].prefill_tokens


def test_two_lines_of_talk_do_not_disturb_each_other(qa) -> None:
    video = read(qa)
    session = qa.open(video, method=QUARTER)
    session.ask(FIRST, max_new_tokens=3)
    before, fork = session.history, session.fork()
    fork.ask(SECOND, max_new_tokens=3)
    assert session.history == before
    session.close()
    assert len(fork.history) == 2
    expected = fresh(qa, [video], fork.history, THIRD, max_new_tokens=4)
    assert_same(asked(fork, THIRD, max_new_tokens=4), expected)


def test_memory_is_that_of_keys_and_values(qa) -> None:
    config, session = qa.model.config.get_text_config(), qa.open(read(qa), method=QUARTER)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    position = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * size
    opened = session.memory
    assert opened % position == 0
    assert opened // position >= session.visual_tokens
    answer = session.ask(FIRST, max_new_tokens=4)
    assert session.memory - opened == position * (answer.prefill_tokens + answer.new_tokens - 1)


def test_streamed_pieces_are_the_answer_and_stay_in_the_history(llava) -> None:
    session, heard = llava.open(read(llava), method=QUARTER), []
    expected = session.fork().ask(FIRST, max_new_tokens=5).text
    pieces = list(session.stream(FIRST, max_new_tokens=5, on_text=heard.append))
    assert "".join(pieces).strip() == expected
    assert heard == pieces
    assert session.history == ((FIRST, expected),)


def test_the_model_is_left_as_it_was(qa) -> None:
    def state() -> list:
        return [(name, sorted(vars(module))) for name, module in qa.model.named_modules()]

    deltas = getattr(qa.model.model, "rope_deltas", None)
    before = state()
    with qa.open(read(qa), method=QUARTER) as session:
        assert state() == before
        session.ask(FIRST, max_new_tokens=2)
        assert state() == before
    assert getattr(qa.model.model, "rope_deltas", None) is deltas
    answer = qa.ask(read(qa), FIRST, method=QUARTER, max_new_tokens=2)
    assert answer.visual_tokens == answer.trace.videos[0].budget


def test_an_opened_session_tells_what_happened_to_its_videos(llava) -> None:
    session = llava.open(read(llava), method=QUARTER)
    assert session.trace.videos[0].tokens == session.visual_tokens == session.trace.videos[0].budget
    assert session.trace.videos[0].source["source"].endswith(".mp4")
    assert set(session.trace.last.split()) >= {"decoding", "preprocessing"}
    assert session.method == QUARTER
    assert repr(session).startswith(f"<VideoSession, {QUARTER}, 0 turns, ")
    session.close()
    assert repr(session) == "<VideoSession, closed>"


def test_half_precision() -> None:
    qa = video_qa("qwen3_vl")
    qa.model.to(torch.bfloat16)
    with qa.open(read(qa), method=QUARTER) as session:
        first = session.ask(FIRST, max_new_tokens=4)
        assert session.memory % 2 == 0
        assert first.new_tokens == 4


def test_placeholders_that_the_model_writes_do_not_stand_for_videos() -> None:
    from earlytom.runtime.sessions.talk import Talk

    processor = video_qa("llava_onevision").processor
    talk = Talk(videos=1).with_turn(processor, FIRST, "a <video> moves")
    assert talk.turns == ((FIRST, "a  moves"),)


def test_a_budget_of_tokens_is_that_of_single_questions(qa) -> None:
    video = read(qa)
    whole = qa.ask(video, FIRST, method="none", max_new_tokens=1)
    budget = whole.visual_tokens_uncompressed // 2
    alone = qa.ask(video, FIRST, method=QUARTER, max_tokens=budget, max_new_tokens=4)
    with qa.open(video, method=QUARTER, max_tokens=budget) as session:
        answer = session.ask(FIRST, max_new_tokens=4)
    assert 0 < answer.visual_tokens_uncompressed <= budget
    for name in ("text", "visual_tokens", "visual_tokens_uncompressed", "frames", "temporal_grids"):
        assert getattr(answer, name) == getattr(alone, name), name


@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl"])
def test_a_wrapped_model(family) -> None:
    plain = video_qa(family)
    qa = earlytom.VideoQA(with_lora(plain.model), plain.processor)
    video = read(qa)
    with qa.open(video, method=QUARTER) as session:
        for question in (FIRST, SECOND):
            expected = fresh(qa, [video], session.history, question, max_new_tokens=4)
            assert_same(asked(session, question, max_new_tokens=4), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_and_back(qa, tmp_path) -> None:
    video = read(qa)
    with qa.open(video, method=QUARTER) as session:
        session.ask(FIRST, max_new_tokens=3)
        session.save(tmp_path / "talk")
    qa.model.to("cuda")
    try:
        with qa.load_session(tmp_path / "talk") as loaded, qa.open(video, method=QUARTER) as opened:
            assert loaded.ask(SECOND, max_new_tokens=3).new_tokens == 3
            for question in (FIRST, SECOND):
                assert asked(opened, question, max_new_tokens=3)[1].is_cuda
            assert len(opened.history) == 2
    finally:
        qa.model.to("cpu")
