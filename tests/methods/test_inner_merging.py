"""Inner-LLM merging as a method of its own."""

from __future__ import annotations

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from earlytom import EarlyTom, InnerMerging, MethodError
from earlytom.types import FrameGrid, LanguagePlan, LanguageStates
from reference.llm_merging import merge_dropped_naively


@pytest.mark.parametrize(("compat", "sequential"), [("default", False), ("official", True)])
@pytest.mark.parametrize("ratio", [0.5, 0.7])
@pytest.mark.parametrize("tokens", [1, 2, 30])
def test_equals_the_naive_loop(compat, sequential, ratio, tokens) -> None:
    hidden, attention = torch.randn(tokens, 8), torch.rand(tokens).mul(4).round()
    states = LanguageStates(features=hidden, attention=attention, entered=tokens, depth=28)
    reduction = InnerMerging(compat=compat, ratio=ratio).reduce_in_llm(states, 18)
    kept, expected = merge_dropped_naively(hidden, attention, ratio, sequential)
    assert reduction.survivors().tolist() == kept
    torch.testing.assert_close(reduction.apply(hidden).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [2, 5, 18, 19, 24, 28, 80])
def test_it_acts_where_earlytom_does(depth) -> None:
    assert InnerMerging().llm_plan(depth) == EarlyTom(inner_merging=True).llm_plan(depth)
    assert InnerMerging(layer=1).llm_plan(depth) == LanguagePlan(reduce_before=(1,))
    assert InnerMerging(ratio=0.0).llm_plan(depth) == LanguagePlan()


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(MethodError, match="layer 28 does not fit a language model of 28 layers: allowed are 1 to 27"):
        InnerMerging(layer=28).llm_plan(28)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"ratio": 1.0}, "ratio must be less than 1"),
        ({"ratio": -0.5}, "ratio must be a number in"),
        ({"layer": 0}, "layer must be an integer of at least 1, got 0"),
        ({"compat": "paper"}, "compat must be one of"),
        ({"retention": 0.2}, r"retention must be 1, got 0.2; .* earlytom\+inner-merging:retention=0.2"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message) -> None:
    with pytest.raises(MethodError, match=message):
        InnerMerging(**knobs)


def test_the_budget_is_everything() -> None:
    assert InnerMerging().budget(FrameGrid(frames=4, rows=3, columns=3)) == 36


def test_end_to_end_all_tokens_enter_and_half_of_them_leave() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, "inner-merging") as trace:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert trace.videos[0].tokens == 192
    (step,) = trace.last.language
    assert (step.layer, step.tokens_before, step.tokens_after) == (3, (193,), (96,))
