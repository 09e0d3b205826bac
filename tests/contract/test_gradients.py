"""``model(**inputs)`` under grad: what is applied records gradients, what scores and decides never does."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import earlytom
from earlytom import Reduction
from earlytom.methods import parse_method
from earlytom.types import Decision, EncoderPlan
from families import FAMILY_NAMES, family_case

METHODS = [
    "earlytom:retention=0.5", "visionzip:retention=0.5", "holitom:retention=0.5", "prunevid:retention=0.5",
    "fastvid:retention=0.5,scores=received", "dycoke:retention=0.5", "tome:retention=0.5", "random:retention=0.5",
    "evs:retention=0.5", "vidcom2:retention=0.5",
    "earlytom:retention=0.5,inner_merging=true,inner_layer=3", "fastv", "pyramiddrop",
]  # fmt: skip


@cache
def built(family: str) -> torch.nn.Module:
    return family_case(family).build()


def saved_by(model, inputs, method) -> tuple[torch.Tensor, list[torch.Tensor], earlytom.Trace]:
    """Logits under grad, the tensors that their backward pass holds, and the trace."""
    held: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        earlytom.compress(model, method) as trace,
    ):
        logits = model(**inputs).logits
    return logits, list(held.values()), trace


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_scoring_and_deciding_record_nothing(family, method) -> None:
    case, model = family_case(family), built(family)
    inputs = case.batch([[case.clip(6, 0)]])
    try:
        logits, held, trace = saved_by(model, inputs, method)
    except earlytom.EarlyTomError as error:
        pytest.skip(f"does not fit this family: {error}")
    plain = saved_by(model, inputs, "none")[1]

    def size(tensors: list[torch.Tensor]) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    # Fewer tokens pass the language model, so that less is held, not more: no map of attention, no keys, no table.
    assert size(held) < size(plain)
    (clip,) = trace.videos
    assert clip.attention is None or not clip.attention.requires_grad
    model.zero_grad()
    logits.float().square().mean().backward()
    visual = model.model.visual if hasattr(model.model, "visual") else model.model.vision_tower
    first = next(visual.parameters())
    assert first.grad is not None
    assert float(first.grad.abs().sum()) > 0


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_gradients_are_those_of_the_same_decisions_without_scores(family) -> None:
    """The decisions of one call, replayed by a method that looks at nothing, give the same gradients."""

    class Watching(earlytom.EarlyTom):
        def merge_frames(self, states, layer, floor):
            assert not torch.is_grad_enabled()
            super().merge_frames(states, layer, floor)
            frames = states.features.shape[0]
            rows = [[(0, 1.0)], [(1, 0.25), (2, 0.75)], *([(frame, 1.0)] for frame in range(3, frames))]
            decisions.append(Decision(reduction=Reduction.from_rows(rows, frames)))
            return decisions[-1]

        def select_tokens(self, tokens, budget):
            assert not torch.is_grad_enabled()
            assert not tokens.features.requires_grad
            decision = super().select_tokens(tokens, budget)
            decisions.append(decision)
            return decision

    class Replaying(earlytom.EarlyTom):
        def encoder_plan(self, encoder):
            plan = super().encoder_plan(encoder)
            return EncoderPlan(merge_layers=plan.merge_layers)

        def merge_frames(self, states, layer, floor):
            return decisions.pop(0)

        def select_tokens(self, tokens, budget):
            return decisions.pop(0)

    case, model, decisions = family_case(family), built(family), []
    inputs = case.batch([[case.clip(12, 0)]])
    gradients = []
    for kind in (Watching, Replaying):
        method = kind(retention=0.3)
        model.zero_grad()
        logits, _, trace = saved_by(model, inputs, method)
        logits.float().square().mean().backward()
        gradients.append({name: part.grad for name, part in model.named_parameters() if part.grad is not None})
    assert trace.videos[0].frames_left < 12
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4)


def test_in_the_language_model_only_applying_records() -> None:
    class Watching(type(parse_method("fastv"))):
        def reduce_in_llm(self, states, layer):
            assert not torch.is_grad_enabled()
            assert not states.attention.requires_grad
            return super().reduce_in_llm(states, layer)

    case, model = family_case("llava_onevision"), built("llava_onevision")
    logits, _, trace = saved_by(model, case.batch([[case.clip(6, 0)]]), Watching())
    assert trace.last.language
    assert logits.requires_grad
