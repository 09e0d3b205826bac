"""A vision encoder block run in its parts, so that tokens can merge between attention and MLP."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from earlytom.errors import ModelError
from earlytom.models.attention import captured_outputs, heads_mean, heads_received_attention

if TYPE_CHECKING:
    from earlytom.models.base import FrameVisitor
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


def run_merging_layer(
    layer: Any, index: int, hidden: Tensor, others: Sequence[Tensor], visitor: FrameVisitor
) -> tuple[Tensor, list[Tensor]]:
    """Run a block of the SigLIP kind (norm, attention, norm, MLP), and let the visitor merge tokens in its middle.

    Hooks that others put on the block itself do not fire, those on its parts do.

    Args:
        layer: the block.
        index: its number.
        hidden: [F, L, D] hidden states.
        others: earlier hidden states that are to be merged in the same way.
        visitor: who merges.

    Returns:
        The hidden states after the block, and the others.
    """
    plan, attention = visitor.plan, layer.self_attn
    hidden = _on_device_of(layer, hidden)
    sizes = visitor.token_sizes if plan.proportional_attention else None
    sizes = None if sizes is None else sizes.to(hidden.device)
    bias = None if sizes is None else sizes.log()[:, None, None].to(hidden.dtype)
    with captured_outputs(attention.q_proj, attention.k_proj) as captured:
        attended, _ = attention(layer.layer_norm1(hidden), attention_mask=bias)
    hidden = hidden + attended
    keys = partial(heads_mean, captured[1], heads=attention.num_heads)
    if index == plan.attention_layer:
        visitor.receive_attention(
            partial(heads_received_attention, *captured, heads=attention.num_heads, scale=attention.scale, sizes=sizes)
        )
        if plan.keys:
            visitor.receive_keys(keys)
    carried = list(others)
    if index in plan.token_layers:
        with torch.no_grad():
            metric = keys()
        hidden, carried = visitor.merge_tokens(index, hidden, metric, carried)
    return hidden + layer.mlp(layer.layer_norm2(hidden)), carried


def _on_device_of(layer: Any, hidden: Tensor) -> Tensor:
    """Where layers lie on several devices, stock moves what enters a whole one; here its parts are run."""
    device = next(layer.parameters()).device
    return hidden if device.type == "meta" else hidden.to(device)
