"""A model with a method as an answerer."""

from __future__ import annotations

import pytest

import earlytom
from earlytom.eval.answering import ModelAnswerer, check_fit
from earlytom.eval.tasks import Benchmark, make_task
from earlytom.methods import parse_method


@pytest.mark.parametrize("clip", [0, 1])
@pytest.mark.parametrize("method", ["none", "earlytom:retention=0.1", "earlytom:retention=0.25,inner_merging=true"])
def test_answers_are_those_of_single_questions(qa, method, clip) -> None:
    task = make_task(Benchmark(source="frames", skills=("colour", "direction")), clip)
    assert task is not None
    answerer = ModelAnswerer(qa, parse_method(method))
    reply = answerer.answer(task)
    alone = [qa.ask(task.video, item.text, method=method, max_new_tokens=8) for item in task.questions]
    assert list(reply.texts) == [answer.text for answer in alone]
    assert (reply.visual_tokens, reply.frames_left) == (alone[0].visual_tokens, alone[0].frames_left)
    # Every fourth clip is timed.
    assert (reply.ttft is None) == (clip == 1)
    assert reply.ttft is None or reply.ttft > 0


def test_the_first_timed_call_is_warmed_up_and_only_that(qa, monkeypatch) -> None:
    calls = []
    ask = type(qa).ask
    monkeypatch.setattr(type(qa), "ask", lambda self, *args, **options: calls.append(1) or ask(self, *args, **options))
    task = make_task(Benchmark(source="frames", skills=("colour",), form="free"), 4)
    assert task is not None
    answerer = ModelAnswerer(qa, parse_method("earlytom"))
    answerer.answer(task)
    assert len(calls) == 2
    answerer.answer(task)
    assert len(calls) == 3


def test_a_method_that_does_not_fit_is_refused_at_once(qa) -> None:
    for check in (ModelAnswerer, check_fit):
        with pytest.raises(earlytom.MethodError, match="99"):
            check(qa, parse_method("earlytom:merge_layers=99"))
    check_fit(qa, parse_method("earlytom"))


def test_what_only_a_clip_shows_to_be_unfit_is_told_as_the_method_s_fault(qa) -> None:
    with pytest.raises(earlytom.MethodError, match="fastvid does not fit this model: the vision tower has no"):
        check_fit(qa, parse_method("fastvid"))


@pytest.mark.parametrize(("architecture", "frames"), [("llava_onevision", 5), ("qwen2_5_vl", 5), ("qwen2_5_vl", 6)])
def test_frames_left_are_sampled_ones(architecture, frames) -> None:
    model = earlytom.VideoQA.load(earlytom.shipped_model(architecture), device="cpu")
    task = make_task(Benchmark(source="frames", frames=frames, skills=("colour", "shape")), 1)
    assert task is not None
    assert ModelAnswerer(model, parse_method("none")).answer(task).frames_left == frames
