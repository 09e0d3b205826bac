"""What can be said of a ``config.json`` or ``generation_config.json`` before a model is made of it."""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from earlytom.errors import ModelError, shown
from earlytom.models.checkpoint.files import is_plain_name
from earlytom.models.checkpoint.weights import Stored, listed

__all__ = ["check_generation", "check_settings", "check_sizes", "culprit", "hints"]

_LAYERS = ("num_hidden_layers", "depth")
_HEADS = ("num_attention_heads", "num_heads")
# Lengths of weights, so that one of those stored has to be as long.
_LENGTHS = ("hidden_size", "intermediate_size", "vocab_size")
_SIZES = (*_LAYERS, *_HEADS, *_LENGTHS, "num_key_value_heads", "head_dim", "embed_dim", "out_hidden_size",
          "max_position_embeddings", "num_position_embeddings")  # fmt: skip
_PIXELS = ("patch_size", "image_size", "num_channels", "in_channels", "in_chans", "spatial_merge_size",
           "spatial_patch_size", "temporal_patch_size", "window_size")  # fmt: skip
_POSITIVE = {"rms_norm_eps": 1.0, "layer_norm_eps": 1.0, "rope_theta": 1e18, "tokens_per_second": 1e6}
_TOKENS = ("image_token_index", "video_token_index", "image_token_id", "video_token_id",
           "vision_start_token_id", "vision_end_token_id")  # fmt: skip
_SWITCHES = ("output_hidden_states", "output_attentions", "output_scores", "output_logits", "return_dict", "use_cache",
             "return_dict_in_generate", "do_sample", "tie_word_embeddings")  # fmt: skip
_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_ACTIVATIONS = ("hidden_act", "hidden_activation", "projector_hidden_act")
# Products of two still are lengths that a tensor can have.
_LARGEST = 2**31 - 1
_MOST_PIXELS = 2**16
_DEEPEST = 8
# Seconds for the name of a field that is wrong.
_SEARCH = 2.0


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise `ModelError` naming the field of a ``config.json``, as ``save_pretrained`` writes it, that cannot be."""
    if not isinstance(settings.get("model_type"), str):
        raise ModelError(f"model_type in config.json must be a name, got {shown(settings.get('model_type'))}")
    if "configuration_files" in settings:
        raise ModelError("configuration_files in config.json is not supported: it leads to another configuration")
    weights = settings.get("transformers_weights")
    if weights is not None and not (is_plain_name(weights) and ".safetensors" in weights):
        raise ModelError(
            f"transformers_weights in config.json must name a .safetensors file beside it, got {shown(weights)}"
        )
    for part in ("text_config", "vision_config"):
        if part in settings and not isinstance(settings[part], Mapping):
            raise ModelError(f"{part} in config.json must be an object, got {shown(settings[part])}")
    check_sizes(settings)


def check_sizes(settings: Mapping[str, Any], stored: Stored | None = None) -> None:
    """Raise `ModelError` naming the size or number in a ``config.json`` that cannot be.

    Args:
        settings: the document.
        stored: the weights; there cannot be more layers than these.
    """
    for place, group in _groups(settings):
        _check_group(place, group)
        if stored is not None:
            _check_layers(place, group, stored)


def _groups(settings: Mapping[str, Any], place: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The document and the objects in it, each with what stands before its fields' names."""
    yield place, settings
    if depth == _DEEPEST:
        raise ModelError(f"{shown(place)} in config.json is nested too deeply")
    for key, value in settings.items():
        if isinstance(value, Mapping) and key != "quantization_config":
            yield from _groups(value, f"{place}{key}.", depth + 1)


def _check_group(place: str, group: Mapping[str, Any]) -> None:
    for keys, largest, sides in ((_SIZES, _LARGEST, 1), (_PIXELS, _MOST_PIXELS, 2)):
        for key in keys:
            if group.get(key) is not None:
                _check_size(f"{place}{key}", group[key], largest, sides)
    for key, most in _POSITIVE.items():
        value = group.get(key)
        if value is not None and not (_is_number(value) and 0 < value <= most):
            raise ModelError(
                f"{place}{key} in config.json must be a number above 0 and at most {most:g}, got {shown(value)}"
            )
    for key in _TOKENS:
        value = group.get(key)
        if value is not None and not (_is_whole(value) and -_LARGEST <= value <= _LARGEST):
            raise ModelError(f"{place}{key} in config.json must be the id of a token, got {shown(value)}")
    for key in _ACTIVATIONS:
        if group.get(key) is not None:
            _check_activation(f"{place}{key}", group[key])
    for key in _SWITCHES:
        _check_switch(f"{place}{key} in config.json", group.get(key))
    for key in _ENDS:
        _check_end(f"{place}{key} in config.json", group.get(key))
    _check_heads(place, group)
    _check_window(place, group)


def _check_size(name: str, value: Any, largest: int, most_sides: int) -> None:
    sides = value if isinstance(value, list) and len(value) == most_sides else [value]
    if not all(_is_whole(side) and 1 <= side <= largest for side in sides):
        raise ModelError(f"{name} in config.json must be an integer from 1 to {largest}, got {shown(value)}")


def _check_activation(name: str, value: Any) -> None:
    from transformers.activations import ACT2FN

    if not (isinstance(value, str) and value in ACT2FN):
        raise ModelError(f"{name} in config.json must be one of {', '.join(sorted(ACT2FN))}, got {shown(value)}")


def _check_heads(place: str, group: Mapping[str, Any]) -> None:
    for key in _HEADS:
        heads, width, shared = group.get(key), group.get("hidden_size"), group.get("num_key_value_heads")
        if heads is None:
            continue
        if width is not None and group.get("head_dim") is None and width % heads:
            raise ModelError(
                f"{place}{key} in config.json must divide {place}hidden_size, got {heads} heads for a width of {width}"
            )
        if shared is not None and heads % shared:
            raise ModelError(
                f"{place}num_key_value_heads in config.json must divide {place}{key}, got {shared} for {heads} heads"
            )


def _check_window(place: str, group: Mapping[str, Any]) -> None:
    """The windows of Qwen2.5-VL's encoder hold whole blocks of patches."""
    window, merged, patch = (group.get(key) for key in ("window_size", "spatial_merge_size", "patch_size"))
    if not (isinstance(window, int) and isinstance(merged, int) and isinstance(patch, int)):
        return
    if window < merged * patch:
        raise ModelError(
            f"{place}window_size in config.json must be at least {place}spatial_merge_size times {place}patch_size, "
            f"got {window} for {merged} times {patch}"
        )


def _check_layers(place: str, group: Mapping[str, Any], stored: Stored) -> None:
    for key in _LAYERS:
        layers = group.get(key)
        if layers is not None and layers > len(stored.shapes):
            raise ModelError(
                f"{place}{key} in config.json is {layers}, but {stored} holds {len(stored.shapes)} weights in all"
            )


def culprit(settings: Mapping[str, Any], error: Exception, make: Callable[[dict[str, Any]], object]) -> str:
    """The field of a ``config.json`` without which a model can be made of it, where an error names none.

    Fields are left out one after another, deepest first, of a model of one layer, for two seconds at most.

    Args:
        settings: the document.
        error: what came of it.
        make: makes a model of a document, or raises; it may change the document.
    """
    deadline = time.monotonic() + _SEARCH
    groups = sorted(_groups(settings), key=lambda found: -found[0].count("."))
    fields = [(place, key, group[key]) for place, group in groups for key in group]
    if set(re.findall(r"[^\W\d]\w+", str(error))) & {key for _, key, _ in fields}:
        return ""
    document = _with_one_layer(settings)
    for place, key, value in fields:
        if time.monotonic() > deadline:
            break
        with suppress(Exception):
            make(_without(document, place, key))
            return f"; without {place}{key}, which is {shown(value)}, one can"
    return ""


def _with_one_layer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the document for a model that is quickly made."""
    document = copy.deepcopy(dict(settings))
    for _, group in list(_groups(document)):
        if isinstance(group, dict):
            group.pop("layer_types", None)
            group.update({key: 1 for key in _LAYERS if _is_whole(group.get(key))})
    return document


def _without(settings: Mapping[str, Any], place: str, key: str) -> dict[str, Any]:
    """A copy of the document without a field."""
    document = copy.deepcopy(dict(settings))
    inner = document
    for step in place.split(".")[:-1]:
        inner = inner[step]
    inner.pop(key, None)
    return document


def hints(settings: Mapping[str, Any], stored: Stored) -> str:
    """The fields of ``config.json`` that no weight is as long as: what is probably wrong where weights do not fit."""
    lengths = {length for shape in stored.shapes.values() for length in shape}
    stale = [
        f"{place}{key} is {shown(group[key])}"
        for place, group in _groups(settings)
        for key in _LENGTHS
        if group.get(key) is not None and group[key] not in lengths
    ]
    return f"; in config.json {listed(stale)}, and no weight is as long" if stale else ""


def check_generation(settings: Mapping[str, Any] | None) -> None:
    """Raise `ModelError` naming the field of ``generation_config.json`` that ``generate`` could not work with."""
    for key in _SWITCHES:
        _check_switch(f"{key} in generation_config.json", (settings or {}).get(key))
    for key in _ENDS:
        _check_end(f"{key} in generation_config.json", (settings or {}).get(key))
    for key, value in (settings or {}).items():
        if value is None:
            continue
        if key in ("max_new_tokens", "max_length", "num_beams", "num_return_sequences", "num_beam_groups"):
            good, wanted = _is_whole(value) and 1 <= value <= _LARGEST, "an integer of at least 1"
        elif key in ("temperature", "repetition_penalty"):
            good, wanted = _is_number(value) and 0 <= value < math.inf, "a number of at least 0"
        elif key in ("top_p", "min_p", "typical_p"):
            good, wanted = _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"
        elif key in ("min_new_tokens", "min_length", "top_k", "no_repeat_ngram_size"):
            good, wanted = _is_whole(value) and 0 <= value <= _LARGEST, "an integer of at least 0"
        else:
            continue
        if not good:
            raise ModelError(f"{key} in generation_config.json must be {wanted}, got {shown(value)}")


def _check_switch(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, bool):
        raise ModelError(f"{name} must be true or false, got {shown(value)}")


def _check_end(name: str, value: Any) -> None:
    """Ids of tokens at the end of an answer; -1 stands for none in some."""
    ids = value if isinstance(value, list) else [value]
    if value is not None and not all(_is_whole(one) and -1 <= one <= _LARGEST for one in ids):
        raise ModelError(f"{name} must be an integer or a list of them, got {shown(value)}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
