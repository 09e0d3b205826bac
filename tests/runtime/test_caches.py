"""Which caches go with which methods: all of them before the language model, those that grow inside it."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, GenerationConfig, QuantizedCache, StaticCache
from transformers.cache_utils import Cache, QuantizedLayer

import earlytom
from conftest import batch, cache_name, clip, tiny_model
from earlytom.models.caches import returned_cache
from earlytom.runtime.generation import check_cache_grows

QUARTER = earlytom.EarlyTom(retention=0.25)
INNER = earlytom.EarlyTom(retention=0.25, inner_merging=True)
STATIC = [
    "static", "offloaded_static", "sliding_window", "hybrid_chunked", "offloaded_hybrid", "offloaded_hybrid_chunked",
]  # fmt: skip


class Lossless(QuantizedLayer):
    """A quantised layer without its backend, which is not installed: it keeps the newest 4 tokens apart, as others."""

    def __init__(self) -> None:
        super().__init__(residual_length=4)

    def _quantize(self, tensor, axis):
        return tensor

    def _dequantize(self, quantised):
        return quantised


MADE = {
    "dynamic": lambda config: DynamicCache(),
    "dynamic of the config": lambda config: DynamicCache(config=config),
    "quantised": lambda config: Cache(layers=[Lossless() for _ in range(config.num_hidden_layers)]),
    "static": lambda config: StaticCache(config=config, max_cache_len=300),
}


def made(kind: str, model) -> Cache:
    return MADE[kind](model.config.get_text_config(decoder=True))


def generate(model, method, **options):
    inputs = batch([[clip(12, 0)]])
    with earlytom.compress(model, method) as trace:
        output = model.generate(
            **inputs, do_sample=False, max_new_tokens=8, return_dict_in_generate=True, output_logits=True, **options
        )
    return output, trace


def logits(model, method, **options) -> torch.Tensor:
    return torch.stack(generate(model, method, **options)[0].logits)


def sliding(model, window: int, layers: set[int]):
    """Let some decoder layers see the newest ``window`` tokens only."""
    config = model.config.text_config
    config.sliding_window = window
    config.layer_types = ["sliding_attention" if i in layers else "full_attention" for i in range(5)]
    for index, layer in enumerate(model.model.language_model.layers):
        layer.self_attn.sliding_window = window if index in layers else None
    model.model.language_model.has_sliding_layers = True
    return model


def hooks(model) -> list[tuple[int, int]]:
    return [(len(part._forward_pre_hooks), len(part._forward_hooks)) for part in model.modules()]


@pytest.fixture
def untouched():
    """A model that must come out as it went in: attributes, hooks and what it computes; no part of it may have run."""
    model = tiny_model()
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    ran: list[str] = []
    for part in (model.model.vision_tower, model.model.language_model):
        part.register_forward_pre_hook(lambda module, args: ran.append(type(module).__name__))
    before = (set(model.__dict__), hooks(model))
    yield model
    assert ran == []
    assert (set(model.__dict__), hooks(model)) == before
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, expected)


@pytest.mark.parametrize("kind", STATIC)
def test_a_static_cache_by_name_is_refused_inside_before_anything_runs(untouched, kind) -> None:
    with pytest.raises(earlytom.CompressionError, match=f"cache_implementation='{kind}'.* not a static one"):
        generate(untouched, INNER, cache_implementation=kind)


@pytest.mark.parametrize("where", ["the call's configuration", "the model's"])
def test_a_static_cache_of_a_configuration_is_refused_inside(untouched, where) -> None:
    options = {}
    if where == "the model's":
        untouched.generation_config.cache_implementation = "static"
    else:
        options = {"generation_config": GenerationConfig(cache_implementation="static", pad_token_id=0)}
    with pytest.raises(earlytom.CompressionError, match="cache_implementation='static'"):
        generate(untouched, INNER, **options)


@pytest.mark.parametrize("name", ["past_key_values", cache_name()])
def test_a_static_cache_itself_is_refused_inside(untouched, name) -> None:
    cache = made("static", untouched)
    with pytest.raises(earlytom.CompressionError, match=r"static.* StaticCache holds 300 tokens at most"):
        generate(untouched, INNER, **{name: cache})
    assert not cache.is_initialized


@pytest.mark.parametrize("name", ["past_key_values", cache_name()])
def test_forward_with_a_cache_is_refused_inside(untouched, name) -> None:
    with torch.no_grad(), earlytom.compress(untouched, INNER):
        for kind in MADE:
            with pytest.raises(earlytom.CompressionError, match=r"forward\(\) cannot fill a cache"):
                untouched(**batch([[clip(12, 0)]]), **{name: made(kind, untouched)})


def test_an_unknown_cache_is_refused_inside(untouched) -> None:
    with pytest.raises(earlytom.CompressionError, match=r"'elastic'.*dynamic, offloaded, quantized"):
        generate(untouched, INNER, cache_implementation="elastic")


@pytest.mark.parametrize("layers", [{0}, {3, 4}, {0, 1, 2, 3, 4}], ids=["first", "last", "all"])
def test_sliding_windows_are_refused_inside_and_the_model_left_intact(layers) -> None:
    """Which caches stock makes of the configuration shows only when the language model starts."""
    model = sliding(tiny_model(), 40, layers)
    expected, before = logits(model, QUARTER), (set(model.__dict__), hooks(model))
    with pytest.raises(earlytom.CompressionError, match=r"sliding window.* holds 40 tokens at most"):
        generate(model, INNER)
    assert (set(model.__dict__), hooks(model)) == before
    assert torch.equal(logits(model, QUARTER), expected)


@pytest.mark.parametrize("method", [QUARTER, INNER], ids=["outside", "inside"])
@pytest.mark.parametrize("kind", ["dynamic", "dynamic of the config", "quantised"])
def test_caches_that_grow_go_with_every_method(method, kind) -> None:
    model = tiny_model()
    cache = made(kind, model)
    output, trace = generate(model, method, **{cache_name(): cache})
    torch.testing.assert_close(torch.stack(output.logits), logits(model, method), atol=1e-5, rtol=1e-5)
    assert returned_cache(output) is cache
    dropped = sum(step.tokens_before[0] - step.tokens_after[0] for step in trace.last.language)
    assert (dropped > 0) == (method is INNER)
    lengths = [cache.get_seq_length(layer) for layer in range(5)]
    assert lengths[0] - lengths[-1] == dropped
    assert lengths[0] == trace.last.prefill_tokens + 7


@pytest.mark.parametrize("kind", ["dynamic", "hybrid"])
def test_growing_caches_by_name_go_with_methods_inside(kind) -> None:
    model = tiny_model()
    assert torch.equal(logits(model, INNER, cache_implementation=kind), logits(model, INNER))


def test_a_quantised_cache_of_stock_goes_with_methods_inside() -> None:
    model = tiny_model()
    try:
        cache = QuantizedCache("fp8", model.config.get_text_config(decoder=True))
    except ValueError:
        pytest.skip("this release of transformers quantises caches with further packages only")
    found, expected = logits(model, INNER, **{cache_name(): cache}), logits(model, INNER)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("method", [QUARTER, INNER], ids=["outside", "inside"])
def test_an_offloaded_cache_goes_with_every_method(method) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = tiny_model().cuda()
    inputs = {name: value.cuda() for name, value in batch([[clip(12, 0)]]).items()}
    with earlytom.compress(model, method):
        found, expected = (
            model.generate(**inputs, do_sample=False, max_new_tokens=8, cache_implementation=kind)
            for kind in ("offloaded", None)
        )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["static", "sliding_window", "hybrid_chunked"])
def test_a_static_cache_by_name_goes_with_methods_outside(kind) -> None:
    model = tiny_model()
    found = logits(model, QUARTER, cache_implementation=kind)
    torch.testing.assert_close(found, logits(model, QUARTER), atol=1e-5, rtol=1e-5)


def test_a_static_cache_itself_goes_with_methods_outside() -> None:
    model = tiny_model()
    found = logits(model, QUARTER, **{cache_name(): made("static", model)})
    torch.testing.assert_close(found, logits(model, QUARTER), atol=1e-5, rtol=1e-5)


def test_a_prompt_without_video_may_have_any_cache() -> None:
    model, inputs = tiny_model(), batch([[]])
    with earlytom.compress(model, INNER):
        found = model.generate(**inputs, do_sample=False, max_new_tokens=4, cache_implementation="static")
    assert torch.equal(found, model.generate(**inputs, do_sample=False, max_new_tokens=4))


def test_a_cache_that_has_no_layers_yet_grows() -> None:
    check_cache_grows(None)
    check_cache_grows(DynamicCache())
