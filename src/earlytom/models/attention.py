"""Queries and keys from a block's own projections, for families built of the usual attention modules."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from earlytom.errors import ModelError
from earlytom.ops import received_attention

__all__ = [
    "captured_outputs",
    "find_pooling_head",
    "head_attention",
    "heads_mean",
    "heads_received_attention",
]


@contextmanager
def captured_outputs(*modules: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what modules put out while this thread runs them inside the block, in the order given.

    For queries and keys that a layer computes anyway: taking them from its own run costs nothing, and other people's
    hooks fire once.

    Raises:
        ModelError: a module was run without its hooks, as a compiled graph does.
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
        if len(outputs) < len(modules):
            raise ModelError(
                "a projection of the vision encoder did not show its output: inside a torch.compile'd call hooks do "
                "not fire, so that nothing can be compressed; call the model as it was before torch.compile, or give "
                "the compiled one to earlytom.compress"
            )
        collected.extend(outputs[number] for number in range(len(modules)))
    finally:
        for handle in handles:
            handle.remove()


def heads_received_attention(
    queries: Tensor, keys: Tensor, *, heads: int, scale: float, sizes: Tensor | None = None
) -> Tensor:
    """Attention received by each token, from the [F, L, D] outputs of a block's projections; [F, L] float32."""
    shape = (*queries.shape[:-1], heads, -1)
    queries, keys = queries.view(shape).transpose(1, 2), keys.view(shape).transpose(1, 2)
    return received_attention(queries, keys, scale=scale, sizes=sizes)


def heads_mean(projected: Tensor, *, heads: int) -> Tensor:
    """Mean over the heads of a projection's [F, L, D] output; [F, L, D / heads] float32."""
    return projected.unflatten(-1, (heads, -1)).mean(dim=2, dtype=torch.float32)


def find_pooling_head(tower: Any) -> Any:
    """The attention-pooling head of a SigLIP tower. Raises `ModelError` where there is none."""
    head = getattr(tower, "head", None)
    if getattr(head, "probe", None) is None or getattr(head, "attention", None) is None:
        raise ModelError(
            "the vision tower has no attention-pooling head, which the method needs: video LLM checkpoints leave it "
            "out; set the head of the original SigLIP model as vision_tower.head"
        )
    return head


def head_attention(tower: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """What a SigLIP tower's attention-pooling head makes of the last layer's [F, L, D] output.

    Returns:
        [F, L] attention of its probe, mean over the heads, float32; [F, D] its output, model dtype.

    Raises:
        ModelError: the tower has no such head.
    """
    head, normed = find_pooling_head(tower), tower.post_layernorm(hidden)
    probe = head.probe.expand(hidden.shape[0], -1, -1)
    pooled, attention = head.attention(probe, normed, normed, need_weights=True)
    return attention[:, 0].float(), (pooled + head.mlp(head.layernorm(pooled)))[:, 0]
