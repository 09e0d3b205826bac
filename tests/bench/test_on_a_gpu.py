"""Counting and load on a GPU; the same tests run on a CPU, where nothing is different."""

from __future__ import annotations

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from earlytom.bench.ceilings import Ceilings
from earlytom.bench.load import closed_loop, model_callers
from earlytom.bench.roofline import call_stage, measure_rooflines
from earlytom.bench.work import count_work

QUARTER = "earlytom:retention=0.25,ranked_by=attention"
CEILINGS = Ceilings(flops=1e15, bandwidth=1e12, dtype="float32", side=8, copied=64, repeats=1)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda", torch.cuda.current_device()) if request.param == "cuda" else torch.device("cpu")


def placed(device):
    inputs = {name: value.to(device) for name, value in batch([[clip(12)]]).items()}
    return tiny_model(attention="eager").to(device), inputs


def test_the_same_is_counted_as_on_the_host(device) -> None:
    """Eager attention is the same products everywhere; what the host does for the device is not the device's work."""

    def counted(place):
        model, inputs = placed(place)
        with earlytom.compress(model, "none"):
            run = lambda: model.generate(**inputs, do_sample=False, max_new_tokens=2, min_new_tokens=2)  # noqa: E731
            return count_work(run, call_stage, place)

    here, there = counted(torch.device("cpu")), counted(device)
    stages = ("encoder", "projection", "prefill", "decoding")
    assert {name: there[name].flops for name in stages} == {name: here[name].flops for name in stages}
    for name in stages[:3]:
        assert there[name].bytes == pytest.approx(here[name].bytes, rel=0.05)


def test_stages_stay_above_what_cannot_be(device) -> None:
    """No stage is faster than a device far beyond any that there is."""
    model, inputs = placed(device)
    found = measure_rooflines(model, inputs, {"ours": QUARTER}, CEILINGS, repeats=1, decoding_steps=4)["ours"]
    assert all(stage.ratio > 1 for stage in found.stages if stage.bound)
    assert {stage.name for stage in found.stages} >= {"encoder", "merging", "attention", "selection", "prefill"}


def test_callers_share_the_device(device) -> None:
    model, inputs = placed(device)
    with model_callers(model, inputs, QUARTER, new_tokens=4)() as ask:
        done = closed_loop(ask, concurrency=4, requests=12)
    assert len(done.requests) == 12
    assert all(0 < request.ttft < request.whole for request in done.requests)
