"""Whether two models are one: a number that tells a session's file from which weights its cache came."""

from __future__ import annotations

import hashlib
from itertools import chain

import torch
from torch import Tensor, nn

__all__ = ["fingerprint"]

# Values that are looked at of each tensor, evenly spread: of a large model all would take as long as loading it.
_VALUES = 256


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the class of a model and, of each of its weights and buffers, name, shape, dtype and 256 values.

    The same on every device. Training changes nearly every value, so that another training of the same architecture has
    another fingerprint; a change of single values may have the same.
    """
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"\n{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(_sample(tensor))
    return digest.hexdigest()


def _sample(tensor: Tensor) -> bytes:
    """Bytes of some of its values; none of a tensor that is elsewhere."""
    if tensor.is_meta or not tensor.numel():
        return b""
    places = torch.linspace(0, tensor.numel() - 1, min(_VALUES, tensor.numel()), dtype=torch.float64).long()
    values = tensor.detach().flatten()[places.to(tensor.device)].cpu().contiguous()
    return values.view(torch.uint8).numpy().tobytes()
