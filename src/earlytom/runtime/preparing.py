"""Stages I and II of one call, and the shortened prompt that stock gets instead of the processor's output."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from earlytom.errors import MethodError, ModelError
from earlytom.methods import make_method
from earlytom.models import open_model
from earlytom.runtime.devices import computing_devices, host_first
from earlytom.runtime.encode import encode_videos
from earlytom.runtime.generation import warn_about_cache, with_mask
from earlytom.runtime.language import plan_language_model
from earlytom.runtime.prefix import cached_prefix
from earlytom.trace import CallTrace, Stopwatch, VideoTrace
from earlytom.types import FrameGrid, KeptTokens, PrefillInputs

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import ModelAdapter
    from earlytom.models.prompt import HostPrompt

__all__ = ["prepare", "prepare_call"]


def prepare(model: nn.Module, inputs: Mapping[str, Any], method: Method | str) -> PrefillInputs:
    """Compress the videos of a prompt and return what stock ``model.generate`` needs; the model is not touched.

    ``model.generate(**prepare(model, inputs, method).arguments)`` returns the original prompt's ids followed by the new
    ones. A prompt without video comes back as it is.

    Args:
        model: a supported stock model, or a wrapper around one (PEFT's, for example).
        inputs: the processor's output.
        method: a method, or its name and options as text (`earlytom.methods.parse_method`).

    Raises:
        ModelError: the model is not supported.
        MethodError: the method does not fit the model, or acts inside the language model (that needs `compress`).
        CompressionError: prompt and videos do not match.
    """
    method = make_method(method)
    adapter, model = open_model(model)
    plan = plan_language_model(adapter, model, method)
    if plan.reduce_before:
        raise MethodError(
            f"method {method.name!r} acts inside the language model (before layer {plan.reduce_before[0]}), which "
            "prepare() cannot do; use earlytom.compress"
        )
    defaults = cast(Any, model).generation_config
    prefix = cached_prefix(inputs, generating=True)
    masked = prefix.without(with_mask(inputs, defaults))
    prompt = adapter.prompt(model, masked)
    if prompt is None:
        return PrefillInputs(arguments=dict(inputs), visual_positions=(), dropped=())
    warn_about_cache(masked, defaults, stacklevel=3)
    prefix.check(masked, generating=True, sequential=adapter.sequential_positions, reduces_in_llm=False)
    call = CallTrace(stopwatch=Stopwatch(*computing_devices(model)))
    with torch.no_grad():
        prepared = prepare_call(adapter, model, masked, prompt, method, call)
    if prepared.language_arguments:
        raise ModelError(
            f"the language model of {type(model).__name__} gets more than embeddings "
            f"({', '.join(prepared.language_arguments)}), which prepare() cannot hand over; use earlytom.compress"
        )
    return prefix.before(prepared, generating=True)


def prepare_call(
    adapter: ModelAdapter,
    model: nn.Module,
    inputs: Mapping[str, Any],
    prompt: HostPrompt,
    method: Method,
    call: CallTrace,
) -> PrefillInputs:
    """Compress the clips of one call and shorten its prompt; what happened is written into the call's trace."""
    with host_first():
        grids = adapter.grids(model, inputs, prompt)
        kept, call.videos = _encode(adapter, model, inputs, grids, method, call.clock)
        with call.clock.stage("assembly"):
            prepared = adapter.assemble(model, inputs, prompt, grids, kept)
    call.prompt_tokens = prompt.ids.shape[1]
    call.prefill_tokens = prepared.arguments["inputs_embeds"].shape[1]
    return prepared


def _encode(
    adapter: ModelAdapter,
    model: nn.Module,
    inputs: Mapping[str, Any],
    grids: Sequence[FrameGrid],
    method: Method,
    clock: Stopwatch,
) -> tuple[list[KeptTokens], list[VideoTrace]]:
    """The kept tokens of every clip, and what happened to it; one clip that is given several times is encoded once."""
    if not _is_one_clip(inputs.get("pixel_values_videos"), grids):
        return encode_videos(adapter, model, inputs, grids, method, clock)
    alone = {**inputs, **{name: inputs[name][:1] for name in adapter.clip_arguments if inputs.get(name) is not None}}
    kept, traces = encode_videos(adapter, model, alone, grids[:1], method, clock)
    # A trace may be written to by whoever gets it, so each prompt has its own.
    return kept * len(grids), [dataclasses.replace(traces[0]) for _ in grids]


def _is_one_clip(pixels: object, grids: Sequence[FrameGrid]) -> bool:
    """Whether all clips are one in memory, as ``pixels[:1].expand(n, ...)`` makes them; told without reading any."""
    if not isinstance(pixels, torch.Tensor) or len(grids) < 2 or len(set(grids)) > 1:
        return False
    return pixels.shape[0] == len(grids) and pixels.stride(0) == 0
