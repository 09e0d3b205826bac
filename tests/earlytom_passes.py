"""Clips, and EarlyTom's merge passes over them as an encoder makes them."""

from __future__ import annotations

import torch
from torch import Tensor

from earlytom import EarlyTom, Reduction
from earlytom.types import FrameStates

VARIANTS = ["default", "official", "paper"]


def static_clip(frames: int = 32, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    frame = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(seed))
    return frame.expand(frames, 9, 16).contiguous().to(dtype)


def run_passes(
    method: EarlyTom, features: Tensor, passes: int = 3, floor: int = 1, attention: Tensor | None = None
) -> tuple[FrameStates, list[int]]:
    """The frames that are left after ``passes`` merge layers, and their number after each."""
    received = torch.full(features.shape[:2], 1 / features.shape[1]) if attention is None else attention
    states = FrameStates(features=features, attention=received, origin=Reduction.identity(len(features)))
    numbers = []
    for layer in range(passes):
        reduction = method.merge_frames(states, layer, floor).reduction
        if reduction is not None:
            states = FrameStates(
                features=reduction.apply(states.features),
                attention=reduction.apply(states.attention),
                origin=states.origin.then(reduction),
            )
        numbers.append(len(states.features))
    return states, numbers
