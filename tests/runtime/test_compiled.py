"""Compiled models and parts of models: compressed as ever, graphs run where nothing of ours is to be met inside."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import nn

import earlytom
from conftest import batch, clip, tiny_model
from families import family_case

METHOD = "earlytom:retention=0.25"
INSIDE = "earlytom:retention=0.25,inner_merging=true"


class Backend:
    """Runs graphs as they are, and counts how often."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, graph: torch.fx.GraphModule, example: object) -> Callable[..., object]:
        def run(*args: object) -> object:
            self.runs += 1
            return graph.forward(*args)

        return run


def wrapped(model: nn.Module, backend: Backend) -> nn.Module:
    return torch.compile(model, backend=backend)


def in_place(model: nn.Module, backend: Backend) -> nn.Module:
    model.compile(backend=backend)
    return model


def language_model(model: nn.Module, backend: Backend) -> nn.Module:
    model.model.language_model.compile(backend=backend)
    return model


def wrapped_language_model(model: nn.Module, backend: Backend) -> nn.Module:
    model.model.language_model = torch.compile(model.model.language_model, backend=backend)
    return model


def language_layers(model: nn.Module, backend: Backend) -> nn.Module:
    for layer in model.model.language_model.layers:
        layer.compile(backend=backend)
    return model


def encoder_layers(model: nn.Module, backend: Backend) -> nn.Module:
    for layer in model.model.vision_tower.encoder.layers:
        layer.compile(backend=backend)
    return model


def wrapped_encoder_layers(model: nn.Module, backend: Backend) -> nn.Module:
    layers = model.model.vision_tower.encoder.layers
    for number, layer in enumerate(layers):
        layers[number] = torch.compile(layer, backend=backend)
    return model


KINDS = [in_place, language_model, wrapped_language_model, language_layers, encoder_layers, wrapped_encoder_layers]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()
    torch._logging.set_logs(dynamo=logging.ERROR)  # graph breaks are none of the tests' business


def generate(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.generate(**inputs, max_new_tokens=4, do_sample=False)


@pytest.mark.parametrize(
    ("compiled", "method"),
    [
        *((kind, METHOD) for kind in KINDS),
        (in_place, INSIDE),
        (wrapped_language_model, INSIDE),
        (language_layers, INSIDE),
    ],
)
def test_compiled_parts_give_the_same_answer_and_trace(compiled, method) -> None:
    inputs, backend = batch([[clip(12, 0)]]), Backend()
    model = tiny_model()
    with earlytom.compress(model, method) as expected_trace:
        expected = generate(model, inputs)
    model = compiled(tiny_model(), backend)
    before = [dict(vars(part)) for part in model.modules()]
    with earlytom.compress(model, method) as trace:
        assert torch.equal(generate(model, inputs), expected)
    assert [set(vars(part)) for part in model.modules()] == [set(names) for names in before]
    assert trace.videos[0].tokens == 48
    assert trace.last.split().keys() == expected_trace.last.split().keys()
    assert [step.layer for step in trace.last.language] == [step.layer for step in expected_trace.last.language]
    # What encloses the layers that a method acts in gives up its graph for the call.
    goes_without = method == INSIDE and compiled is not language_layers
    assert (backend.runs == 0) == goes_without


@pytest.mark.parametrize("kind", [language_model, in_place])
def test_features_of_earlier_layers_reach_a_compiled_language_model(kind) -> None:
    case = family_case("qwen3_vl")
    inputs, model = case.batch([[case.clip(6, 0)]]), case.build()
    with earlytom.compress(model, METHOD):
        expected = generate(model, inputs)
    model = kind(case.build(), Backend())
    with earlytom.compress(model, METHOD):
        assert torch.equal(generate(model, inputs), expected)


def test_a_wrapper_of_torch_compile_is_compressed_and_left_as_it_was() -> None:
    inputs, stock, backend = batch([[clip(12, 0)]]), tiny_model(), Backend()
    with torch.no_grad(), earlytom.compress(stock, METHOD):
        expected = (
            generate(stock, inputs),
            stock(**inputs).logits,
            stock(inputs["input_ids"], **without_ids(inputs)).logits,
        )
    model = wrapped(tiny_model(), backend)
    with torch.no_grad():
        uncompressed, names = model(**inputs).logits, set(vars(model))  # a graph is there before the block is
        with earlytom.compress(model, METHOD) as trace:
            found = (
                generate(model, inputs),
                model(**inputs).logits,
                model(inputs["input_ids"], **without_ids(inputs)).logits,
            )
        assert torch.equal(model(**inputs).logits, uncompressed)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert [call.videos[0].tokens for call in trace.calls] == [48] * 3
    assert set(vars(model)) == names


def without_ids(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inputs.items() if name != "input_ids"}


@pytest.mark.parametrize("compiled", [wrapped, in_place])
def test_decoding_by_hand_through_a_compiled_model(compiled) -> None:
    """The mask that the caller widens counts the prompt that was written, compiled or not."""
    inputs = batch([[clip(12, 0)]])
    answers = []
    for model in (tiny_model(), compiled(tiny_model(), Backend())):
        with torch.no_grad(), earlytom.compress(model, METHOD):
            answers.append(by_hand(model, inputs))
    assert answers[0] == answers[1]


def by_hand(model: nn.Module, inputs: dict[str, torch.Tensor]) -> list[int]:
    output, mask, ids = model(**inputs, use_cache=True), inputs["attention_mask"], []
    for _ in range(3):
        ids.append(int(output.logits[0, -1].argmax()))
        mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
        output = model(input_ids=torch.tensor([ids[-1:]]), attention_mask=mask, past_key_values=output.past_key_values)
    return ids


@pytest.mark.parametrize("compiled", [wrapped, in_place])
def test_a_prompt_without_video_runs_its_graph(compiled) -> None:
    backend = Backend()
    inputs = batch([[]])
    with torch.no_grad():
        expected = tiny_model()(**inputs).logits
        model = compiled(tiny_model(), backend)
        with earlytom.compress(model, METHOD):
            assert torch.equal(model(**inputs).logits, expected)
    assert backend.runs > 0


def test_a_service_that_holds_a_compiled_model_is_looked_through() -> None:
    class Service:
        def __init__(self, model: nn.Module) -> None:
            self.model = model

    service, inputs = Service(wrapped(tiny_model(), Backend())), batch([[clip(12, 0)]])
    with torch.no_grad(), earlytom.compress(service, METHOD) as trace:
        service.model(**inputs)
    assert trace.videos[0].tokens == 48


def test_a_graph_that_runs_without_being_compiled_reduces_once() -> None:
    """Where compiling gives up, the same frames run without a graph; nothing of ours may act twice."""
    inputs, model = batch([[clip(12, 0)]]), tiny_model()
    with earlytom.compress(model, INSIDE):
        expected = generate(model, inputs)
    model = language_layers(in_place(tiny_model(), Backend()), Backend())
    with torch.compiler.set_stance("force_eager"), earlytom.compress(model, INSIDE) as trace:
        assert torch.equal(generate(model, inputs), expected)
    assert len(trace.last.language) == 1
    assert trace.last.split()["prefill"] > 0


def test_a_compiled_model_is_met_where_a_call_of_an_earlier_block_still_goes_on() -> None:
    """That call holds what stands before the plain model; what stands before the compiled one comes on entering."""
    inputs, model = batch([[clip(12, 0)]]), tiny_model()
    with torch.no_grad(), earlytom.compress(model, METHOD):
        expected = model(**inputs).logits
    compiled, found = wrapped(model, Backend()), []
    names = set(vars(compiled))
    earlier = earlytom.compress(model, "none")

    def take_over(ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        earlier.close()
        for _ in range(2):  # the wrapper that is known by then is stood before once
            with earlytom.compress(compiled, METHOD) as trace:
                found.append((compiled(**inputs).logits, [call.videos[0].tokens for call in trace.calls]))
        return torch.ones(len(ids), dtype=torch.bool)

    earlier.__enter__()
    model.generate(**inputs, max_new_tokens=2, stopping_criteria=[take_over])
    assert [tokens for _, tokens in found] == [[48], [48]]
    assert all(torch.equal(logits, expected) for logits, _ in found)
    assert set(vars(compiled)) == names
    assert not any("forward" in vars(part) for part in model.modules())


def test_a_compiled_model_that_the_block_was_not_told_of_says_what_to_pass() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with (
        torch.no_grad(),
        earlytom.compress(model, f"{METHOD},ranked_by=attention"),  # which is taken by hooks
        pytest.raises(earlytom.ModelError, match=r"or give the compiled one to earlytom\.compress"),
    ):
        wrapped(model, Backend())(**inputs)
