"""Products of float32 matrices in float32, whatever the process allows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["exact_product"]

_EXACT = ("ieee", "none")


def exact_product(first: Tensor, second: Tensor) -> Tensor:
    """``first @ second`` of float32 matrices, in true float32.

    ``torch.set_float32_matmul_precision`` and its relatives let such products be rounded to TF32 (off by 7e-4 for
    similarities, where ties are decided at 1e-5) or bfloat16, and ``torch.autocast`` makes them bfloat16. The first
    is a setting of the whole process, which cannot be put aside for one thread; where it is on, float64 is what it does
    not touch.

    Args:
        first: [..., M, K] float32.
        second: [..., K, N] float32.

    Returns:
        [..., M, N] float32.
    """
    with torch.autocast(first.device.type, enabled=False):
        if _may_round(first.device):
            return (first.double() @ second.double()).float()
        return first @ second


def _may_round(device: torch.device) -> bool:
    """Whether float32 products on a device may be rounded."""
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    precision: str = backend.matmul.fp32_precision
    return precision not in _EXACT
