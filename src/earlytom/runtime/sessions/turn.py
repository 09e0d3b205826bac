"""One question behind a kept cache: stock ``generate`` prefills what is new and goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from earlytom.errors import CompressionError
from earlytom.models.caches import cache_argument
from earlytom.runtime.asking import new_tokens
from earlytom.runtime.generation import check_generation, effective
from earlytom.runtime.sessions.kept_cache import KeptCache
from earlytom.runtime.sessions.prefix import VideoPrefix

__all__ = ["Behind", "Generated", "check_context", "check_options", "generate_behind"]

_GIVEN = (
    "input_ids", "inputs", "inputs_embeds", "attention_mask", "position_ids", "past_key_values", "cache",
    "pixel_values", "pixel_values_videos", "mm_token_type_ids", "token_type_ids",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Behind:
    """The cache of a session, and the ids of what stands in it behind the videos.

    Attributes:
        cache: of the videos and the text.
        tail: of the text.
    """

    cache: KeptCache
    tail: tuple[int, ...] = ()

    def common(self, tail: Sequence[int]) -> int:
        """How many ids of another text can stay in the cache; its last one has to run."""
        most = min(len(self.tail), len(tail) - 1)
        return next((place for place in range(most) if self.tail[place] != tail[place]), most)


@dataclass(frozen=True, eq=False)
class Generated:
    """What came of a question.

    Attributes:
        ids: of the answer, up to its end token.
        prefilled: tokens that were prefilled for it.
        behind: the cache that goes on.
    """

    ids: list[int]
    prefilled: int
    behind: Behind


def check_options(options: Mapping[str, Any], defaults: Any) -> None:
    """Refuse options of ``generate`` that a session cannot leave to the caller.

    Args:
        options: the caller's, by name.
        defaults: the model's own generation configuration.

    Raises:
        CompressionError: one of them is given.
    """
    for name in _GIVEN:
        if options.get(name) is not None:
            raise CompressionError(f"{name} is what a session itself gives to generate(); leave it out")
    for name, new in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        if options.get(name) is not None:
            raise CompressionError(f"{name} counts a prompt that a session has shortened; use {new}")
    if effective("use_cache", options, defaults) is False:
        raise CompressionError("use_cache=False cannot be had in a session, which lives by its cache; leave it out")
    kind = effective("cache_implementation", options, defaults)
    if kind not in (None, "hybrid", "dynamic"):  # stock takes "hybrid" for no choice
        raise CompressionError(
            f"cache_implementation={kind!r} cannot be had in a session, whose cache grows; leave it out"
        )
    check_generation(options, defaults, reduces_in_llm=False)


def check_context(config: Any, prefix: VideoPrefix, tail: int, new: int) -> None:
    """Refuse a prompt whose answer would leave the positions that the model knows.

    Args:
        config: of the model.
        prefix: the videos.
        tail: tokens of the text behind them.
        new: most tokens of the answer.

    Raises:
        CompressionError: it would.
    """
    limit = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    needed = prefix.next_position + tail + new
    if limit is not None and needed > limit:
        raise CompressionError(
            f"the conversation needs {needed} positions ({prefix.next_position} up to the end of the video, {tail} of "
            f"text, {new} for the answer), but the model has {limit}: use fewer frames, a smaller max_history or "
            "max_new_tokens"
        )


def generate_behind(
    model: Any, stock: Any, prefix: VideoPrefix, behind: Behind, tail: Sequence[int], options: Mapping[str, Any]
) -> Generated:
    """Answer ``tail``.

    Args:
        model: whose ``generate`` is called: the stock model, or a wrapper around it.
        stock: the stock model.
        prefix: the videos.
        behind: the cache so far.
        tail: ids of the text behind the videos, the question at its end.
        options: of ``generate``.
    """
    known = behind.common(tail)
    copies = _copies(options, stock.generation_config)
    cache = behind.cache.first(prefix.length + known).for_transformers(copies)
    arguments = prefix.arguments(tail) | {cache_argument(type(stock).forward): cache, "use_cache": True}
    with torch.no_grad():
        output = model.generate(**arguments, **options)
    (ids,) = new_tokens(stock, output, arguments["input_ids"], options)
    if copies == 1:
        kept = KeptCache.of(cache)
        said = (*tail, *ids)[: kept.length - prefix.length]  # the last token has not run
        behind = Behind(kept.first(prefix.length + len(said)), said)
    return Generated(ids, len(tail) - known, behind)


def _copies(options: Mapping[str, Any], defaults: Any) -> int:
    """How often ``generate`` runs the prompt side by side."""
    asked = (effective(name, options, defaults) or 1 for name in ("num_beams", "num_return_sequences"))
    return max(asked)
