"""A whole benchmark on a tiny model, and what comes of its runs."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import earlytom
from earlytom import parse_method
from earlytom.bench.clips import redundant_share
from earlytom.bench.measuring import Measurer
from earlytom.bench.processors import made_up_question
from earlytom.bench.results import TIMES
from earlytom.bench.running import run_bench, steps_of
from earlytom.bench.subjects import make_subjects
from earlytom.bench.whole import Clip, describe_clip, describe_model, measure_whole
from earlytom.video import Sampling

METHODS = [(text, parse_method(f"{text}:retention=0.25")) for text in ("earlytom", "visionzip")]


def run(tiny, generated, subjects, **options):
    return run_bench(tiny, generated, subjects, question=made_up_question(), **{"repeats": 2} | options)


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def found(tiny, generated, told):
    subjects = make_subjects(METHODS, [4, 8])
    return run(tiny, generated, subjects, new_tokens=3, on_run=told.append)


def test_every_subject_is_measured_as_often(found, told) -> None:
    assert [(result.name, result.frames) for result in found.results] == [
        (name, frames) for frames in (4, 8) for name in ("none sdpa", "none eager", "earlytom 25%", "visionzip 25%")
    ]
    assert found.left_out == []
    for result in found.results:
        assert set(result.milliseconds) <= set(TIMES)
        assert all(len(quartiles.values) == 2 for quartiles in result.milliseconds.values())
    # A warm-up round, an inspection and two rounds, for each number of frames.
    assert Counter(told) == {
        "reading 4 frames": 3,
        "reading 8 frames": 3,
        **dict.fromkeys(("none sdpa", "none eager", "earlytom 25%", "visionzip 25%"), 8),
    }
    assert len(told) == steps_of(make_subjects(METHODS, [4, 8]), repeats=2, warm_ups=1)


def test_the_wait_is_reading_and_time_to_first_token_of_one_round(found) -> None:
    for result in found.results:
        times = {name: quartiles.values for name, quartiles in result.milliseconds.items()}
        for number in range(2):
            before = sum(times[name][number] for name in ("decode", "preprocess", "to_device"))
            assert times["wait_open"][number] == pytest.approx(before + times["ttft"][number])
            assert times["wait"][number] == pytest.approx(times["wait_open"][number] + times["open"][number])
            split = ("vision_encoding", "token_processing", "prefill", "overhead")
            assert sum(times[name][number] for name in split) == pytest.approx(times["ttft"][number])


def test_tokens_are_those_of_the_call(found) -> None:
    plain, _, earlytom_, visionzip = (result.tokens for result in found.results[4:])
    assert (plain.uncompressed, plain.visual, plain.temporal_grids) == (128, 128, 8)
    assert (earlytom_.visual, visionzip.visual) == (32, 32)
    assert list(earlytom_.grids_after) == [3, 10, 16]
    assert visionzip.grids_after == {}
    assert found.question_tokens == plain.prefill - plain.visual - 1  # LLaVA-OneVision's newline


def test_results_are_plain_data(found) -> None:
    (written,) = [result.to_dict() for result in found.results if (result.name, result.frames) == ("earlytom 25%", 4)]
    json.dumps(written)
    assert written["method"] == "earlytom:retention=0.25"
    assert set(written["milliseconds"]) == set(TIMES)
    assert written["milliseconds"]["ttft"]["values"]
    assert set(written["peak_bytes"]) == {"vision_encoding", "token_processing", "prefill", "decoding", "all"}
    assert written["device"]["waits"] is None
    assert written["device"]["operations"] > 0
    assert written["flops"]["paper"] is None


def test_what_does_not_fit_is_left_out_with_its_reason(tiny, generated) -> None:
    misfit = [("fastv", parse_method("fastv:retention=0.25,layer=2")), *METHODS[:1]]
    found = run(tiny, generated, make_subjects(misfit, [4]), repeats=1, warm_ups=0)
    assert [result.name for result in found.results] == ["none sdpa", "none eager", "earlytom 25%"]
    ((entry),) = found.left_out
    assert (entry["name"], entry["frames"]) == ("fastv 25%", 4)
    assert "retention 0.25 cannot be reached" in entry["reason"]


def test_memory_that_is_too_small_costs_one_subject_only(tiny, generated, monkeypatch) -> None:
    import torch

    stock = Measurer.timed

    def timed(self, subject, inputs):
        if subject.attention == "eager":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return stock(self, subject, inputs)

    monkeypatch.setattr(Measurer, "timed", timed)
    found = run(tiny, generated, make_subjects(METHODS[:1], [4]), repeats=1)
    assert [result.name for result in found.results] == ["none sdpa", "earlytom 25%"]
    assert found.left_out == [{"name": "none eager", "frames": 4, "reason": "the device's memory is too small"}]


def test_the_papers_accounting_stands_beside_what_was_counted(tiny, generated) -> None:
    """Of a model of the paper's name; its table knows another number of layers than the tiny one has."""
    with pytest.raises(earlytom.EarlyTomError, match="28 language layers"):
        run(tiny, generated, make_subjects([], [4]), repeats=1, warm_ups=0, paper_model="llava-onevision-7b")
    found = run(tiny, generated, make_subjects([], [4]), repeats=1, warm_ups=0, paper_model="somebody else's")
    assert found.results[0].flops.paper is None


def test_the_model_keeps_the_attention_that_it_had(tiny, generated) -> None:
    before = tiny.model.config._attn_implementation
    run(tiny, generated, make_subjects([], [4]), repeats=1, warm_ups=0)  # eager is measured last
    assert tiny.model.config._attn_implementation == before
    assert tiny.model.config.vision_config._attn_implementation == before


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"warm_ups": -1}, {"new_tokens": 0}])
def test_numbers_that_cannot_be_are_refused(tiny, generated, wrong) -> None:
    with pytest.raises(earlytom.EarlyTomError, match=f"{next(iter(wrong))} must be at least"):
        run(tiny, generated, make_subjects([], [4]), **wrong)


def test_a_whole_document_tells_what_was_measured_on(tiny, generated) -> None:
    settings = {"repeats": 1, "warm_ups": 0, "new_tokens": 1, "dtype": "float32"}
    found = measure_whole(
        tiny,
        Clip(path=generated),
        make_subjects([], [4]),
        question=made_up_question(),
        settings=settings,
        model=describe_model(tiny.model, "tiny", "random, seed 0"),
    ).to_dict()
    json.dumps(found)
    assert found["schema"] == "earlytom.bench/1"
    assert found["model"]["family"] == "llava_onevision"
    assert (found["model"]["vision_depth"], found["model"]["language_depth"]) == (26, 4)
    assert found["settings"] == settings | {"question_tokens": 38}
    frames = tiny.read(generated, Sampling(frames=4)).frames
    assert found["clip"] == {
        "kind": "file",
        "name": generated.name,
        "width": 96,
        "height": 64,
        "seconds": 4.0,
        "redundant_share": redundant_share(frames),
        "redundant_share_asked": None,
    }
    assert found["results"][0]["tokens_per_second"] is None
    assert {"load_at_start", "load_at_end", "versions", "device"} <= set(found["environment"])


def test_of_a_generated_clip_its_settings_are_told(generated) -> None:
    from bench.conftest import SETTINGS

    described = describe_clip(Clip(path=generated, made=SETTINGS), 0.5)
    assert (described["kind"], described["name"]) == ("generated", "generated, 96x64, 4 s")
    assert (described["redundant_share"], described["redundant_share_asked"]) == (0.5, 0.75)
