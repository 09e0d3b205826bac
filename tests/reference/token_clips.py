"""Clips as a method sees them before the language model, and the one call that every token method is asked."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from earlytom import Method, Reduction
from earlytom.types import Decision, FrameGrid, VisualTokens


def visual_tokens(
    frames: int, rows: int, columns: int, *, merged_from: int | None = None, seed: int = 0, ties: bool = False
) -> VisualTokens:
    """Random features, attention and keys; ``merged_from`` input frames became ``frames``."""
    generator = torch.Generator().manual_seed(seed)
    tokens = rows * columns
    attention = torch.rand(frames, tokens, generator=generator)
    return VisualTokens(
        features=torch.randn(frames, tokens, 6, generator=generator),
        attention=(attention * 4).round() if ties else attention,
        grid=FrameGrid(frames=merged_from or frames, rows=rows, columns=columns),
        origin=Reduction.identity(frames),
        keys=torch.randn(frames, tokens, 5, generator=generator),
    )


@st.composite
def token_clips(draw: st.DrawFn) -> VisualTokens:
    """Clips of one frame and one token upwards, with ties, some of frames that were merged from more."""
    frames = draw(st.integers(1, 8))
    return visual_tokens(
        frames,
        draw(st.integers(1, 5)),
        draw(st.integers(1, 5)),
        merged_from=frames + draw(st.sampled_from([0, 0, 3])),
        seed=draw(st.integers(0, 1000)),
        ties=draw(st.booleans()),
    )


def decide(method: Method, tokens: VisualTokens) -> tuple[Decision, Reduction, int]:
    """The decision, its reduction, and the budget (which the runtime's floor keeps within what the frames hold)."""
    budget = min(method.budget(tokens.grid), tokens.features.shape[0] * tokens.features.shape[1])
    decision = method.select_tokens(tokens, budget)
    assert decision.reduction is not None
    return decision, decision.reduction, budget


shares = st.sampled_from([0.001, 0.1, 0.15, 0.25, 0.5, 0.77, 1.0])
