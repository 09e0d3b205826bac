"""The wait before the model, in parts."""

from __future__ import annotations

import pytest
import torch

import earlytom
from earlytom.bench.processors import made_up_question
from earlytom.bench.reading import ReadingTimes, forget_file, measure_reading
from earlytom.video import Sampling


def test_parts_are_timed_and_the_inputs_are_those_of_any_question(tiny, generated) -> None:
    question = made_up_question()
    times, video, inputs = measure_reading(tiny, generated, question, Sampling(frames=6))
    assert min(times.open, times.preprocess, times.to_device) > 0
    assert times.decode >= 0
    assert times.all == times.open + times.decode + times.preprocess + times.to_device
    assert times.all - times.opened == pytest.approx(times.open)
    expected = tiny.prepare_inputs(tiny.read(generated, Sampling(frames=6)), question)
    assert (video.frames == tiny.read(generated, Sampling(frames=6)).frames).all()
    assert set(inputs) == set(expected)
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)


def test_forgetting_a_file_changes_none_of_it(generated) -> None:
    before = generated.read_bytes()
    forget_file(generated)
    assert generated.read_bytes() == before


def test_a_file_that_is_none_is_told(tiny, tmp_path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    with pytest.raises(earlytom.VideoError, match=r"text\.mp4"):
        measure_reading(tiny, path, "What?", Sampling(frames=4))


def test_times_add_up() -> None:
    times = ReadingTimes(open=1.0, decode=2.0, preprocess=4.0, to_device=8.0)
    assert (times.opened, times.all) == (14.0, 15.0)
