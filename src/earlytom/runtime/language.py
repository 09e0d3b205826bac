"""What acts inside the language model during one call, and is taken out again behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from earlytom.errors import MethodError
from earlytom.runtime.inner import reducing

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import ModelAdapter
    from earlytom.trace import CallTrace
    from earlytom.types import LanguagePlan, PrefillInputs

__all__ = ["language_model_stages", "plan_language_model"]


def plan_language_model(adapter: ModelAdapter, model: nn.Module, method: Method) -> LanguagePlan:
    """What the method wants from the language model. Raises `MethodError` when it cannot be had."""
    plan = method.llm_plan(len(adapter.decoder_layers(model)))
    earliest = adapter.earliest_reduction(model)
    if plan.reduce_before and plan.reduce_before[0] < earliest:
        raise MethodError(
            f"method {method.name!r} acts before layer {plan.reduce_before[0]} of the language model, but this one "
            f"still adds visual features to its first layers: tokens can be reduced before layer {earliest} at the "
            "earliest"
        )
    # Where a position is no number in the sequence, the tokens that are left have none to close ranks to.
    return plan if adapter.sequential_positions else replace(plan, renumber=False)


@contextmanager
def language_model_stages(
    adapter: ModelAdapter, model: nn.Module, method: Method, prepared: PrefillInputs, trace: CallTrace
) -> Iterator[None]:
    """Install what acts inside the language model, for one call of ``generate`` or ``forward``.

    That is the method's stage, and what the model wants to have there besides (`PrefillInputs.language_arguments`).

    Raises:
        MethodError: the method does not fit the language model.
        CompressionError: the call ended without the stage having run, or uses what it cannot work with.
    """
    plan = plan_language_model(adapter, model, method)
    with (
        _extra_arguments(cast(Any, model).model.language_model, prepared),
        reducing(adapter, model, method, plan, prepared.visual_positions, trace),
    ):
        yield


@contextmanager
def _extra_arguments(language_model: nn.Module, prepared: PrefillInputs) -> Iterator[None]:
    """Hand the language model further arguments when it is called first, which is the prefill."""
    extra = prepared.language_arguments
    if not extra:
        yield
        return
    pending = [threading.get_ident()]
    samples = prepared.arguments["inputs_embeds"].shape[0]

    def add(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if pending != [threading.get_ident()]:
            return None
        pending.clear()
        repeats = kwargs["inputs_embeds"].shape[0] // samples
        return args, kwargs | {name: make(repeats) for name, make in extra.items()}

    handle = language_model.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
