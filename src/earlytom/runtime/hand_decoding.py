"""Decoding by hand behind a prompt that ``forward`` shortened: the mask and the positions that fit its cache."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from earlytom.layouts.prompt import HostPrompt
from earlytom.models.caches import given_cache
from earlytom.runtime.generation import brings_pixels
from earlytom.runtime.prefix import CachedPrefix
from earlytom.types import PrefillInputs

__all__ = ["ShortenedPrompts", "is_decoding_step"]


def is_decoding_step(arguments: Mapping[str, Any]) -> bool:
    """Whether a call of ``forward`` is one token of each sample behind a cache, told from shapes alone.

    That is no video, and nothing is read from the device to find out.
    """
    ids = arguments.get("input_ids")
    if ids is None or ids.shape[1] != 1 or brings_pixels(arguments):
        return False
    return given_cache(arguments) is not None


@dataclass(frozen=True, eq=False)
class _Shortened:
    """A prompt of ``length`` tokens that was shortened to ``mask``; see `PrefillInputs.next_position`.

    ``padded`` is host data: whether the mask hides anything.
    """

    length: int
    mask: torch.Tensor
    padded: bool
    next_position: torch.Tensor | None

    def arguments(self, given: Mapping[str, Any], cached: int) -> dict[str, Any]:
        """What replaces the arguments of a step behind this prompt, when ``cached`` tokens are in the cache."""
        changed: dict[str, Any] = {}
        new = given["input_ids"] if given.get("input_ids") is not None else given["inputs_embeds"]
        behind = cached - self.mask.shape[1]
        if given.get("attention_mask") is not None:
            newer = given["attention_mask"][:, self.length :].to(self.mask)
            changed["attention_mask"] = torch.cat([self.mask, newer], dim=1)
        elif self.padded:
            # Prompts that needed no padding may have been shortened to unequal lengths, which do.
            newer = self.mask.new_ones(self.mask.shape[0], behind + new.shape[1])
            changed["attention_mask"] = torch.cat([self.mask, newer], dim=1)
        if self.next_position is not None and given.get("position_ids") is None:
            steps = torch.arange(new.shape[1], device=self.next_position.device) + behind
            changed["position_ids"] = (self.next_position + steps).expand(3, -1, -1)
        return changed


class ShortenedPrompts:
    """The prompts behind whose caches callers may go on, as long as these caches live."""

    def __init__(self) -> None:
        self._prompts: weakref.WeakKeyDictionary[Any, _Shortened] = weakref.WeakKeyDictionary()

    def add(self, cache: Any, prompt: HostPrompt, prepared: PrefillInputs, prefix: CachedPrefix) -> None:
        """Remember what a cache holds: ``prepared``, which was made of ``prompt`` and a ``prefix`` in front of it."""
        unequal = len(set(prepared.dropped)) > 1
        self._prompts[cache] = _Shortened(
            length=prefix.length + prompt.ids.shape[1],
            mask=prepared.arguments["attention_mask"],
            padded=unequal or bool((prompt.mask == 0).any()) or prefix.padded,
            next_position=prepared.next_position,
        )

    def fitting(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """``arguments`` of a step, made to fit where its cache is that of a shortened prompt."""
        cache = given_cache(arguments)
        known = None if cache is None else self._prompts.get(cache)
        if cache is None or known is None:
            return arguments
        return arguments | known.arguments(arguments, cache.get_seq_length())
