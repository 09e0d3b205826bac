"""Prompts whose first tokens are in the cache already, such as a system prompt that many calls share.

As for stock, ``input_ids`` are the whole prompt, what is cached included, or only what comes behind it, with a mask
that covers both. What is cached must be text: the places of a video's tokens are decided in this call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.models.caches import given_cache
from earlytom.runtime.generation import brings_pixels
from earlytom.types import PrefillInputs

__all__ = ["CachedPrefix", "cached_prefix"]


@dataclass(frozen=True, eq=False)
class CachedPrefix:
    """The tokens of a prompt that are in the cache.

    Attributes:
        length: their number, the same for all samples; 0 where nothing is cached.
        mask: [B, length] of them where ``input_ids`` leave them out; ``None`` where these hold the whole prompt.
        mask_given: whether the call's own mask says which of the two it is.
    """

    length: int
    mask: Tensor | None = None
    mask_given: bool = True

    @property
    def padded(self) -> bool:
        """Whether its mask hides anything (read from the device)."""
        return self.mask is not None and bool((self.mask == 0).any())

    def without(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call with a mask that is as long as its ids."""
        if self.mask is None or arguments.get("attention_mask") is None:
            return dict(arguments)
        return {**arguments, "attention_mask": arguments["attention_mask"][:, self.length :]}

    def check(self, arguments: Mapping[str, Any], *, generating: bool, sequential: bool, reduces_in_llm: bool) -> None:
        """Refuse what cannot go on behind a cache.

        Args:
            arguments: of a call that brings a video.
            generating: whether it is one of ``generate``, which may be given the whole prompt; ``forward`` never is.
            sequential: whether a token's position is its number in the sequence.
            reduces_in_llm: whether the method acts inside the language model.

        Raises:
            CompressionError: it cannot.
        """
        if not self.length:
            return
        if reduces_in_llm:
            raise CompressionError(
                f"the cache already holds {self.length} tokens, which a method that acts inside the language model "
                "cannot go on behind: its later layers have shorter caches; start with an empty cache"
            )
        ids = arguments["input_ids"]
        if not self.mask_given:
            raise CompressionError(
                f"the cache already holds {self.length} tokens: pass the attention_mask too, which tells whether "
                "input_ids are the whole prompt or only what comes behind it"
            )
        if self.mask is None and (not generating or ids.shape[1] <= self.length):
            raise CompressionError(
                f"the cache already holds {self.length} tokens, but input_ids {tuple(ids.shape)} come without an "
                f"attention_mask that covers both, {self.length + ids.shape[1]} tokens"
                + (f"; or input_ids must be the whole prompt, more than {self.length} tokens" if generating else "")
            )
        if self.mask is not None and not sequential and arguments.get("position_ids") is None:
            raise CompressionError(
                f"the cache already holds {self.length} tokens that input_ids leave out, but positions with three axes "
                "cannot be counted without them; pass the whole prompt to generate(), or position_ids"
            )

    def before(self, prepared: PrefillInputs, *, generating: bool) -> PrefillInputs:
        """Put the cached part back in front of what was made of the rest.

        Args:
            prepared: of the prompt as the call gave it.
            generating: whether ``generate`` gets it, which counts the whole prompt's embeddings and cuts off those of
                what is cached, whatever they are. ``forward`` gets what comes behind the cache only.

        Raises:
            CompressionError: a token in the cache would have to move or to go.
        """
        if not self.length:
            return prepared
        if self.mask is not None:
            return self._before_the_rest(prepared, self.mask, generating=generating)
        self._check_places(prepared)
        return replace(prepared, language_arguments=self._for_the_rest(prepared)) if generating else prepared

    def _before_the_rest(self, prepared: PrefillInputs, mask: Tensor, *, generating: bool) -> PrefillInputs:
        short, embeds = prepared.arguments["attention_mask"], prepared.arguments["inputs_embeds"]
        changed = {"attention_mask": torch.cat([mask.to(short), short], dim=1)}
        if not generating:
            return replace(prepared, arguments=prepared.arguments | changed)
        unread = embeds.new_zeros(embeds.shape[0], self.length, embeds.shape[2])
        changed["inputs_embeds"] = torch.cat([unread, embeds], dim=1)
        visual = tuple(tuple(place + self.length for place in row) for row in prepared.visual_positions)
        return replace(prepared, arguments=prepared.arguments | changed, visual_positions=visual)

    def _for_the_rest(self, prepared: PrefillInputs) -> dict[str, Callable[[int], Any]]:
        """The language model's further arguments: it runs on what comes behind the cache, and so do masks."""
        width = prepared.arguments["inputs_embeds"].shape[1]

        def cut(make: Callable[[int], Any], beams: int) -> Any:
            value = make(beams)
            is_mask = isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] == width
            return value[:, self.length :] if is_mask else value

        return {name: partial(cut, make) for name, make in prepared.language_arguments.items()}

    def _check_places(self, prepared: PrefillInputs) -> None:
        positions = prepared.prompt_positions
        first = min((row[0] for row in prepared.visual_positions if row), default=self.length)
        stays = positions is not None and torch.equal(
            positions[:, : self.length], torch.arange(self.length).expand(positions.shape[0], -1)
        )
        if first < self.length or not stays:
            raise CompressionError(
                f"the cache already holds {self.length} tokens, but the first visual token of the shortened prompt has "
                f"position {first}, or text in front of it has moved: only text before every video can be cached, and "
                "in a batch only where its prompts are shortened to one length. For a further turn send the whole "
                "history with its video, not the cache of a compressed call"
            )


def cached_prefix(arguments: Mapping[str, Any], *, generating: bool) -> CachedPrefix:
    """What of a call's prompt is in its cache.

    Args:
        arguments: of the call as it was made, by name.
        generating: whether they are of ``generate``, which may be given the whole prompt; ``forward`` never is.
    """
    cache, ids, mask = given_cache(arguments), arguments.get("input_ids"), arguments.get("attention_mask")
    # Without pixels it is text or a decoding step, which may not wait for a cache that counts on its device.
    length = int(cache.get_seq_length()) if cache is not None and brings_pixels(arguments) else 0
    if not length or ids is None:
        return CachedPrefix(0)
    if mask is None and generating:
        return CachedPrefix(length, mask_given=False)
    if mask is None:
        return CachedPrefix(length, ids.new_ones(len(ids), length))
    return CachedPrefix(length, mask[:, :length] if mask.shape[1] == length + ids.shape[1] else None)
