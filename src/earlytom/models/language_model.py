"""Language models of the Llama and Qwen kind, as stock video LLMs hold them: ``model.model.language_model``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LanguageModel"]


class LanguageModel:
    """What the stage inside the language model asks of it.

    Args:
        language_model: the stack of decoder layers.
        sequential: whether a token's position is its number in the sequence.
        earliest: the first layer before which tokens may be reduced.
    """

    def __init__(self, language_model: Any, *, sequential: bool = True, earliest: int = 1) -> None:
        self._language_model = language_model
        self.sequential_positions, self.earliest_reduction = sequential, earliest

    @property
    def layers(self) -> list[nn.Module]:
        """The decoder layers."""
        return list(self._language_model.layers)

    def query_and_keys(
        self, layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        """Query of one position of each sample, and all keys, of a decoder layer about to run.

        Args:
            layer: decoder layer.
            hidden: [B, S, D] hidden states that enter it.
            cos: [1 or B, S, E] rotary embedding; ``sin`` likewise.
            sin: see ``cos``.
            last: [B] int64, the position of the query.

        Returns:
            [B, H, E] queries, [B, G, S, E] keys (both rotated), and the logits' scale.
        """
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        batch = torch.arange(hidden.shape[0], device=hidden.device)
        query = attention.q_proj(normed[batch, last]).view(hidden.shape[0], -1, attention.head_dim)
        keys = attention.k_proj(normed).view(*hidden.shape[:2], -1, attention.head_dim)
        if getattr(attention, "q_norm", None) is not None:
            query, keys = attention.q_norm(query), attention.k_norm(keys)
        cos, sin = cos.expand(hidden.shape[0], -1, -1), sin.expand(hidden.shape[0], -1, -1)
        query = _rotate(query, cos[batch, last, None], sin[batch, last, None])
        keys = _rotate(keys, cos[:, :, None], sin[:, :, None])
        return query, keys.transpose(1, 2), float(attention.scaling)

    def rotary_embedding(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotary embedding.

        Args:
            positions: [B, S] int64.
            like: a tensor whose dtype and device they get.

        Returns:
            [B, S, E] each.
        """
        # Where positions have three axes, those of a text agree.
        given = positions if self.sequential_positions else positions[None].expand(3, -1, -1)
        cos, sin = self._language_model.rotary_emb(like, given)
        return cos, sin


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin
