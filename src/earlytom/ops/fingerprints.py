"""A number that tells one clip from another, the same wherever and with whatever else the clip is encoded."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fingerprint"]

# Pixels of a frame that are looked at, and what makes their places count (sums stay far below 2 ** 63).
_SAMPLES, _FACTOR, _MODULUS = 1024, 40503, 1048573


def fingerprint(pixels: Tensor) -> Tensor:
    """A checksum of a clip's pixels as the vision encoder gets them, in whole numbers, so that no rounding enters.

    Pixels count as bfloat16, which a model in float32 and the same one in bfloat16 see alike.

    Args:
        pixels: [N, ...] frames, any floating dtype; about a thousand values of each are read.

    Returns:
        [] int64, on the device of ``pixels``.
    """
    values = pixels.flatten(1)
    sampled = values[:, :: max(1, values.shape[1] // _SAMPLES)].to(torch.bfloat16).contiguous()
    bits = sampled.view(torch.int16).flatten().to(torch.int64)
    places = torch.arange(bits.shape[0], device=bits.device)
    return (bits * ((places * _FACTOR + 1) % _MODULUS)).sum()
