"""The baseline that changes nothing."""

from __future__ import annotations

import pytest
import torch

from earlytom import MethodError, Reduction, Uncompressed, parse_method
from earlytom.types import (
    Decision,
    EncoderPlan,
    EncoderShape,
    FrameGrid,
    FrameStates,
    LanguagePlan,
    LanguageStates,
    VisualTokens,
)


def test_it_keeps_every_token() -> None:
    grid = FrameGrid(frames=32, rows=14, columns=14)
    method = Uncompressed()
    assert method.budget(grid) == 6272
    assert method.steps_aside(grid) is None
    assert method.exact_budget


def test_it_wants_nothing_and_decides_nothing() -> None:
    method, origin = Uncompressed(), Reduction.identity(3)
    states = FrameStates(features=torch.randn(3, 4, 5), attention=None, origin=origin)
    grid = FrameGrid(frames=3, rows=2, columns=2)
    tokens = VisualTokens(features=torch.randn(3, 4, 5), attention=None, grid=grid, origin=origin)
    assert method.encoder_plan(EncoderShape(depth=26)) == EncoderPlan()
    assert method.llm_plan(28) == LanguagePlan()
    assert method.merge_frames(states, 6, 1) == method.select_tokens(tokens, 12) == Decision()
    states = LanguageStates(features=torch.randn(4, 5), attention=torch.rand(4), entered=4, depth=28)
    assert method.reduce_in_llm(states, 18) is None


@pytest.mark.parametrize("retention", [0.5, 0.999])
def test_it_refuses_to_drop_tokens(retention) -> None:
    with pytest.raises(MethodError, match="retention must be 1"):
        Uncompressed(retention=retention)


def test_it_reads_and_writes_the_grammar() -> None:
    assert parse_method("none") == parse_method("none:retention=1") == Uncompressed()
    assert parse_method(Uncompressed().describe()) == Uncompressed()
