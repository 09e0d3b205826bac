"""The wrapper that people hold: PEFT's and plain ones work as the model does; others are refused with the way out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import earlytom
from conftest import batch, clip, tiny_model
from earlytom.models import open_model
from families import FAMILY_NAMES, family_case

QUARTER = "earlytom:retention=0.25"
INSIDE = "earlytom:retention=0.5,inner_merging=true,inner_layer=3"
OPTIONS = {"do_sample": False, "max_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
LANGUAGE_MODEL, ENCODER = r"(q_proj|k_proj|v_proj)", r"(q_proj|k_proj|qkv|fc1|linear_fc1|gate_proj)"
PROJECTIONS = rf".*language_model.*\.{LANGUAGE_MODEL}|.*(vision_tower|visual).*\.{ENCODER}"


def with_lora(model: nn.Module) -> nn.Module:
    """Adapters that change every answer, in the vision encoder and in the language model."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    torch.manual_seed(5)
    settings = peft.LoraConfig(r=4, target_modules=PROJECTIONS, init_lora_weights=False, task_type="CAUSAL_LM")
    return peft.get_peft_model(model, settings).eval()


def logits(output) -> torch.Tensor:
    return torch.stack(output.logits)


@pytest.mark.parametrize("method", ["none", QUARTER, INSIDE])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_peft_model_works_with_and_without_its_adapter(family, method) -> None:
    case = family_case(family)
    plain, inputs = case.build(), case.batch([[case.clip(6, 0)]])
    with earlytom.compress(plain, method):
        unadapted = logits(plain.generate(**inputs, **OPTIONS))
    wrapped = with_lora(plain)
    stock = wrapped.get_base_model()
    before = {name: set(vars(part)) for name, part in stock.named_modules()}
    with torch.no_grad(), earlytom.compress(wrapped, method) as trace:
        adapted = logits(wrapped.generate(**inputs, **OPTIONS))
        torch.testing.assert_close(wrapped(**inputs).logits[:, -1], adapted[0], atol=1e-4, rtol=1e-4)
        with wrapped.disable_adapter():
            torch.testing.assert_close(logits(wrapped.generate(**inputs, **OPTIONS)), unadapted, atol=1e-4, rtol=1e-4)
        inner = logits(wrapped.get_base_model().generate(**inputs, **OPTIONS))
    assert torch.equal(inner, adapted)
    assert not torch.allclose(adapted, unadapted, atol=1e-2)
    assert [call.videos[0].tokens for call in trace.calls] == [trace.videos[0].budget] * 4
    assert {name: set(vars(part)) for name, part in stock.named_modules()} == before
    merged = wrapped.merge_and_unload()
    with earlytom.compress(merged, method):
        torch.testing.assert_close(logits(merged.generate(**inputs, **OPTIONS)), adapted, atol=1e-3, rtol=1e-3)


def test_prepare_and_answers_take_a_peft_model() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    wrapped = with_lora(model)
    prepared = earlytom.prepare(wrapped, inputs, QUARTER)
    with earlytom.compress(wrapped, QUARTER):
        expected = logits(wrapped.generate(**inputs, **OPTIONS))
    found = logits(wrapped.get_base_model().generate(**prepared.arguments, **OPTIONS))
    torch.testing.assert_close(found, expected)
    qa = earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")
    adapted = earlytom.VideoQA(with_lora(qa.model), qa.processor)
    answer = adapted.ask(earlytom.sample_videos()[0], "How many objects are there?", method=QUARTER, max_new_tokens=4)
    assert answer.visual_tokens * 4 == answer.visual_tokens_uncompressed


def test_learned_prompts_are_refused_with_the_way_out() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    settings = peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, token_dim=48, num_layers=5, num_attention_heads=4,
        num_transformer_submodules=1,
    )  # fmt: skip
    wrapped = peft.get_peft_model(tiny_model(), settings)
    with pytest.raises(earlytom.ModelError, match=r"learns a prompt.*get_base_model\(\)"):
        earlytom.compress(wrapped, QUARTER)
    with earlytom.compress(wrapped.get_base_model(), "none"):
        pass


@pytest.mark.parametrize("method", ["uniform", "average-pooling", QUARTER])
@pytest.mark.parametrize("kind", ["wrapped", "in place", "held"])
def test_a_graph_around_a_peft_model_is_refused_with_the_way_out(kind, method) -> None:
    wrapped = with_lora(tiny_model())
    if kind == "in place":
        wrapped.compile(backend="eager")
        compiled = wrapped
    else:
        compiled = torch.compile(wrapped, backend="eager")
    with pytest.raises(earlytom.ModelError, match=r"as it was before torch\.compile"):
        earlytom.compress(Service(compiled) if kind == "held" else compiled, method)


def test_a_graph_of_the_model_inside_a_peft_model_is_compressed() -> None:
    inputs, wrapped = batch([[clip(12, 0)]]), with_lora(tiny_model())
    with earlytom.compress(wrapped, QUARTER):
        expected = wrapped.generate(**inputs, max_new_tokens=2, do_sample=False)
    wrapped.base_model.model = torch.compile(wrapped.base_model.model, backend="eager")
    with earlytom.compress(wrapped, QUARTER) as trace:
        assert torch.equal(wrapped.generate(**inputs, max_new_tokens=2, do_sample=False), expected)
    assert trace.videos[0].tokens == 48


class Forwarding(nn.Module):
    """Holds a model under a name of its own, and hands everything on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone = model

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("backbone"), name)

    def forward(self, *args: object, **kwargs: object):
        return self.backbone(*args, **kwargs)


class Service:
    """No module at all, but it holds one and hands everything on."""

    def __init__(self, model: nn.Module) -> None:
        self.engine = model

    def __getattr__(self, name: str):
        return getattr(self.__dict__["engine"], name)


@pytest.mark.parametrize(
    "wrap",
    [Forwarding, Service, lambda model: Forwarding(Forwarding(model)), lambda model: Service(Forwarding(model)),
     lambda model: nn.DataParallel(model, device_ids=None)],
    ids=["module", "object", "two", "both", "DataParallel"],
)  # fmt: skip
def test_plain_wrappers_work(wrap) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with torch.no_grad(), earlytom.compress(model, QUARTER):
        expected = model(**inputs).logits
    wrapped = wrap(model)
    assert open_model(wrapped).model is model
    with torch.no_grad(), earlytom.compress(wrapped, QUARTER) as trace:
        found = wrapped.forward(**inputs).logits if isinstance(wrapped, Service) else wrapped(**inputs).logits
        assert torch.equal(found, expected)
        if not isinstance(wrapped, nn.DataParallel):
            wrapped.generate(**inputs, max_new_tokens=1)
    assert all(call.videos[0].tokens == 48 for call in trace.calls)


class Pipeline:
    """A plain object that holds a model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model


class Pair(nn.Module):
    """A policy and its reference, as preference learning holds them."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.policy, self.reference, self.config = first, second, first.config


def test_what_cannot_be_looked_through_names_the_way_out() -> None:
    model = tiny_model()
    with pytest.raises(earlytom.ModelError, match="holds 2 models that could be compressed"):
        open_model(Pair(tiny_model(), tiny_model()))
    with pytest.raises(earlytom.ModelError, match=r"as it was before torch\.compile"):
        open_model(Pipeline(torch.compile(Forwarding(model))))
    with pytest.raises(earlytom.ModelError, match=r"got LlavaOnevisionModel.*get_base_model\(\)"):
        open_model(model.model)
    with pytest.raises(earlytom.ModelError, match=r"got Linear.*get_base_model\(\)"):
        open_model(nn.Linear(1, 1))
    parallel = nn.DataParallel(model)
    parallel.device_ids = [0, 1]
    with pytest.raises(earlytom.ModelError, match=r"DataParallel runs copies of the model on 2 devices.*\.module"):
        open_model(parallel)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("kind", ["trainable tokens", "adapted embedding"])
def test_embeddings_may_be_wrapped_too(family, kind) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    case = family_case(family)
    inputs = case.batch([[case.clip(6, 0)]])
    more = {"trainable_token_indices": [3, 4, 5]} if kind == "trainable tokens" else {}
    targets = ["q_proj"] if kind == "trainable tokens" else ["embed_tokens"]
    wrapped = peft.get_peft_model(case.build(), peft.LoraConfig(r=4, target_modules=targets, **more)).eval()
    stock = wrapped.generate(**inputs, do_sample=False, max_new_tokens=3)
    with earlytom.compress(wrapped, "none"):
        assert torch.equal(wrapped.generate(**inputs, do_sample=False, max_new_tokens=3), stock)


class Slotted:
    """A plain object without a __dict__."""

    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held


def test_plain_objects_are_looked_through_to_some_depth() -> None:
    model = tiny_model()
    for held in (
        Slotted(model),
        Service(Slotted([model])),
        Service(Service(model)),
        Slotted({"model": Forwarding(model)}),
    ):
        assert open_model(held).model is model
