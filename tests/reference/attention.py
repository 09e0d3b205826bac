"""Attention scores by the whole softmax, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_maps(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """[N, H, L, L] probabilities."""
    logits = torch.einsum("nhqe,nhke->nhqk", queries.double(), keys.double()) * scale
    return logits.exp() / logits.exp().sum(dim=-1, keepdim=True)


def received_attention_naively(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """[N, L]: the mean over heads and queries."""
    return attention_maps(queries, keys, scale).mean(dim=(1, 2))


def last_query_attention_naively(query: Tensor, keys: Tensor, scale: float, visible: list[bool]) -> Tensor:
    """[S]: head by head, the key head repeated for its group of query heads; keys out of sight get nothing."""
    heads, group = query.shape[0], query.shape[0] // keys.shape[0]
    total = torch.zeros(keys.shape[1], dtype=torch.float64)
    for head in range(heads):
        logits = [float(query[head].double() @ key.double()) * scale for key in keys[head // group]]
        powers = torch.tensor(logits, dtype=torch.float64).exp() * torch.tensor(visible)
        total += powers / powers.sum()
    return total / heads
