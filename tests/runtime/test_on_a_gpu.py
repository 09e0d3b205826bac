"""What is different on a GPU: events that time, queues beside the main one, copies that do not wait. Here and there."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from earlytom.trace import Stopwatch

METHODS = ["earlytom:retention=0.25", "visionzip:retention=0.25", "holitom:retention=0.25", "prunevid:retention=0.25",
           "earlytom:retention=0.25,inner_merging=true", "tome:retention=0.25"]  # fmt: skip


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(request.param)


def moved(inputs, device):
    return {name: value.to(device) for name, value in inputs.items()}


def answer(model, inputs, method):
    with earlytom.compress(model, method) as trace:
        return model.generate(**inputs, do_sample=False, max_new_tokens=6), trace


@contextmanager
def another_queue(device):
    """A stream that is not the main one; on a CPU there is only one."""
    if device.type != "cuda":
        yield
        return
    stream, main = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        yield
    main.wait_stream(stream)


def test_stages_are_timed_where_they_run(device) -> None:
    clock, rows = Stopwatch(device), torch.randn(512, 512, device=device)
    with clock.stage("outer"):
        with clock.stage("inner"):
            for _ in range(20):
                rows = torch.mm(rows, rows).clamp(-1, 1)
        for _ in range(20):
            rows = torch.mm(rows, rows).clamp(-1, 1)
    spent = clock.milliseconds()
    assert 0 < spent["inner"] < spent["outer"]


@pytest.mark.parametrize("method", METHODS)
def test_a_call_beside_the_main_queue_gives_the_same(device, method) -> None:
    model, inputs = tiny_model().to(device), moved(batch([[clip(12, 0)]]), device)
    expected, _ = answer(model, inputs, method)
    with another_queue(device):
        found, trace = answer(model, inputs, method)
        split = trace.last.split()
    assert torch.equal(found.cpu(), expected.cpu())
    parts = [split[name] for name in ("vision_encoding", "token_processing", "prefill", "overhead")]
    assert sum(parts) == pytest.approx(split["ttft"])
    assert min(parts[:3]) > 0


@pytest.mark.parametrize("method", METHODS)
def test_decisions_are_those_of_the_host(device, method) -> None:
    """But for what rounding decides: a tie here and there."""
    inputs = batch([[clip(12, 0)], [clip(12, 1)]])
    _, here = answer(tiny_model(), inputs, method)
    _, there = answer(tiny_model().to(device), moved(inputs, device), method)
    for one, other in zip(here.videos, there.videos, strict=True):
        assert [merge.grids_after for merge in one.merges] == [merge.grids_after for merge in other.merges]
        assert one.tokens == other.tokens
        same = set(one.kept_tokens()) & set(other.kept_tokens())
        assert len(same) >= 0.9 * one.tokens


def test_copies_that_do_not_wait_arrive_whole(device) -> None:
    """Many small calls without a break between: a buffer that is given back too early would be written over."""
    model, inputs = tiny_model().to(device), moved(batch([[clip(12, 0)]]), device)
    prepared = [earlytom.prepare(model, inputs, METHODS[0]).arguments["inputs_embeds"] for _ in range(20)]
    assert all(torch.equal(one, prepared[0]) for one in prepared)
