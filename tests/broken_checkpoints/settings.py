"""Values of ``config.json`` and ``generation_config.json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .changing import Kind, configured, editor

_SIZES = (0, -1, "four", 1.5, True, [], {}, 10_000_000, 10**30)
_LANGUAGE = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "vocab_size")
_TOWERS = {
    "onevision": ("num_hidden_layers", "num_attention_heads", "hidden_size", "patch_size", "image_size"),
    "qwen": ("depth", "num_heads", "hidden_size", "patch_size", "spatial_merge_size"),
}
_TEXT_VALUES: tuple[tuple[str, Any], ...] = (
    ("num_attention_heads", 7),
    ("num_key_value_heads", 3),
    ("num_hidden_layers", 3),
    ("num_hidden_layers", 9),
    ("hidden_size", 200),
    ("intermediate_size", 100),
    ("vocab_size", 7),
    ("vocab_size", 10**7),
    ("hidden_act", "no_such_function"),
    ("rms_norm_eps", "small"),
)
_PUBLISHED: tuple[tuple[str, Any], ...] = (
    ("vision_config", {"hidden_size": 32, "num_attention_heads": 0}),
    ("vision_config", {"hidden_size": 32, "num_attention_heads": "x"}),
    ("vision_config", "x"),
    ("mm_projector_type", []),
    ("mm_spatial_pool_stride", "x"),
    ("mm_newline_position", {}),
    ("eos_token_id", "x"),
)
_CONVERTED: tuple[tuple[str, Any], ...] = (
    ("spatial_pool_mode", 3),
    ("spatial_pool_stride", 0),
    ("newline_position", []),
)
_GENERATION: tuple[tuple[str, Any], ...] = (
    ("output_hidden_states", 0.5),
    ("output_attentions", [[]]),
    ("use_cache", "x"),
    ("do_sample", 2),
    ("eos_token_id", "end"),
    ("eos_token_id", [1.5]),
    ("max_new_tokens", "many"),
    ("max_new_tokens", -1),
    ("temperature", "hot"),
    ("num_beams", "x"),
    ("pad_token_id", {}),
)


def of_settings() -> Iterator[Kind]:
    """All of them."""
    for base in _TOWERS:
        yield from _of_sizes(base)
        yield from _of_fields(base)
    yield from _of_published_layouts()
    for key, value in _GENERATION:
        yield Kind(
            f"generation_config.json's {key} is {value!r}",
            "onevision",
            editor("generation_config.json", key, value),
            (r"generation_config\.json", key),
        )


def _of_sizes(base: str) -> Iterator[Kind]:
    for part, keys in (("text_config", (*_LANGUAGE, "intermediate_size")), ("vision_config", _TOWERS[base])):
        for place, key in enumerate(keys):
            # All values for the first two, then every second one: the same code reads them.
            for value in _SIZES if place < 2 else _SIZES[place % 2 :: 2]:
                yield configured(base, f"{part}|{key}", value)


def _of_fields(base: str) -> Iterator[Kind]:
    for part in ("text_config", "vision_config"):
        for value in (None, 3, [], "x"):
            yield configured(base, part, value)
    for value in (..., None, 3, "gpt2", "no_such_model", "x" * 3000, "../x"):
        yield configured(base, "model_type", value, f"model_type is {str(value)[:20]}")
    for key, value in _TEXT_VALUES:
        yield configured(base, f"text_config|{key}", value)
    for value in ("../x.safetensors", "/etc/passwd", 3, "x.bin"):
        yield configured(base, "transformers_weights", value)


def _of_published_layouts() -> Iterator[Kind]:
    for key in _LANGUAGE:
        for value in (0, "four", 1.5, [], 10_000_000):
            yield configured("published", key, value)
    for key, value in _PUBLISHED:
        change = editor("config.json", key, value)
        yield Kind(f"{key} is {value!r}", "published", change, (key.removeprefix("mm_"),))
    for key, value in _CONVERTED:
        yield Kind(f"{key} is {value!r}", "converted", editor("config.json", key, value), (key,))
