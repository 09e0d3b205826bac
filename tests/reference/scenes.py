"""Clips with a structure along time, as methods that segment and cluster see them before the language model."""

from __future__ import annotations

from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor

from earlytom import Reduction
from earlytom.types import FrameGrid, VisualTokens

Kind = Literal["noisy", "repeated", "black", "identical"]

# Powers of two, so that the means of small integers are exact and ties are real.
_SIDES, _WIDTH = (1, 2, 4), 4


def scene_features(frames: int, tokens: int, kind: Kind, scene: int, noise: float, seed: int) -> Tensor:
    """[frames, tokens, 4]: scenes of ``scene`` frames; ``noisy``: each token changes a little or, one in four, wholly;
    ``repeated``: small integers, scenes without any change; ``black``; ``identical``: one frame and one token."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "black":
        return torch.zeros(frames, tokens, _WIDTH)
    if kind == "identical":
        return torch.tensor([1.0, -2.0, 0.5, 4.0]).expand(frames, tokens, _WIDTH).contiguous()
    of_frame = torch.arange(frames) // scene
    shape = (1 + frames // scene, tokens, _WIDTH)
    if kind == "repeated":
        return torch.randint(-2, 3, shape, generator=generator)[of_frame].float()
    still = torch.randn(shape, generator=generator)[of_frame]
    moving = torch.rand(frames, tokens, 1, generator=generator) < 0.25
    change = torch.randn(frames, tokens, _WIDTH, generator=generator)
    return torch.where(moving, change, still + noise * change)


def scene_clip(
    frames: int,
    rows: int = 4,
    columns: int = 4,
    *,
    kind: Kind = "noisy",
    scene: int = 4,
    noise: float = 0.1,
    ties: bool = False,
    seed: int = 0,
) -> VisualTokens:
    """A clip of scenes with random attention, and descriptions of its frames that change with the scenes."""
    generator = torch.Generator().manual_seed(seed + 1)
    attention = torch.rand(frames, rows * columns, generator=generator)
    described = scene_features(frames, 1, kind, scene, noise, seed + 2)[:, 0]
    return VisualTokens(
        features=scene_features(frames, rows * columns, kind, scene, noise, seed),
        attention=(attention * 3).round() if ties else attention,
        grid=FrameGrid(frames=frames, rows=rows, columns=columns),
        origin=Reduction.identity(frames),
        descriptions=described,
    )


@st.composite
def scene_clips(
    draw: st.DrawFn, most: int = 9, kinds: tuple[Kind, ...] = ("noisy", "noisy", "repeated", "black", "identical")
) -> VisualTokens:
    """Clips of one frame and one token upwards."""
    return scene_clip(
        draw(st.integers(1, most)),
        draw(st.sampled_from(_SIDES)),
        draw(st.sampled_from(_SIDES)),
        kind=draw(st.sampled_from(kinds)),
        scene=draw(st.integers(1, most)),
        noise=draw(st.sampled_from([0.0, 0.05, 0.3, 1.0])),
        ties=draw(st.booleans()),
        seed=draw(st.integers(0, 1000)),
    )


retentions = st.sampled_from([0.001, 0.1, 0.15, 0.25, 0.5, 0.77, 0.999])
EXTREMES = ("nan", "some nan", "infinite", "huge", "tiny", "black", "identical")


def extreme_features(name: str, frames: int, tokens: int) -> Tensor:
    """Features that must not crash anything."""
    features = scene_features(frames, tokens, "noisy", 4, 0.1, 0)
    if name == "some nan":
        features[1:3] = float("nan")
        return features
    full = {"nan": float("nan"), "infinite": float("inf")}
    if name in full:
        return torch.full_like(features, full[name])
    if name in ("black", "identical"):
        return scene_features(frames, tokens, name, 4, 0.0, 0)  # type: ignore[arg-type]
    return features * {"huge": 1e18, "tiny": 1e-30}[name]
