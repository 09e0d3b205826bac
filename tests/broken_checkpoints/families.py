"""Values of ``config.json`` that only a family's own arithmetic, or its prompts, would trip over."""

from __future__ import annotations

from collections.abc import Iterator

from .bases import FIVE
from .changing import Kind, configured

_SECTIONS = "text_config|rope_parameters|mrope_section"
_VALUES = (
    ("onevision", "vision_feature_layer", (0, 10_000, "x")),
    ("internvl", "vision_feature_layer", (0, 10_000)),
    ("qwen", _SECTIONS, (..., 0, "x", None, [], [[]], [1, 2], [1, 2, 3], [-1, 2, 3], [True, 2, 3])),
    ("qwen3", _SECTIONS, ("x", None, [], [[]], [1, 2], [-1, 2, 3], {})),
    ("qwen", "vision_config|window_size", (0, -1, 3, 10**30, "x")),
    ("qwen", "vision_config|tokens_per_second", (0, 10**30, "x")),
    ("qwen", "vision_config|hidden_size", ([1, 2],)),
    ("qwen", "image_token_id", (3, 10**30)),
    ("qwen3", "image_token_id", (3, 10**30, ...)),
    ("qwen3", "vision_start_token_id", (3, 10**30, ...)),
    ("qwen3", "vision_end_token_id", (3, 10**30, ...)),
    ("internvl", "image_token_id", (3, 10**30, ...)),
    ("converted", "spatial_pool_stride", (3, 1, True)),
    ("converted", "spatial_pool_mode", ("max",)),
    *((base, "text_config|rope_parameters|rope_theta", (0, -1, 1e999, None, 10**30)) for base in FIVE),
    *((base, "text_config|rope_parameters|rope_type", ("x", 3, [], None)) for base in FIVE),
    *((base, "dtype", ("x", [[]])) for base in FIVE),
)


def of_families() -> Iterator[Kind]:
    """All of them."""
    for base, place, values in _VALUES:
        for value in values:
            yield configured(base, place, value, f"{place} is {'gone' if value is ... else repr(value)}")
