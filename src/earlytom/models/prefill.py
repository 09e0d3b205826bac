"""What stock gets instead of the processor's output, and what it must have been given for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from earlytom.errors import CompressionError, ModelError
from earlytom.layouts.prompt import HostPrompt, ShortPrompt
from earlytom.types import PrefillInputs

__all__ = ["check_loaded", "check_mask", "check_overrides", "check_promises", "prefill_inputs", "put_features"]

_ALONE = ("inputs_embeds", "mm_encoder_outputs", "labels")


def check_overrides(inputs: Mapping[str, Any], *overrides: str) -> None:
    """Raise `CompressionError` for arguments that cannot go with a video that is to be compressed.

    Args:
        inputs: of the call.
        overrides: what stock lets a call override, while here the configuration alone counts.
    """
    for name in _ALONE:
        if inputs.get(name) is not None:
            raise CompressionError(f"{name} cannot be given together with a video that is to be compressed")
    for name in overrides:
        if inputs.get(name) is not None:
            raise CompressionError(f"{name} cannot be overridden per call while compressing; set it in model.config")


def check_promises(inputs: Mapping[str, Any], video_token_id: int) -> None:
    """Raise `CompressionError` for a call without ``pixel_values_videos`` whose prompt promises a video."""
    ids = inputs.get("input_ids")
    promised = ids is not None and inputs.get("inputs_embeds") is None and (ids == video_token_id).any()
    if promised or (inputs.get("mm_encoder_outputs") or {}).get("video") is not None:
        raise CompressionError(
            "the prompt holds video placeholders but pixel_values_videos is missing, so nothing could be compressed; "
            "pass the processor's whole output (for a further turn: the whole history with its video, not the cache of "
            "a compressed call)"
        )


def check_mask(inputs: Mapping[str, Any]) -> None:
    """Raise `CompressionError` where ``attention_mask`` has not the shape of ``input_ids``."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    if mask is not None and mask.shape != ids.shape:
        raise CompressionError(
            f"attention_mask must have the shape of input_ids, {tuple(ids.shape)}, got {tuple(mask.shape)}"
        )


def check_loaded(weight: Tensor, pixels: Tensor) -> None:
    """Raise `ModelError` where a weight that is read here lies nowhere, in a call that is not itself of shapes only."""
    if weight.is_meta and not pixels.is_meta:
        raise ModelError("a model with offloaded weights cannot be compressed; load it whole")


def put_features(embeds: Tensor, places: Tensor, features: Tensor) -> Tensor:
    """[B, S, C] embeddings with [K, C] ``features`` in the [B, S] ``places``, in their order."""
    return embeds.masked_scatter(places.unsqueeze(-1).to(embeds.device), features.to(embeds))


def prefill_inputs(
    inputs: Mapping[str, Any], prompt: HostPrompt, short: ShortPrompt, embeds: Tensor, consumed: Sequence[str]
) -> PrefillInputs:
    """What stock gets where a token's position is its number in the sequence: embeddings, and the mask they need.

    Args:
        inputs: of the call.
        prompt: on the host.
        short: what stays of it.
        embeds: [B, S', C].
        consumed: the arguments that are used up.
    """
    arguments = {key: value for key, value in inputs.items() if key not in consumed}
    mask = short.take(prompt.mask, 0).to(inputs["input_ids"].device, non_blocking=True)
    arguments |= {"inputs_embeds": embeds, "attention_mask": mask}
    if inputs.get("position_ids") is not None:
        arguments["position_ids"] = short.take(inputs["position_ids"].expand(prompt.ids.shape), 0)
    return PrefillInputs(
        arguments=arguments,
        visual_positions=short.visual_positions,
        dropped=short.dropped,
        prompt_positions=short.prompt_positions,
    )
