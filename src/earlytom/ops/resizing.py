"""Resizing per-token scores in the same way as a model resizes its features."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["pool_bilinear"]


def pool_bilinear(scores: Tensor, *, side: int, pooled: tuple[int, int]) -> Tensor:
    """Resize a score map as LLaVA-OneVision resizes features: bilinear, no corner alignment, no antialiasing.

    Args:
        scores: [N, side * side] float32.
        side: rows and columns of the encoder's patch grid.
        pooled: rows and columns after pooling.

    Returns:
        [N, rows * columns] float32.
    """
    grid = scores.view(scores.shape[0], 1, side, side)
    return nn.functional.interpolate(grid, size=pooled, mode="bilinear").flatten(1)
