"""What acts inside the language model during one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from earlytom.errors import CompressionError
from earlytom.runtime.llm_stage import LlmStage

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.language_model import LanguageModel
    from earlytom.runtime.router import ActiveCall
    from earlytom.types import LanguagePlan, PrefillInputs

__all__ = ["acting_in_llm"]


@contextmanager
def acting_in_llm(
    call: ActiveCall, language: LanguageModel, method: Method, plan: LanguagePlan, prepared: PrefillInputs
) -> Iterator[None]:
    """Let the method's stage act during a call, and hand over `PrefillInputs.language_arguments`.

    Args:
        call: that is being served.
        language: the language model.
        method: the method.
        plan: what it wants from this language model.
        prepared: the prompt that will be prefilled.

    Raises:
        CompressionError: the call ended without one of them having been asked, or uses what they cannot work with.
    """
    visual = prepared.visual_positions
    call.trace.decoder_layers, call.trace.visual_tokens = len(language.layers), tuple(map(len, visual))
    call.compressed = True
    call.further, call.samples = dict(prepared.language_arguments), prepared.arguments["inputs_embeds"].shape[0]
    if plan.reduce_before and any(visual):
        call.stage = LlmStage(language, method, plan, visual, call.trace)
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
