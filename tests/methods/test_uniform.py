"""Uniform subsampling of tokens and of frames against exact fractions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

import earlytom
from conftest import batch, clip, tiny_model
from earlytom import MethodError, UniformSubsampling
from earlytom.types import FrameGrid
from reference.spacing import shares_naively, spaced_naively
from reference.strategies import quick
from reference.token_clips import decide, shares, token_clips, visual_tokens


@quick
@given(token_clips(), shares)
def test_tokens_equal_the_formula_and_keep_the_budget(tokens, retention) -> None:
    decision, reduction, budget = decide(UniformSubsampling(retention=retention), tokens)
    frames, per_frame = tokens.features.shape[:2]
    counts = shares_naively(budget, frames)
    expected = [f * per_frame + place for f, count in enumerate(counts) for place in spaced_naively(count, per_frame)]
    assert reduction.source.tolist() == expected
    assert len(set(expected)) == budget
    assert reduction.weight is None
    assert decision.details["tokens_per_frame"] == counts


@quick
@given(token_clips(), shares)
def test_frames_equal_the_formula_and_are_whole(tokens, retention) -> None:
    method = UniformSubsampling(retention=retention, frames=True)
    decision, reduction, budget = decide(method, tokens)
    frames, per_frame = tokens.features.shape[:2]
    whole = min(frames, max(1, round(retention * tokens.grid.frames)))
    assert budget == whole * per_frame
    chosen = spaced_naively(whole, frames)
    assert reduction.source.tolist() == [f * per_frame + token for f in chosen for token in range(per_frame)]
    assert decision.details["tokens_per_frame"] == [per_frame * (f in chosen) for f in range(frames)]


@pytest.mark.parametrize(("retention", "budget"), [(0.25, 8 * 196), (0.1, 3 * 196), (0.01, 196), (1.0, 32 * 196)])
def test_the_budget_of_whole_frames_is_known_beforehand(retention, budget) -> None:
    grid = FrameGrid(frames=32, rows=14, columns=14)
    assert UniformSubsampling(retention=retention, frames=True).budget(grid) == budget


def test_known_places() -> None:
    """The specification's section 11: floor((i + 0.5) * S / k)."""
    kept = decide(UniformSubsampling(retention=0.25), visual_tokens(1, 4, 4))[1].source.tolist()
    assert kept == [2, 6, 10, 14]
    frames = decide(UniformSubsampling(retention=0.25, frames=True), visual_tokens(8, 1, 1))[1].source.tolist()
    assert frames == [2, 6]


@pytest.mark.parametrize("frames", [None, 1, "true"])
def test_frames_is_a_switch(frames) -> None:
    with pytest.raises(MethodError, match="frames must be True or False, got"):
        UniformSubsampling(frames=frames)


@pytest.mark.parametrize(
    ("method", "tokens"), [("uniform:retention=0.3", 58), ("uniform:retention=0.3,frames=true", 64)]
)
def test_end_to_end(method, tokens) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, method) as trace:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert (trace.videos[0].tokens, trace.videos[0].budget) == (tokens, tokens)


def test_whole_frames_equal_the_stock_model_on_those_frames() -> None:
    """Frames are independent in this encoder, so subsampling its output is subsampling its input."""
    model, frames = tiny_model(), clip(12, 0)
    with torch.no_grad(), earlytom.compress(model, "uniform:retention=0.25,frames=true"):
        ours = model(**batch([[frames]])).logits[0, -1]
    stock = model(**batch([[frames[[2, 6, 10]]]])).logits[0, -1]
    torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-4)
