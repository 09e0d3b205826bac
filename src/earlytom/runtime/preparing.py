"""Stages I and II of one call, and the shortened prompt that stock gets instead of the processor's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from earlytom.errors import MethodError, ModelError
from earlytom.methods import make_method
from earlytom.models import open_model
from earlytom.runtime.devices import computing_devices, host_first
from earlytom.runtime.encode import encode_videos
from earlytom.runtime.generation import warn_about_cache, with_mask
from earlytom.runtime.in_parts import check_grids_at_once
from earlytom.runtime.plans import Plans
from earlytom.runtime.prefix import cached_prefix
from earlytom.stages import LayerRequests
from earlytom.trace import CallTrace, Stopwatch
from earlytom.types import PrefillInputs

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import VideoCall
    from earlytom.types import EncoderPlan

__all__ = ["prepare", "prepare_call"]


def prepare(
    model: nn.Module, inputs: Mapping[str, Any], method: Method | str, *, grids_at_once: int | None = None
) -> PrefillInputs:
    """Compress the videos of a prompt and return what stock ``model.generate`` needs; the model is not touched.

    ``model.generate(**prepare(model, inputs, method).arguments)`` returns the original prompt's ids followed by the new
    ones. A prompt without video comes back as it is.

    Args:
        model: a supported stock model, or a wrapper around one (PEFT's, for example).
        inputs: the processor's output.
        method: a method, or its name and options as text (`earlytom.methods.parse_method`).
        grids_at_once: see `earlytom.compress`.

    Raises:
        ModelError: the model is not supported, or its language model gets more than embeddings.
        MethodError: the method does not fit the model, or acts inside the language model (that needs `compress`).
        CompressionError: prompt and videos do not match, or ``grids_at_once`` is no number of grids.
    """
    method, host = make_method(method), open_model(model)
    plans = Plans.of(method, host)
    check_grids_at_once(grids_at_once, LayerRequests.of([plans.encoder]))
    if plans.acts_in_llm:
        raise MethodError(
            f"method {method.name!r} acts inside the language model (before layer {plans.language.reduce_before[0]}), "
            "which prepare() cannot do; use earlytom.compress"
        )
    defaults = host.model.generation_config
    prefix = cached_prefix(inputs, generating=True)
    masked = prefix.without(with_mask(inputs, defaults))
    call = host.open(masked)
    if call is None:
        return PrefillInputs(arguments=dict(inputs), visual_positions=(), dropped=())
    warn_about_cache(masked, defaults, stacklevel=3)
    prefix.check(masked, generating=True, sequential=host.sequential_positions, reduces_in_llm=False)
    trace = CallTrace(stopwatch=Stopwatch(*computing_devices(host.model)))
    with torch.no_grad():
        prepared = prepare_call(call, method, plans.encoder, trace, grids_at_once)
    if prepared.language_arguments:
        raise ModelError(
            f"the language model of {type(host.model).__name__} gets more than embeddings "
            f"({', '.join(prepared.language_arguments)}), which prepare() cannot hand over; use earlytom.compress"
        )
    return prefix.before(prepared, generating=True)


def prepare_call(
    call: VideoCall, method: Method, plan: EncoderPlan, trace: CallTrace, grids_at_once: int | None = None
) -> PrefillInputs:
    """Compress the clips of one call and shorten its prompt; what happened is written into the call's trace.

    Raises:
        ModelError: the inputs have no values.
        CompressionError: see `encode_videos`.
    """
    if any(isinstance(value, torch.Tensor) and value.is_meta for value in call.inputs.values()):
        raise ModelError("a model with offloaded weights cannot be compressed; load it whole")
    with host_first():
        kept, trace.videos = encode_videos(call, method, plan, trace.clock, grids_at_once)
        with trace.clock.stage("assembly"):
            prepared = call.assemble(kept)
    trace.prompt_tokens = call.prompt.ids.shape[1]
    trace.prefill_tokens = prepared.arguments["inputs_embeds"].shape[1]
    return prepared
