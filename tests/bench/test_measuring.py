"""One timed run."""

from __future__ import annotations

import pytest

from earlytom import ModelError, parse_method
from earlytom.bench.measuring import Measurer, Timed
from earlytom.bench.processors import made_up_question
from earlytom.bench.subjects import Subject
from earlytom.video import Sampling


def subject(text: str, attention: str = "sdpa") -> Subject:
    return Subject(method=parse_method(text), label=text, attention=attention, frames=6)


@pytest.fixture(scope="module")
def inputs(tiny, generated):
    return tiny.prepare_inputs(tiny.read(generated, Sampling(frames=6)), made_up_question())


def test_speeds_follow_from_the_times() -> None:
    timed = Timed(split={"ttft": 400.0}, generate=1000.0, new_tokens=7)
    assert timed.tokens_per_second == pytest.approx(10)
    assert timed.throughput == pytest.approx(7)
    assert Timed(split={"ttft": 400.0}, generate=400.0, new_tokens=1).tokens_per_second is None


def test_a_run_makes_as_many_tokens_as_asked_for_and_its_parts_add_up(tiny, inputs) -> None:
    made = []
    remember = tiny.model.lm_head.register_forward_hook(lambda *_: made.append(1))
    try:
        timed, call = Measurer(tiny.model, 5).timed(subject("earlytom:retention=0.25"), inputs)
    finally:
        remember.remove()
    assert len(made) == timed.new_tokens == 5
    parts = ("vision_encoding", "token_processing", "prefill", "overhead")
    assert sum(timed.split[name] for name in parts) == pytest.approx(timed.split["ttft"])
    assert 0 < timed.split["ttft"] < timed.generate
    assert call.videos[0].tokens == call.videos[0].budget


def test_attention_is_the_subjects(tiny, inputs) -> None:
    seen = []
    remember = tiny.model.model.language_model.register_forward_pre_hook(
        lambda module, arguments: seen.append(module.config._attn_implementation)
    )
    try:
        for name in ("eager", "sdpa"):
            Measurer(tiny.model, 1).timed(subject("none", name), inputs)
    finally:
        remember.remove()
    assert seen == ["eager", "sdpa"]


def test_attention_that_there_is_not_is_refused(tiny, inputs) -> None:
    with pytest.raises(ModelError, match="attention 'nothing' cannot be used"):
        Measurer(tiny.model, 1).timed(subject("none", "nothing"), inputs)
