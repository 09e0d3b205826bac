"""Queries and keys from a block's own projections, for families built of the usual attention modules."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from earlytom.ops import received_attention

__all__ = ["captured_outputs", "decoder_query_and_keys", "heads_received_attention"]


@contextmanager
def captured_outputs(*modules: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what modules put out while this thread runs them inside the block, in the order given.

    For queries and keys that a layer computes anyway: taking them from its own run costs nothing, and other people's
    hooks fire once.
    """
    outputs: dict[int, Tensor] = {}
    collected: list[Tensor] = []
    thread = threading.get_ident()

    def keep(number: int, output: Tensor) -> None:
        if threading.get_ident() == thread:
            outputs[number] = output

    handles = [
        module.register_forward_hook(lambda _module, _args, output, number=number: keep(number, output))
        for number, module in enumerate(modules)
    ]
    try:
        yield collected
        collected.extend(outputs[number] for number in range(len(modules)))
    finally:
        for handle in handles:
            handle.remove()


def heads_received_attention(queries: Tensor, keys: Tensor, *, heads: int, scale: float) -> Tensor:
    """Attention received by each token, from the [F, L, D] outputs of a block's projections; [F, L] float32."""
    shape = (*queries.shape[:-1], heads, -1)
    return received_attention(queries.view(shape).transpose(1, 2), keys.view(shape).transpose(1, 2), scale=scale)


def decoder_query_and_keys(
    layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor, last: Tensor
) -> tuple[Tensor, Tensor, float]:
    """See `ModelAdapter.query_and_keys`; for decoder layers of the Llama and Qwen kind (rotary halves)."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    batch = torch.arange(hidden.shape[0], device=hidden.device)
    query = attention.q_proj(normed[batch, last]).view(hidden.shape[0], -1, attention.head_dim)
    keys = attention.k_proj(normed).view(*hidden.shape[:2], -1, attention.head_dim)
    if getattr(attention, "q_norm", None) is not None:
        query, keys = attention.q_norm(query), attention.k_norm(keys)
    cos, sin = cos.expand(hidden.shape[0], -1, -1), sin.expand(hidden.shape[0], -1, -1)
    query = _rotate(query, cos[batch, last, None], sin[batch, last, None])
    keys = _rotate(keys, cos[:, :, None], sin[:, :, None])
    return query, keys.transpose(1, 2), float(attention.scaling)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin
