"""A whole benchmark on a tiny model, and what comes of its runs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

import earlytom
from earlytom import parse_method
from earlytom.bench import reading, running
from earlytom.bench.accounting import PAPER_MODELS, LanguageShape
from earlytom.bench.clips import redundant_share
from earlytom.bench.configurations import CONFIGURATIONS, Configuration, build_video_qa, find_configuration
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
    stock = Measurer.timed

    def timed(self, subject, inputs):
        if subject.attention == "eager":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return stock(self, subject, inputs)

    monkeypatch.setattr(Measurer, "timed", timed)
    found = run(tiny, generated, make_subjects(METHODS[:1], [4]), repeats=1)
    assert [result.name for result in found.results] == ["none sdpa", "earlytom 25%"]
    assert found.left_out == [{"name": "none eager", "frames": 4, "reason": "the device's memory is too small"}]


def measured_whole(tiny, generated, frames, *, name="tiny", methods=(), **settings):
    return measure_whole(
        tiny,
        Clip(path=generated),
        make_subjects(methods, frames),
        question=made_up_question(),
        settings={"repeats": 1, "warm_ups": 0, "new_tokens": 1} | settings,
        model=describe_model(tiny.model, name, "random, seed 0"),
    )


def test_a_name_of_the_papers_costs_nothing_and_makes_no_model_the_papers(tiny, generated) -> None:
    """A folder can have any name; the paper's model of that one has another number of layers than the tiny one."""
    found = measured_whole(tiny, generated, [4], name="llava-onevision-7b")
    assert found.model["name"] == "llava-onevision-7b"
    assert [result.flops.paper for result in found.results] == [None, None]


def test_the_papers_accounting_stands_beside_what_was_counted_by_frames_that_went_in(
    tiny, generated, monkeypatch
) -> None:
    """Of a model of the paper's shape, whatever it is called; 48 frames are all there are."""
    text = tiny.model.config.text_config
    monkeypatch.setitem(
        PAPER_MODELS, "llava-onevision-7b", replace(PAPER_MODELS["llava-onevision-7b"], language=shape(text))
    )
    found = measured_whole(tiny, generated, [12, 64], name="somebody else's")
    few, many = found.results[0], found.results[2]
    assert (few.frames, few.asked, few.flops.paper["vision"]) == (12, 12, round(41.8e12 * 12 / 32))
    assert (many.frames, many.asked, many.flops.paper["vision"]) == (48, 64, round(41.8e12 * 48 / 32))


def shape(text) -> LanguageShape:
    key_width = text.num_key_value_heads * text.hidden_size // text.num_attention_heads
    return LanguageShape(
        layers=text.num_hidden_layers, width=text.hidden_size, inner=text.intermediate_size, key_width=key_width
    )


def test_frames_asked_for_and_taken_stand_side_by_side(tiny, generated) -> None:
    """Of a clip of 48 frames, and of a budget for 5 frames of 16 tokens."""
    found = measured_whole(tiny, generated, [64, 96])
    told = [(one["frames"], one["frames_asked"], one["tokens"]["temporal_grids"]) for one in found.to_dict()["results"]]
    assert told == [(48, 64, 48), (48, 64, 48), (48, 96, 48), (48, 96, 48)]
    assert found.reference(96) is found.results[2]
    budget = measured_whole(tiny, generated, [8], max_tokens=80)
    one = budget.to_dict()["results"][0]
    assert (one["frames"], one["frames_asked"], one["tokens"]["temporal_grids"]) == (5, 8, 5)


def test_newlines_are_no_tokens_of_the_question(generated) -> None:
    """LLaVA-Video's prompt has a newline behind every row of every frame."""
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    with pytest.MonkeyPatch.context() as patch:
        stock = find_configuration("llava-video-7b").configure

        def configure():
            config = stock()
            for part in (config.vision_config, config.text_config):
                for name, value in small.items():
                    setattr(part, name, value)
            config.text_config.num_key_value_heads = 2
            return config

        patch.setitem(CONFIGURATIONS, "llava-video-7b", Configuration(family="llava_video", configure=configure))
        qa = build_video_qa("llava-video-7b", device="cpu", dtype=torch.float32)
    found = run(qa, generated, make_subjects([], [1]), repeats=1, warm_ups=0)
    ids = qa.prepare_inputs(qa.read(generated, Sampling(frames=1)), made_up_question())["input_ids"]
    assert found.question_tokens == (ids != qa.model.config.video_token_id).sum()
    tokens = found.results[0].tokens
    assert tokens.prefill - tokens.visual > found.question_tokens


def test_how_far_off_frames_are_is_told_where_others_near_them_are_allowed(tiny, generated) -> None:
    assert measured_whole(tiny, generated, [4]).clip["deviation"] is None
    deviation = measured_whole(tiny, generated, [4], near=0.5).clip["deviation"]
    off = [abs(seconds) for seconds in tiny.read(generated, Sampling(frames=4, near=0.5)).deviations]
    assert deviation == {"mean": pytest.approx(sum(off) / 4, abs=1e-4), "largest": pytest.approx(max(off), abs=1e-4)}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "the device's memory is too small"),
        (MemoryError(), "memory is too small"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "memory is too small"),
        (earlytom.VideoError("the frames would take too much memory"), "the frames would take too much memory"),
    ],
)
@pytest.mark.parametrize("fails_from", [1, 2])
def test_memory_that_is_too_small_to_read_so_many_frames_costs_these_only(
    tiny, generated, monkeypatch, error, reason, fails_from
) -> None:
    times = 0

    def measure(qa, path, question, sampling, max_tokens=None):
        nonlocal times
        times += sampling.frames == 8
        if sampling.frames == 8 and times >= fails_from:
            raise error
        return reading.measure_reading(qa, path, question, sampling, max_tokens)

    monkeypatch.setattr(running, "measure_reading", measure)
    found = run(tiny, generated, make_subjects([], [4, 8]), repeats=1, warm_ups=0)
    assert [(result.name, result.frames) for result in found.results] == [("none sdpa", 4), ("none eager", 4)]
    assert found.left_out == [
        {"name": name, "frames": 8, "reason": f"reading 8 frames: {reason}"} for name in ("none sdpa", "none eager")
    ]


def test_what_cannot_be_read_at_all_is_an_error(tiny, tmp_path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    with pytest.raises(earlytom.VideoError, match=r"text\.mp4"):
        run(tiny, path, make_subjects([], [4, 8]), repeats=1, warm_ups=0)


def test_faults_of_a_program_are_no_lack_of_memory(tiny, generated, monkeypatch) -> None:
    def fail(*arguments):
        raise RuntimeError("a fault")

    monkeypatch.setattr(running, "measure_reading", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        run(tiny, generated, make_subjects([], [4, 8]), repeats=1, warm_ups=0)


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
        "deviation": None,
    }
    assert found["results"][0]["tokens_per_second"] is None
    assert {"load_at_start", "load_at_end", "versions", "device"} <= set(found["environment"])


def test_of_a_generated_clip_its_settings_are_told(generated) -> None:
    from bench.conftest import SETTINGS

    described = describe_clip(Clip(path=generated, made=SETTINGS), 0.5)
    assert (described["kind"], described["name"]) == ("generated", "generated, 96x64, 4 s")
    assert (described["redundant_share"], described["redundant_share_asked"]) == (0.5, 0.75)
