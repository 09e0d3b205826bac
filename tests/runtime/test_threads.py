"""Threads inside one block, and threads that enter and leave blocks: nothing of one call reaches another."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from families import FAMILY_NAMES, family_case

QUARTER = "earlytom:retention=0.25"
INSIDE = ["earlytom:retention=0.25,inner_merging=true", "inner-merging:layer=1", "fastv", "pyramiddrop", QUARTER]
THREADS, ROUNDS = 4, 100


def logits_of(model, inputs, **options) -> torch.Tensor:
    output = model.generate(
        **inputs, do_sample=False, max_new_tokens=4, return_dict_in_generate=True, output_logits=True, **options
    )
    return torch.stack(output.logits)


@contextmanager
def fast_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def run_threads(*targets) -> list[BaseException]:
    """Run each target in a thread; what they raised."""
    failures: list[BaseException] = []

    def run(target) -> None:
        try:
            target()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return failures


@pytest.mark.parametrize("method", INSIDE)
def test_many_calls_of_several_threads(method) -> None:
    """Of calls whose hooks others could meet half-registered, one in a hundred failed: four hundred show it."""
    model = tiny_model()
    prompts = [batch([[clip(12, seed)]]) for seed in range(THREADS)]
    with earlytom.compress(model, method):
        expected = [logits_of(model, inputs) for inputs in prompts]

        def calls(number: int) -> None:
            for _ in range(ROUNDS):
                torch.testing.assert_close(logits_of(model, prompts[number]), expected[number], atol=1e-5, rtol=1e-5)

        with fast_switching():
            assert run_threads(*(lambda number=number: calls(number) for number in range(THREADS))) == []


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("part", ["layer", "language model"])
def test_a_call_that_ends_while_another_passes_a_layer(family, part) -> None:
    """The second thread is held where a module's hooks have been listed but not run, until the first call has ended."""
    case = family_case(family)
    model = case.build()
    language_model = model.model.language_model
    watched = language_model.layers[3] if part == "layer" else language_model
    inputs = [case.batch([[case.clip(6, seed)]]) for seed in range(2)]
    inside, passing, ended = threading.Event(), threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        name = threading.current_thread().name
        if name == "first" and not inside.is_set():
            inside.set()
            assert passing.wait(30)
        elif name == "second" and not passing.is_set():
            passing.set()
            assert ended.wait(30)

    found: dict[str, torch.Tensor] = {}

    def first() -> None:
        threading.current_thread().name = "first"
        found["first"] = logits_of(model, inputs[0])
        ended.set()

    def second() -> None:
        threading.current_thread().name = "second"
        assert inside.wait(30)
        found["second"] = logits_of(model, inputs[1])

    with earlytom.compress(model, "earlytom:retention=0.5,inner_merging=true,inner_layer=3"):
        expected = [logits_of(model, one) for one in inputs]
        handle = watched.register_forward_pre_hook(hold)
        try:
            assert run_threads(first, second) == []
        finally:
            handle.remove()
    torch.testing.assert_close(found["first"], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["second"], expected[1], atol=1e-5, rtol=1e-5)


def test_only_one_of_the_threads_that_enter_at_once_gets_in() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    before = set(model.__dict__)
    for _ in range(200):
        together, entered = threading.Barrier(THREADS), []
        everybody = threading.Barrier(THREADS)

        def enter(together=together, everybody=everybody, entered=entered) -> None:
            block = earlytom.compress(model, QUARTER)
            together.wait(30)
            try:
                with block:
                    entered.append(block)
                    everybody.wait(30)
            except earlytom.ModelError:
                everybody.wait(30)

        with fast_switching():
            assert run_threads(*[enter] * THREADS) == []
        assert len(entered) == 1
        assert set(model.__dict__) == before
    with earlytom.compress(model, QUARTER) as trace:
        model.generate(**inputs, max_new_tokens=1)
    assert trace.videos[0].tokens == 48


@pytest.mark.parametrize("method", [QUARTER, INSIDE[0]], ids=["tokens", "llm"])
def test_a_block_that_ends_during_a_call_lets_it_end_as_it_began(method) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    plain = logits_of(model, inputs)
    inside, left = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        if threading.current_thread() is not threading.main_thread() and not inside.is_set():
            inside.set()
            assert left.wait(30)

    found: list[torch.Tensor] = []
    handle = model.model.language_model.layers[0].register_forward_pre_hook(hold)
    thread = threading.Thread(target=lambda: found.append(logits_of(model, inputs)))
    try:
        with earlytom.compress(model, method) as trace:
            expected = logits_of(model, inputs)
            thread.start()
            assert inside.wait(30)
        assert torch.equal(logits_of(model, inputs), plain)
        with earlytom.compress(model, "random:retention=0.1"):
            left.set()
            thread.join(60)
    finally:
        left.set()
        handle.remove()
    assert torch.equal(found[0], expected)
    assert len(trace.calls) == 2
    assert not {"forward", "generate"} & set(model.__dict__)
    assert not any("forward" in part.__dict__ for part in model.modules())


def test_a_thread_started_inside_a_block_with_a_copied_context_gets_the_blocks_method() -> None:
    """A call's own place travels in the context; a copy of it, made in the middle of a call, is another thread's."""
    import contextvars

    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    failures: list[BaseException] = []

    class Streamer:
        started = False

        def put(self, value: torch.Tensor) -> None:
            if not self.started:
                self.started = True
                context = contextvars.copy_context()
                failures.extend(run_threads(lambda: context.run(model.generate, **inputs, max_new_tokens=2)))

        def end(self) -> None:
            pass

    with earlytom.compress(model, QUARTER) as trace:
        model.generate(**inputs, max_new_tokens=2, streamer=Streamer())
    assert failures == []
    assert [call.videos[0].tokens for call in trace.calls] == [48, 48]


def test_a_second_model_compressed_in_the_middle_of_a_call() -> None:
    """Each model's call finds its own place, however calls are nested."""
    outer, inner, inputs = tiny_model(), tiny_model(), batch([[clip(12, 0)]])
    traces = []

    def criterion(ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        with earlytom.compress(inner, "uniform:retention=0.5") as trace:
            inner.generate(**inputs, max_new_tokens=1)
        traces.append(trace)
        return torch.zeros(ids.shape[0], dtype=torch.bool)

    from transformers import StoppingCriteriaList

    with earlytom.compress(outer, INSIDE[0]) as trace:
        expected = logits_of(outer, inputs)
        found = logits_of(outer, inputs, stopping_criteria=StoppingCriteriaList([criterion]))
    assert torch.equal(found, expected)
    assert trace.videos[0].tokens == 48
    assert [one.videos[0].tokens for one in traces] == [96] * 4


class Probing:
    """A streamer that asks the same model something else in the middle of a call."""

    def __init__(self, ask) -> None:
        self.ask, self.found, self.seen = ask, [], 0

    def put(self, value: torch.Tensor) -> None:
        self.seen += 1
        self.found.append(self.ask())

    def end(self) -> None:
        pass


@pytest.mark.parametrize("method", INSIDE)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_callback_that_asks_the_same_model_makes_calls_of_its_own(family, method) -> None:
    """Text, padded batches, further videos; by generate() and by forward(); before the prefill and behind it."""
    case = family_case(family)
    model, other = case.build(), case.batch([[case.clip(6, 1)]])
    method = method.replace("inner_merging=true", "inner_merging=true,inner_layer=3").replace("layer=1", "layer=3")
    if family == "qwen3_vl" and method in ("fastv", "pyramiddrop"):
        pytest.skip("acts before this family's layers are done adding features")
    inputs, texts = case.batch([[case.clip(6, 0)]]), case.batch([[], []])
    longer = {name: torch.cat([value] * 4, dim=1) for name, value in case.batch([[]]).items() if value.dim() == 2}
    asks = [
        lambda: model.generate(**texts, max_new_tokens=2, do_sample=False),
        lambda: model.generate(**longer, max_new_tokens=2, do_sample=False),
        lambda: model.generate(**other, max_new_tokens=2, do_sample=False),
        lambda: model(**texts).logits,
        lambda: model(**other).logits,
    ]
    with torch.no_grad(), earlytom.compress(model, method):
        expected = logits_of(model, inputs)
        for ask in asks:
            alone, probing = ask(), Probing(ask)
            assert torch.equal(logits_of(model, inputs, streamer=probing), expected)
            assert probing.seen == 5
            for found in probing.found:
                torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", INSIDE)
def test_a_hook_that_asks_the_same_model_in_the_middle_of_the_prefill(method) -> None:
    """Its call has a cache of its own, which is not the one that the call around it goes on behind."""
    model, inputs, text, asked = tiny_model(), batch([[clip(12, 0)]]), batch([[]]), []

    def hook(*_: object) -> None:
        if not asked:
            asked.append(None)
            asked.append(model(**text, use_cache=True).logits)

    with torch.no_grad(), earlytom.compress(model, method):
        alone, expected = model(**text).logits, logits_of(model, inputs)
        handle = model.model.language_model.layers[4].register_forward_pre_hook(hook)
        try:
            assert torch.equal(logits_of(model, inputs), expected)
        finally:
            handle.remove()
    torch.testing.assert_close(asked[1], alone)


def test_a_context_that_was_copied_in_a_call_is_outside_when_that_is_over() -> None:
    import contextvars

    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    probing = Probing(contextvars.copy_context)
    with earlytom.compress(model, INSIDE[0]) as trace:
        expected = logits_of(model, inputs, streamer=probing)
        for context in probing.found:
            assert torch.equal(context.run(logits_of, model, inputs), expected)
    assert all(call.videos[0].tokens == 48 for call in trace.calls)


def test_a_call_that_begins_while_its_block_closes_and_another_opens(monkeypatch) -> None:
    """Held where it has found its block but not begun: the block is closed, another entered; nothing is left behind."""
    from earlytom.runtime.router import Router

    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    before, original = set(vars(model)), Router.serving
    found, go = threading.Event(), threading.Event()

    def slowly(self, block, trace):
        if threading.current_thread() is not threading.main_thread():
            found.set()
            assert go.wait(30)
        return original(self, block, trace)

    monkeypatch.setattr(Router, "serving", slowly)
    failures: list[BaseException] = []

    def call() -> None:
        try:
            model.generate(**inputs, max_new_tokens=1)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=call)
    first = earlytom.compress(model, QUARTER)
    first.__enter__()
    thread.start()
    assert found.wait(30)
    first.close()
    with earlytom.compress(model, "none") as second:
        go.set()
        thread.join(60)
        with pytest.raises(earlytom.ModelError, match="already inside"), earlytom.compress(model, QUARTER):
            pass
        model.generate(**inputs, max_new_tokens=1)
    (failure,) = failures
    assert isinstance(failure, earlytom.CompressionError)
    assert "closed while a call was about to begin" in str(failure)
    assert len(second.calls) == 1
    assert set(vars(model)) == before
    assert not any("forward" in vars(part) for part in model.modules())


def test_blocks_that_come_and_go_under_calls_leave_nothing_behind() -> None:
    model, inputs = tiny_model(), batch([[clip(4, 0)]])
    before, over = set(vars(model)), threading.Event()
    allowed = ("closed while a call was about to begin", "was taken from the model before the compress block",
               "was called with a video inside a compress block")  # fmt: skip

    def calls() -> None:
        while not over.is_set():
            try:
                model.generate(**inputs, max_new_tokens=1)
            except earlytom.CompressionError as error:
                if not any(text in str(error) for text in allowed):
                    raise

    def blocks() -> None:
        try:
            for _ in range(150):
                with earlytom.compress(model, INSIDE[0]):
                    pass
        finally:
            over.set()

    with fast_switching():
        assert run_threads(calls, calls, calls, blocks) == []
    assert set(vars(model)) == before
    assert not any("forward" in vars(part) for part in model.modules())
