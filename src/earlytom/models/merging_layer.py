"""A vision encoder block run in its parts, so that tokens can merge between attention and MLP."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from earlytom.errors import ModelError
from earlytom.models.attention import captured_outputs, heads_mean, heads_received_attention
from earlytom.models.wrapping import uncompiled

if TYPE_CHECKING:
    from earlytom.stages import FrameBatch, FrameVisitor
    from earlytom.types import EncoderPlan

__all__ = ["check_token_merging", "run_merging_layer"]

# What can add a bias to the logits of each key; flash attention kernels cannot.
_BIASED = ("sdpa", "eager")


def check_token_merging(plan: EncoderPlan, implementation: str) -> None:
    """Raise `ModelError` when the attention implementation lacks what the plan needs."""
    if plan.token_layers and plan.proportional_attention and implementation not in _BIASED:
        raise ModelError(
            f"proportional attention adds a bias to the vision encoder's attention, which {implementation!r} cannot "
            "take; load the model with attn_implementation={'vision_config': 'sdpa'} (the language model can keep "
            "its own), or switch it off (proportional_attention=False)"
        )


def run_merging_layer(layer: Any, index: int, batch: FrameBatch, visitor: FrameVisitor) -> FrameBatch:
    """Run a block of the SigLIP kind (norm, attention, norm, MLP), and let the visitor merge tokens in its middle.

    Hooks that others put on the block itself do not fire, those on its parts do.

    Args:
        layer: the block.
        index: its number.
        batch: the hidden states.
        visitor: who merges.
    """
    requests, attention = visitor.requests, layer.self_attn
    hidden = _on_device_of(layer, batch.hidden)
    sizes = visitor.token_sizes if requests.proportional_attention else None
    sizes = None if sizes is None else sizes.to(hidden.device)
    bias = None if sizes is None else sizes.log()[:, None, None].to(hidden.dtype)
    with captured_outputs(attention.q_proj, attention.k_proj) as captured:
        attended, _ = uncompiled(attention)(layer.layer_norm1(hidden), attention_mask=bias)
    keys = partial(heads_mean, captured[1], heads=attention.num_heads)
    if index in requests.attention_layers:
        heads, scale = attention.num_heads, attention.scale
        visitor.receive_attention(
            index, partial(heads_received_attention, *captured, heads=heads, scale=scale, sizes=sizes)
        )
        if index in requests.key_layers:
            visitor.receive_keys(index, keys)
    batch = batch.with_hidden(hidden + attended)
    if index in requests.token_layers:
        with torch.no_grad():
            metric = keys()
        batch = visitor.merge_tokens(index, batch, metric)
    return batch.with_hidden(batch.hidden + layer.mlp(layer.layer_norm2(batch.hidden)))


def _on_device_of(layer: Any, hidden: Tensor) -> Tensor:
    """Where layers lie on several devices, stock moves what enters a whole one; here its parts are run."""
    device = next(layer.parameters()).device
    return hidden if device.type == "meta" else hidden.to(device)
