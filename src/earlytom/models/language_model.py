"""Language models of the Llama and Qwen kind, as stock video LLMs hold them: ``model.model.language_model``."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["StockLanguageModel"]


class StockLanguageModel:
    """What an adapter answers about its language model; see `earlytom.models.base.ModelAdapter` for the methods."""

    sequential_positions = True

    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        return cast(nn.ModuleList, cast(Any, model).model.language_model.layers)

    def earliest_reduction(self, model: nn.Module) -> int:
        return 1

    def query_and_keys(
        self, layer: nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        attention, norm = cast(Any, layer).self_attn, cast(Any, layer).input_layernorm
        normed = norm(hidden)
        batch = torch.arange(hidden.shape[0], device=hidden.device)
        query = attention.q_proj(normed[batch, last]).view(hidden.shape[0], -1, attention.head_dim)
        keys = attention.k_proj(normed).view(*hidden.shape[:2], -1, attention.head_dim)
        if getattr(attention, "q_norm", None) is not None:
            query, keys = attention.q_norm(query), attention.k_norm(keys)
        cos, sin = cos.expand(hidden.shape[0], -1, -1), sin.expand(hidden.shape[0], -1, -1)
        query = _rotate(query, cos[batch, last, None], sin[batch, last, None])
        keys = _rotate(keys, cos[:, :, None], sin[:, :, None])
        return query, keys.transpose(1, 2), float(attention.scaling)

    def rotary_embedding(self, model: nn.Module, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        # Where positions have three axes, those of a text agree.
        given = positions if self.sequential_positions else positions[None].expand(3, -1, -1)
        cos, sin = cast(Any, model).model.language_model.rotary_emb(like, given)
        return cos, sin


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin
