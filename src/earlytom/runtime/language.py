"""What acts inside the language model during one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from earlytom.errors import CompressionError, MethodError, ModelError
from earlytom.models.wrapping import is_compiled
from earlytom.runtime.inner import InnerStage

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import ModelAdapter
    from earlytom.runtime.router import ActiveCall
    from earlytom.types import LanguagePlan, PrefillInputs

__all__ = ["acting_inside", "plan_language_model"]


def plan_language_model(adapter: ModelAdapter, model: nn.Module, method: Method) -> LanguagePlan:
    """What the method wants from the language model. Raises `MethodError` or `ModelError` when it cannot be had."""
    plan = method.llm_plan(len(adapter.decoder_layers(model)))
    earliest = adapter.earliest_reduction(model)
    if plan.reduce_before and plan.reduce_before[0] < earliest:
        raise MethodError(
            f"method {method.name!r} acts before layer {plan.reduce_before[0]} of the language model, but this one "
            f"still adds visual features to its first layers: tokens can be reduced before layer {earliest} at the "
            "earliest"
        )
    if plan.reduce_before and any(map(is_compiled, adapter.decoder_layers(model))):
        raise ModelError(
            f"method {method.name!r} acts inside the language model, but layers of it are compiled, which would bypass "
            "it; compress the model as it was before torch.compile, or choose a method that acts before it"
        )
    # Where a position is no number in the sequence, the tokens that are left have none to close ranks to.
    return plan if adapter.sequential_positions else replace(plan, renumber=False)


@contextmanager
def acting_inside(
    call: ActiveCall,
    adapter: ModelAdapter,
    model: nn.Module,
    method: Method,
    plan: LanguagePlan,
    prepared: PrefillInputs,
) -> Iterator[None]:
    """Let the method's stage act during a call, and hand over `PrefillInputs.language_arguments`.

    Args:
        call: that is being served.
        adapter: the model's family.
        model: the model.
        method: the method.
        plan: what it wants from this language model.
        prepared: the prompt that will be prefilled.

    Raises:
        CompressionError: the call ended without one of them having been asked, or uses what they cannot work with.
    """
    visual = prepared.visual_positions
    call.trace.decoder_layers, call.trace.visual_tokens = len(adapter.decoder_layers(model)), tuple(map(len, visual))
    call.compressed = True
    call.further, call.samples = dict(prepared.language_arguments), prepared.arguments["inputs_embeds"].shape[0]
    if plan.reduce_before and any(visual):
        call.stage = InnerStage(adapter, model, method, plan, visual, call.trace)
    try:
        yield
        _check_done(call, method, plan)
    finally:
        call.stage, call.further = None, {}


def _check_done(call: ActiveCall, method: Method, plan: LanguagePlan) -> None:
    if call.further:
        raise CompressionError(
            f"the language model never took over {', '.join(call.further)}, so that its answer lacks visual features; "
            "was it compiled, or replaced?"
        )
    if call.stage is not None and len(call.trace.language) != len(plan.reduce_before):
        raise CompressionError(
            f"method {method.name!r} promised to reduce tokens inside the language model before layer(s) "
            f"{plan.reduce_before}, but that did not happen"
        )
