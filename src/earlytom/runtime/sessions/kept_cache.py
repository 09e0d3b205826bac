"""Keys and values that outlive a call, as transformers' caches hold them; forks share them, nothing writes to them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor

from earlytom.errors import ModelError

__all__ = ["KeptCache", "check_keeps_all"]


@dataclass(frozen=True, eq=False)
class KeptCache:
    """The cache of one prompt.

    Attributes:
        layers: keys and values of each layer of the language model, [1, G, S, E] each.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, cache: Any) -> KeptCache:
        """What transformers' growing cache holds."""
        return cls(tuple((layer.keys, layer.values) for layer in cache.layers))

    @property
    def length(self) -> int:
        """Positions that it holds."""
        return self.layers[0][0].shape[2]

    @property
    def bytes(self) -> int:
        """Of keys and values."""
        return sum(part.numel() * part.element_size() for part in chain.from_iterable(self.layers))

    def first(self, length: int) -> KeptCache:
        """Its first positions, in the same memory."""
        return KeptCache(tuple((keys[:, :, :length], values[:, :, :length]) for keys, values in self.layers))

    def for_transformers(self, repeats: int) -> Any:
        """A cache that a call may write to, for as many copies of the prompt (beams)."""
        from transformers import DynamicCache

        cache = DynamicCache(self.layers)
        if repeats > 1:
            cache.batch_repeat_interleave(repeats)
        return cache


def check_keeps_all(config: Any) -> None:
    """Refuse a language model of which a layer forgets.

    Args:
        config: of the whole model.

    Raises:
        ModelError: some layer keeps a sliding window of the context only.
    """
    from transformers import DynamicCache

    for number, layer in enumerate(DynamicCache(config=config.get_text_config(decoder=True)).layers):
        if layer.get_max_length() > 0:
            raise ModelError(
                f"a session needs a language model that keeps its whole context; layer {number} of this one keeps a "
                f"window of {layer.get_max_length()} tokens, behind which a video is gone"
            )
