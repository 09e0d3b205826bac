"""Arguments of ``generate``: by name, lengths counted from the prompt the user wrote, refusing what would go wrong."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.models.caches import given_cache

__all__ = [
    "brings_pixels",
    "check_cache_grows",
    "check_generation",
    "effective",
    "named_arguments",
    "warn_about_cache",
    "with_mask",
    "with_new_token_limits",
]

# Generation features that re-run or re-slice the prompt by its ids, which no longer line up with what was prefilled.
_REFUSED = {
    "assistant_model": "assisted decoding",
    "prompt_lookup_num_tokens": "prompt lookup decoding",
    "prefill_chunk_size": "chunked prefill",
    "negative_prompt_ids": "classifier-free guidance with a negative prompt",
    "custom_generate": "custom generation loops",
    "token_healing": "token healing",
}

# Caches that ``generate`` makes and that grow in each layer on their own.
_GROWING = ("dynamic", "offloaded", "quantized")


def named_arguments(call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call of ``generate`` or ``forward`` by name; ``inputs`` becomes ``input_ids``.

    Raises:
        TypeError: an argument is given twice.
    """
    names = list(inspect.signature(call).parameters)
    named = {"input_ids" if name == "inputs" else name: value for name, value in zip(names, args, strict=False)}
    given = dict(kwargs)
    if "inputs" in given:
        inputs = given.pop("inputs")
        if inputs is not None:
            named["input_ids"] = inputs
    twice = [name for name in named if given.get(name) is not None and named[name] is not None]
    if twice:
        raise TypeError(f"{twice[0]} is given twice")
    return given | {name: value for name, value in named.items() if value is not None}


def brings_pixels(arguments: Mapping[str, Any]) -> bool:
    """Whether a call brings pictures or videos, told without reading any."""
    return any(name.startswith("pixel_values") and value is not None for name, value in arguments.items())


def check_generation(arguments: Mapping[str, Any], defaults: Any, *, reduces_in_llm: bool) -> None:
    """Refuse generation features that would silently see a prompt other than the one that was prefilled.

    Args:
        arguments: of the call, by name.
        defaults: the model's own generation configuration.
        reduces_in_llm: whether the method acts inside the language model.

    Raises:
        CompressionError: such a feature is asked for.
    """
    for name, feature in _REFUSED.items():
        if effective(name, arguments, defaults) not in (None, False):
            raise CompressionError(f"{feature} ({name}) is not supported while a video is compressed; leave it out")
    if arguments.get("cache_implementation") == "paged":
        raise CompressionError("continuous batching (cache_implementation='paged') is not supported while compressing")
    if reduces_in_llm:
        _check_inside_llm(arguments, defaults)


def check_cache_grows(cache: Any | None) -> None:
    """Refuse a cache with a layer of limited length: behind a reduction layers hold fewer tokens than masks say.

    Args:
        cache: of transformers, filled or not; ``None`` where there is none.

    Raises:
        CompressionError: some layer is static or keeps a sliding window only.
    """
    for number, layer in enumerate(getattr(cache, "layers", ())):
        if layer.get_max_length() > 0:
            raise CompressionError(
                "inner-LLM merging needs a cache that grows (DynamicCache), not a static one or one with a sliding "
                f"window; layer {number} of this {type(cache).__name__} holds {layer.get_max_length()} tokens at most"
            )


def warn_about_cache(arguments: Mapping[str, Any], defaults: Any, *, stacklevel: int) -> None:
    """Say so where ``use_cache=False`` is asked for: stock ``generate`` caches whatever starts from embeddings.

    Args:
        arguments: of the call, by name.
        defaults: the model's own generation configuration.
        stacklevel: whose line the warning names, see `warnings.warn`.
    """
    if effective("use_cache", arguments, defaults) is False:
        warnings.warn(
            "use_cache=False has no effect while a video is compressed: transformers' generate() always caches a "
            "prompt that starts from embeddings, as a compressed one does. The answer is the same",
            UserWarning,
            stacklevel=stacklevel,
        )


def with_mask(arguments: Mapping[str, Any], defaults: Any) -> dict[str, Any]:
    """Add the attention mask that stock ``generate`` would infer: padding is masked where it differs from the end."""
    if arguments.get("attention_mask") is not None or arguments.get("input_ids") is None:
        return dict(arguments)
    ids: Tensor = arguments["input_ids"]
    pad, end = effective("pad_token_id", arguments, defaults), effective("eos_token_id", arguments, defaults)
    ends = end if isinstance(end, list) else [end]
    mask = torch.ones_like(ids) if pad is None or pad in ends else (ids != pad).long()
    return {**arguments, "attention_mask": mask}


def with_new_token_limits(arguments: Mapping[str, Any], defaults: Any) -> dict[str, Any]:
    """Turn ``max_length`` and ``min_length``, which count the prompt that the user wrote, into numbers of new tokens.

    Stock would count them from the shortened embeddings.

    Raises:
        CompressionError: ``max_length`` leaves no room for an answer.
    """
    changed = dict(arguments)
    prompt = arguments["input_ids"].shape[1]
    for limit, new in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        value = effective(limit, arguments, defaults)
        if not value or effective(new, arguments, defaults) is not None:
            continue
        if limit == "max_length" and value <= prompt:
            raise CompressionError(
                f"max_length ({value}) leaves no room behind a prompt of {prompt} tokens; use max_new_tokens"
            )
        changed[new] = max(0, value - prompt)
        changed.pop(limit, None)
    return changed


def _check_inside_llm(arguments: Mapping[str, Any], defaults: Any) -> None:
    """Refuse what a method that acts inside the language model cannot work with."""
    if effective("guidance_scale", arguments, defaults) not in (None, 1, 1.0):
        raise CompressionError("guidance_scale runs the model twice a step, which inner-LLM merging does not support")
    implementation = effective("cache_implementation", arguments, defaults)
    # Stock takes "hybrid" for no choice at all: it was the default of old checkpoints.
    if implementation not in (None, "hybrid", *_GROWING):
        raise CompressionError(
            f"cache_implementation={implementation!r} is not supported by inner-LLM merging, which needs a cache that "
            f"grows, not a static one; leave it out or use one of {', '.join(_GROWING)}"
        )
    check_cache_grows(given_cache(arguments))


def effective(name: str, arguments: Mapping[str, Any], defaults: Any) -> Any:
    """What ``generate`` would go by: the call's own argument, its ``generation_config``, the model's, in this order."""
    for value in (
        arguments.get(name),
        getattr(arguments.get("generation_config"), name, None),
        getattr(defaults, name, None),
    ):
        if value is not None:
            return value
    return None
