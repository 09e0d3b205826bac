"""Callers in a closed loop: how many there are, what is counted, and what happens when one fails."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager

import pytest
import torch

import earlytom
from conftest import batch, clip
from earlytom.bench.load import (
    Level,
    Request,
    Round,
    closed_loop,
    load_table,
    measure_load,
    model_callers,
    percentile,
)
from earlytom.errors import EarlyTomError


class Service:
    """Notes how many callers are inside at once."""

    def __init__(self, callers: int = 1) -> None:
        self.inside, self.most, self.asked = 0, 0, 0
        self._lock, self._together = threading.Lock(), threading.Barrier(callers)

    def __call__(self) -> float:
        with self._lock:
            self.inside, self.asked = self.inside + 1, self.asked + 1
            self.most = max(self.most, self.inside)
        self._together.wait(timeout=30)
        first = time.perf_counter()
        with self._lock:
            self.inside -= 1
        return first


@pytest.mark.parametrize("callers", [1, 3])
def test_all_callers_ask_at_the_same_time_until_there_have_been_enough(callers) -> None:
    service = Service(callers)
    done = closed_loop(service, concurrency=callers, requests=2 * callers)
    assert (service.asked, len(done.requests), service.inside) == (2 * callers, 2 * callers, 0)
    assert service.most == callers
    assert all(0 <= request.ttft <= request.whole <= done.seconds + 1 for request in done.requests)


def test_a_failure_ends_the_round_and_is_raised() -> None:
    asked = []

    def ask() -> float:
        asked.append(None)
        raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer"):
        closed_loop(ask, concurrency=2, requests=100)
    assert len(asked) <= 2


@pytest.mark.parametrize("callers", [0, 5])
def test_callers_without_requests_are_refused(callers) -> None:
    with pytest.raises(EarlyTomError, match=f"from 1 to the number of requests \\(4\\), got {callers}"):
        closed_loop(time.perf_counter, concurrency=callers, requests=4)


def test_percentiles_lie_between_the_values() -> None:
    values = [4.0, 1.0, 3.0, 2.0]
    assert [percentile(values, share) for share in (0, 0.5, 0.9, 1)] == pytest.approx([1, 2.5, 3.7, 4])
    assert percentile([7.0], 0.99) == 7.0
    for wrong in ([], [1.0]):
        with pytest.raises(EarlyTomError, match="a percentile needs values"):
            percentile(wrong, 1.5 if wrong else 0.5)


def test_variants_take_turns_at_every_load() -> None:
    order = []

    def variant(name):
        @contextmanager
        def opened():
            yield time.perf_counter

        return name, opened

    levels = measure_load(
        dict([variant("one"), variant("two")]),
        levels=(1, 2),
        requests=3,
        rounds=2,
        on_round=lambda *run: order.append(run),
    )
    assert order == [
        ("one", 2), ("two", 2),
        ("one", 1), ("two", 1), ("one", 2), ("two", 2),
        ("two", 1), ("one", 1), ("two", 2), ("one", 2),
    ]  # fmt: skip
    assert [(level.name, level.concurrency, len(level.requests)) for level in levels] == [
        ("one", 1, 6), ("two", 1, 6), ("one", 2, 12), ("two", 2, 12),
    ]  # fmt: skip


def test_a_full_device_ends_the_rise_of_one_variant_only() -> None:
    inside = []

    @contextmanager
    def small():
        inside.clear()

        def ask() -> float:
            inside.append(None)
            if len(inside) > 1:
                raise torch.OutOfMemoryError("full")
            return time.perf_counter()

        yield ask

    @contextmanager
    def large():
        yield time.perf_counter

    levels = measure_load({"small": small, "large": large}, levels=(1, 2, 4), requests=1, rounds=1)
    found = {(level.name, level.concurrency): (len(level.requests), level.failure) for level in levels}
    assert found["small", 1] == (1, None)
    assert found["small", 4] == (0, "the device's memory is full with 2 callers")
    assert [found["large", level][0] for level in (1, 2, 4)] == [1, 2, 4]
    assert (
        "the device's memory is full with 2 callers" in load_table([level.to_dict() for level in levels]).to_markdown()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {}}, "no variant"),
        ({"levels": (2, 1)}, "ascending numbers of callers from 1 on, got \\[2, 1\\]"),
        ({"levels": (0,)}, "ascending numbers"),
        ({"requests": 0}, "requests must be at least 1, got 0"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
    ],
)
def test_a_plan_of_nothing_is_refused(changes, message) -> None:
    given = {"variants": {"one": None}, "levels": (1,), "requests": 1, "rounds": 1}
    with pytest.raises(EarlyTomError, match=message):
        measure_load(**given | changes)


def test_rates_and_percentiles_are_of_all_rounds() -> None:
    rounds = tuple(
        Round(concurrency=2, seconds=seconds, requests=(Request(ttft=ttft, whole=1.0),) * 4)
        for seconds, ttft in ((1.0, 0.1), (3.0, 0.3))
    )
    level = Level(name="one", concurrency=2, rounds=rounds)
    assert level.requests_per_second == 2.0
    assert [round_.requests_per_second for round_ in rounds] == pytest.approx([4.0, 4 / 3])
    plain = json.loads(json.dumps(level.to_dict()))
    assert plain["ttft"] == pytest.approx({"p50": 200.0, "p90": 300.0, "p99": 300.0})
    assert "| one | 2 | 8 | 2 | 200 | 300 | 300 |" in load_table([level.to_dict()]).to_markdown()


@pytest.mark.parametrize("in_turns", [False, True])
def test_callers_of_one_model_get_what_a_single_one_gets(model, in_turns) -> None:
    inputs, answers = batch([[clip(12)]]), []
    with earlytom.compress(model, "earlytom:retention=0.25"):
        expected = model.generate(**inputs, do_sample=False, max_new_tokens=3, min_new_tokens=3)
    hook = model.register_forward_hook(lambda module, given, output: answers.append(output.logits[:, -1].argmax(-1)))
    try:
        with model_callers(model, inputs, "earlytom:retention=0.25", new_tokens=3, in_turns=in_turns)() as ask:
            done = closed_loop(ask, concurrency=2, requests=4)
    finally:
        hook.remove()
    assert all(0 < request.ttft < request.whole for request in done.requests)
    counts = torch.stack(answers).flatten().bincount(minlength=300)
    assert torch.equal(counts, 4 * expected[0, -3:].bincount(minlength=300))


def test_callers_in_turns_are_never_inside_together(model) -> None:
    inside, most = [], []

    def enter(module, given):
        inside.append(threading.get_ident())
        most.append(len(set(inside)))

    hooks = [
        model.model.language_model.register_forward_pre_hook(enter),
        model.model.language_model.register_forward_hook(lambda *_: inside.remove(threading.get_ident())),
    ]
    try:
        with model_callers(model, batch([[clip(4)]]), "none", new_tokens=2, in_turns=True)() as ask:
            closed_loop(ask, concurrency=3, requests=6)
    finally:
        for hook in hooks:
            hook.remove()
    assert max(most) == 1
    assert len(most) == 12
