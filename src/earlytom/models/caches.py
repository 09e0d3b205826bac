"""The cache of keys and values of a call, which transformers names ``past_key_values`` (to 5.23) or ``cache``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["cache_argument", "given_cache", "returned_cache"]


def cache_argument(call: Callable[..., Any]) -> str:
    """What the ``forward`` of a model or of its language model calls the cache among its arguments."""
    return "cache" if "cache" in inspect.signature(call).parameters else "past_key_values"


def given_cache(arguments: Mapping[str, Any]) -> Any | None:
    """The cache among the arguments of a call of a model or of one of its layers; ``None`` where there is none."""
    cache = arguments.get("cache")
    return arguments.get("past_key_values") if cache is None else cache


def returned_cache(output: Any) -> Any | None:
    """The cache that a model's output carries; ``None`` where there is none, as in outputs that are tuples."""
    # Not by both names in turn: a release that knows the new one warns of the old one.
    return getattr(output, "cache" if hasattr(output, "cache") else "past_key_values", None)
