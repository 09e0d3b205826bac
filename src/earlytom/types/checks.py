"""What the values of `earlytom.types` are checked by when they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earlytom.errors import MethodError

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.similarity import FrameSimilarity

__all__ = ["check_layers", "check_shape"]


def check_shape(name: str, tensor: Tensor | FrameSimilarity | None, *wanted: int | None) -> None:
    """Raise `MethodError` unless a tensor, where there is one, has this shape; ``None``: any size."""
    fits = tensor is None or (
        len(tensor.shape) == len(wanted)
        and all(size is None or size == found for size, found in zip(wanted, tensor.shape, strict=True))
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in wanted)
        raise MethodError(f"{name} must be [{sizes}], got {tuple(tensor.shape) if tensor is not None else None}")


def check_layers(name: str, layers: tuple[int, ...], lowest: int = 0, stop: int | None = None) -> None:
    """Raise `MethodError` unless layers are ascending numbers from ``lowest`` on, below ``stop``."""
    whole = isinstance(layers, tuple) and all(isinstance(layer, int) and layer >= lowest for layer in layers)
    if not whole or list(layers) != sorted(set(layers)) or (stop is not None and layers and layers[-1] >= stop):
        end = "" if stop is None else f" to {stop - 1}"
        raise MethodError(f"{name} must be ascending layers from {lowest}{end}, got {layers!r}")
