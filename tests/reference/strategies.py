"""What the property tests draw from: similarity tables and clips, ties and extremes included."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

quick = settings(max_examples=40, deadline=None, derandomize=True)
"""Settings of every property test: the same examples in every run."""

_COARSE = st.sampled_from([-0.5, 0.0, 0.25, 0.5, 0.75, 1.0])
_HIGH = st.sampled_from([0.9, 0.95, 1.0])
# Steps wide enough that two values are either equal or clearly apart, whatever tolerance ties are judged with.
_FINE = st.integers(-1024, 1024).map(lambda step: step / 1024)

MAX_FRAMES = 14


@st.composite
def tables(draw: st.DrawFn, least: int = 1, most: int = MAX_FRAMES) -> list[list[float]]:
    """A symmetric table with 1 on its diagonal; coarse values make ties likely, high ones make segments long."""
    frames = draw(st.integers(least, most))
    values = draw(st.sampled_from([_COARSE, _HIGH, _FINE]))
    pairs = frames * (frames - 1) // 2
    upper = iter(draw(st.lists(values, min_size=pairs, max_size=pairs)))
    table = [[1.0] * frames for _ in range(frames)]
    for first in range(frames):
        for second in range(first + 1, frames):
            table[first][second] = table[second][first] = next(upper)
    return table


@st.composite
def scene_clips(draw: st.DrawFn, most: int = 24, tokens: int = 9, width: int = 6) -> Tensor:
    """[N, L, D] frames of a few nearly static scenes, or of unrelated or identical frames."""
    frames = draw(st.integers(1, most))
    scene = draw(st.integers(1, frames))
    noise = draw(st.sampled_from([0.0, 0.05, 0.3, 2.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    scenes = torch.randn(1 + frames // scene, tokens, width, generator=generator)
    return scenes[torch.arange(frames) // scene] + noise * torch.randn(frames, tokens, width, generator=generator)


thresholds = st.sampled_from([-1.0, 0.0, 0.3, 0.5, 0.65, 0.8, 0.95, 1.0])
emas = st.sampled_from([0.1, 0.5, 0.9, 1.0])
windows = st.integers(2, 9)
variants = st.sampled_from(["default", "official", "paper"])
