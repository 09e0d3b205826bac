"""What stands before a model's calls: seen by nobody, compiled away, and put back in whatever order others come."""

from __future__ import annotations

import contextvars
import copy
import functools
import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from earlytom.runtime.router import call_being_served
from earlytom.trace import Stopwatch

INSIDE = "earlytom:retention=0.25,inner_merging=true"


class Backend:
    """Runs graphs as they are, and keeps them."""

    def __init__(self) -> None:
        self.graphs: list[object] = []

    def __call__(self, graph: torch.fx.GraphModule, example: object):
        self.graphs.append(graph)
        return graph.forward


def static_generation(model: torch.nn.Module, inputs, backend: Backend, **options: object) -> torch.Tensor:
    """Greedy, with a static cache, decoding steps compiled without a single break."""
    from transformers import CompileConfig

    settings = CompileConfig(backend=backend, fullgraph=True, dynamic=False, mode=None)
    settings._compile_all_devices = True  # on a CPU too
    fixed = {"cache_implementation": "static", "compile_config": settings}
    return model.generate(**inputs, max_new_tokens=6, do_sample=False, **fixed, **options)


@pytest.mark.parametrize(
    ("method", "video"), [("earlytom:retention=0.25", True), ("none", True), (INSIDE, False)], ids=str
)
def test_compiled_decoding_with_a_static_cache_is_not_disturbed(method, video) -> None:
    """No graph breaks (fullgraph), none is compiled again in later calls or blocks, the answers are the eager ones."""
    torch._dynamo.reset()
    model, backend = tiny_model(), Backend()
    inputs = batch([[clip(12, 0)]]) if video else batch([[]])
    static_generation(model, inputs, backend)
    counts = []
    for _ in range(3):
        with earlytom.compress(model, method) as trace:
            found = [static_generation(model, inputs, backend) for _ in range(2)]
            expected = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        assert all(torch.equal(one, expected) for one in found)
        counts.append(len(backend.graphs))
        if video:
            assert trace.last.split()["ttft"] > 0
    assert counts[0] <= 2
    assert counts == counts[:1] * 3


def test_the_time_to_first_token_ends_with_it_behind_a_static_cache(monkeypatch) -> None:
    """Compiled steps call no forward of ours; the second step's preparation ends the time."""
    torch._dynamo.reset()
    model, inputs, events = tiny_model(), batch([[clip(12, 0)]]), []
    original = Stopwatch.stop

    def stop(self, name: str) -> None:
        if name in self._open:
            events.append(f"end of {name}")
        original(self, name)

    class Streamer:
        def put(self, value: torch.Tensor) -> None:
            events.append("tokens")

        def end(self) -> None:
            pass

    monkeypatch.setattr(Stopwatch, "stop", stop)
    with earlytom.compress(model, "earlytom:retention=0.25"):
        static_generation(model, inputs, Backend(), streamer=Streamer())
    assert events == ["tokens", "tokens", "end of ttft", *["tokens"] * 5]  # the prompt, the first one, the others


def test_a_video_inside_a_compiled_call_is_never_passed_by() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), earlytom.compress(model, "earlytom:retention=0.25,ranked_by=attention"):
        with pytest.raises(earlytom.ModelError, match=r"as it was before torch\.compile"):
            compiled(**inputs)
        with pytest.raises(earlytom.CompressionError, match="would not be compressed"):
            torch.compile(model.model, backend="eager")(**inputs)
    with torch.no_grad(), earlytom.compress(model, "earlytom:retention=0.25") as trace:  # which takes nothing by hooks
        compressed = compiled(**inputs).logits
        assert torch.equal(compressed, model(**inputs).logits)
    assert [call.videos[0].tokens for call in trace.calls] == [48, 48]


@pytest.mark.parametrize("name", ["generate", "forward", "prepare_inputs_for_generation"])
def test_calls_keep_their_signature_and_name(name) -> None:
    model = tiny_model()
    stock = getattr(model, name)
    with earlytom.compress(model, "none"):
        shadow = getattr(model, name)
        assert inspect.signature(shadow) == inspect.signature(stock)
        assert (shadow.__name__, shadow.__doc__) == (stock.__name__, stock.__doc__)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_whoever_else_stands_before_a_part_stays_or_goes_by_itself(first) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    parts = [model, model.model, model.model.language_model, model.model.language_model.layers[4]]
    calls: list[str] = []

    def theirs(part: torch.nn.Module):
        before = part.forward

        @functools.wraps(before)
        def forward(*args: object, **kwargs: object) -> object:
            calls.append(type(part).__name__)
            return before(*args, **kwargs)

        part.forward = forward
        return forward

    if first == "theirs":
        made = [theirs(part) for part in parts]
        with earlytom.compress(model, INSIDE):
            expected = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    else:
        with earlytom.compress(model, INSIDE):
            made = [theirs(part) for part in parts]
            expected = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert set(calls) == {type(part).__name__ for part in parts}
    assert [vars(part)["forward"] for part in parts] == made
    stock = tiny_model().generate(**inputs, max_new_tokens=2, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=2, do_sample=False), stock)
    for part in parts:
        del part.forward
    with earlytom.compress(model, INSIDE):
        assert torch.equal(model.generate(**inputs, max_new_tokens=2, do_sample=False), expected)
    assert not any("forward" in vars(part) for part in model.modules())


def test_layers_are_stood_before_only_while_a_method_acts_in_them() -> None:
    model, layers = tiny_model(), list(tiny_model().model.language_model.layers)
    layers = list(model.model.language_model.layers)
    with earlytom.compress(model, "earlytom:retention=0.25"):
        assert not any("forward" in vars(layer) for layer in layers)
    with earlytom.compress(model, INSIDE):
        assert all("forward" in vars(layer) for layer in layers)
    assert not any("forward" in vars(layer) for layer in layers)


def test_a_stage_that_was_never_asked_is_an_error() -> None:
    """A part that was compiled away or replaced would answer without what was promised."""
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, INSIDE):
        for layer in model.model.language_model.layers:
            del layer.forward
        with pytest.raises(earlytom.CompressionError, match="that did not happen"):
            model.generate(**inputs, max_new_tokens=1)


def test_features_that_the_language_model_never_took_over_are_an_error() -> None:
    from families import family_case

    case = family_case("qwen3_vl")
    model = case.build()
    inputs = case.batch([[case.clip(6, 0)]])
    with earlytom.compress(model, "earlytom:retention=0.5"):
        del model.model.language_model.forward
        with pytest.raises(earlytom.CompressionError, match="deepstack_visual_embeds"):
            model.generate(**inputs, max_new_tokens=1)


def test_a_model_whose_call_others_still_hold_can_be_copied_and_saved_behind_the_block() -> None:
    """accelerate keeps the forward that it found, which may be ours."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    expected = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    with earlytom.compress(model, INSIDE):
        accelerate.dispatch_model(model, device_map={"": "cpu"}, force_hooks=True)
    copies = [copy.deepcopy(model)]
    accelerate.hooks.remove_hook_from_module(model, recurse=True)
    copies.append(copy.deepcopy(model))
    for copied in copies:
        assert torch.equal(copied.generate(**inputs, max_new_tokens=2, do_sample=False), expected)
        with torch.no_grad():
            copied.lm_head.weight.zero_()
            assert not copied(**inputs).logits.any()  # the copy runs its own weights
    assert torch.equal(model.generate(**inputs, max_new_tokens=2, do_sample=False), expected)


def test_who_looks_on_is_told_the_call_that_this_thread_is_being_served() -> None:
    model, seen = tiny_model(), []

    def look(module, args) -> None:
        call = call_being_served()
        seen.append(None if call is None else call.trace.clock.running)

    handle = model.model.language_model.register_forward_pre_hook(look)
    try:
        with earlytom.compress(model, "none"):
            assert call_being_served() is None
            model.generate(**batch([[clip(12, 0)]]), max_new_tokens=2, do_sample=False)
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(contextvars.copy_context().run, call_being_served).result() is None
    finally:
        handle.remove()
    assert call_being_served() is None
    assert seen == ["prefill", None]
