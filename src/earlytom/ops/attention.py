"""Attention scores without attention maps: what each token receives, in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

from earlytom.ops.products import exact_product

__all__ = ["last_query_attention", "received_attention"]

# Probabilities held at once, in float32 values: 8 MiB on a CPU, where they should stay in its caches (half the time of
# 64 MiB), and 256 MiB on accelerators, where short loops cost more than memory. All of [N, H, L, L] would be 1 GiB for
# 32 frames.
_CHUNK_VALUES = 1 << 21
_CHUNK_VALUES_ACCELERATOR = 1 << 26


def received_attention(queries: Tensor, keys: Tensor, *, scale: float, sizes: Tensor | None = None) -> Tensor:
    """Attention received by each token: the mean over heads and queries of the softmax probabilities.

    Frame by frame (or several at once where they are small), so that [N, H, L, L] never exists. Logits are true float32
    products whatever the dtype and the process allow: rounded to bfloat16 they move scores by more than separates many
    tokens, and with them what is kept.

    Args:
        queries: [N, H, L, E], any floating dtype.
        keys: [N, H, L, E].
        scale: factor of the logits, usually ``E ** -0.5``.
        sizes: [N, L] float32, the number of equal tokens that each one stands for (ToMe's proportional attention), as
            query and as key; 1 each if ``None``.

    Returns:
        [N, L] float32; each row sums to 1.
    """
    frames, heads, tokens, _ = queries.shape
    chunk = _CHUNK_VALUES if queries.device.type == "cpu" else _CHUNK_VALUES_ACCELERATOR
    step = max(1, chunk // max(1, heads * tokens * tokens))
    received = torch.empty(frames, tokens, dtype=torch.float32, device=queries.device)
    for start in range(0, frames, step):
        part = slice(start, start + step)
        received[part] = _received(queries[part], keys[part], scale, chunk, None if sizes is None else sizes[part])
    return received


def _received(queries: Tensor, keys: Tensor, scale: float, chunk: int, sizes: Tensor | None) -> Tensor:
    """`received_attention` for a few frames, a slice of queries at a time."""
    heads, tokens = queries.shape[1], queries.shape[2]
    step = max(1, chunk // max(1, queries.shape[0] * heads * tokens))
    queries, keys = queries.float(), keys.float().transpose(-1, -2)
    total = torch.zeros(queries.shape[0], tokens, dtype=torch.float32, device=queries.device)
    for start in range(0, tokens, step):
        logits = exact_product(queries[:, :, start : start + step] * scale, keys)
        if sizes is None:
            total += torch.softmax(logits, dim=-1).sum(dim=(1, 2))
        else:
            shares = torch.softmax(logits + sizes.log()[:, None, None], dim=-1)
            total += (shares * sizes[:, None, start : start + step, None]).sum(dim=(1, 2))
    return total / (heads * (tokens if sizes is None else sizes.sum(dim=1, keepdim=True)))


def last_query_attention(query: Tensor, keys: Tensor, *, scale: float, visible: Tensor | None = None) -> Tensor:
    """Head-mean attention of one query over all keys: the row that in-LLM methods rank visual tokens by.

    Args:
        query: [H, E], rotary embedding applied.
        keys: [G, S, E] with G key heads, H a multiple of G (grouped-query attention), rotary embedding applied.
        scale: factor of the logits.
        visible: [S] bool, keys that the query may see; all if ``None``.

    Returns:
        [S] float32; sums to 1 over the visible keys.
    """
    groups = keys.shape[0]
    grouped = query.float().view(groups, -1, query.shape[-1])  # [G, H / G, E]
    logits = exact_product(grouped, keys.float().transpose(-1, -2)) * scale  # [G, H / G, S]
    if visible is not None:
        logits = logits.masked_fill(~visible, float("-inf"))
    return torch.softmax(logits, dim=-1).mean(dim=(0, 1))
