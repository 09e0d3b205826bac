"""ToMe: knobs, budgets and decisions; tests/runtime/test_token_merging.py has the encoder."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earlytom import MethodError, Reduction, parse_method
from earlytom.methods.tome import ToMe
from earlytom.types import EncoderPlan, EncoderShape, FrameGrid, TokenStates, VisualTokens
from reference.strategies import quick
from reference.tome import match_naively, merge_down_naively, schedule_naively

PAPER = FrameGrid(frames=32, rows=14, columns=14)


def states(frames: int, tokens: int, patches: int, grid: FrameGrid = PAPER, depth: int = 26) -> TokenStates:
    return TokenStates(
        features=torch.randn(frames, tokens, 8),
        keys=torch.randn(frames, tokens, 4),
        sizes=torch.randint(1, 5, (frames, tokens)).float(),
        grid=grid,
        patches=patches,
        depth=depth,
    )


def visual(frames: int, rows: int, columns: int, features: torch.Tensor | None = None) -> VisualTokens:
    grid = FrameGrid(frames=frames, rows=rows, columns=columns)
    if features is None:
        features = torch.randn(frames, rows * columns, 6)
    return VisualTokens(features=features, attention=None, grid=grid, origin=Reduction.identity(frames))


@pytest.mark.parametrize(
    ("retention", "exact", "of_a_frame"), [(0.1, 627, 20), (0.15, 941, 29), (0.2, 1254, 39), (0.25, 1568, 49)]
)
def test_budgets(retention, exact, of_a_frame) -> None:
    assert ToMe(retention=retention).budget(PAPER) == exact
    assert ToMe(retention=retention, unmerge=False).budget(PAPER) == 32 * of_a_frame


def test_every_frame_keeps_a_token() -> None:
    assert ToMe(retention=1e-6).budget(PAPER) == 32
    assert ToMe(retention=1e-6, unmerge=False).budget(PAPER) == 32


def test_plans() -> None:
    assert ToMe().encoder_plan(EncoderShape(depth=26)) == EncoderPlan(
        token_layers=tuple(range(26)), proportional_attention=True
    )
    assert ToMe(proportional_attention=False, unmerge=False).encoder_plan(EncoderShape(depth=2)) == EncoderPlan(
        token_layers=(0, 1), unmerge=False
    )
    for unmerge in (True, False):
        assert ToMe(retention=1.0, unmerge=unmerge).encoder_plan(EncoderShape(depth=26)) == EncoderPlan()
        assert ToMe(retention=1.0, unmerge=unmerge).budget(PAPER) == 6272


@pytest.mark.parametrize(("method", "left"), [(ToMe(), 182), (ToMe(unmerge=False), 49), (ToMe(retention=0.1), 73)])
def test_the_encoder_is_left_with_the_share_that_was_asked_for(method, left) -> None:
    tokens = 729
    for layer in range(26):
        reduction = method.merge_tokens(states(2, tokens, 729), layer)
        assert reduction.inputs == 2 * tokens
        assert reduction.outputs % 2 == 0
        tokens = reduction.outputs // 2
    assert tokens == left


@pytest.mark.parametrize("layer", [0, 3])
def test_a_layer_merges_what_the_lists_say(layer) -> None:
    given_states = states(3, 40, patches=64, grid=FrameGrid(frames=3, rows=4, columns=4), depth=8)
    count = schedule_naively(48, 8, -0.5)[layer]
    rows = ToMe().merge_tokens(given_states, layer).to_rows()
    expected = []
    for frame in range(3):
        for members in match_naively(given_states.keys[frame], count):
            total = float(given_states.sizes[frame, members].sum())
            expected.append(
                [(frame * 40 + member, float(given_states.sizes[frame, member]) / total) for member in members]
            )
    assert [[source for source, _ in row] for row in rows] == [[source for source, _ in row] for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        assert [weight for _, weight in row] == pytest.approx([weight for _, weight in wanted])


def test_layers_that_have_nothing_to_merge_leave_everything() -> None:
    method = ToMe(retention=0.99)
    grid = FrameGrid(frames=2, rows=4, columns=4)
    merged = [method.merge_tokens(states(2, 63, patches=64, grid=grid, depth=8), layer) for layer in range(8)]
    assert [reduction is None for reduction in merged] == [False] + [True] * 7


def test_what_the_encoder_is_too_shallow_for_is_refused() -> None:
    grid = FrameGrid(frames=2, rows=4, columns=4)
    with pytest.raises(
        MethodError, match=r"retention 0.1 asks for 6 of the 64 tokens .* 3 layers merge at most 56 of 64"
    ):
        ToMe(retention=0.1).merge_tokens(states(2, 64, patches=64, grid=grid, depth=3), 0)


@quick
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.data())
def test_pooled_tokens_merge_down_to_the_budget(frames, rows, columns, data) -> None:
    tokens = visual(frames, rows, columns)
    budget = data.draw(st.integers(frames, frames * rows * columns))
    decision = ToMe(retention=0.5).select_tokens(tokens, budget)
    counts = decision.details["tokens_per_frame"]
    assert sum(counts) == budget
    assert max(counts) - min(counts) <= 1
    if decision.reduction is None:
        assert budget == frames * rows * columns
        return
    expected = [
        [frame * rows * columns + token for token in members]
        for frame, count in enumerate(counts)
        for members in merge_down_naively(tokens.features[frame], count)
    ]
    assert [sorted(source for source, _ in row) for row in decision.reduction.to_rows()] == expected


def test_frames_that_are_all_alike_and_one_token_of_a_frame() -> None:
    same = visual(3, 4, 4, torch.ones(3, 16, 6))
    decision = ToMe(retention=1 / 16).select_tokens(same, 3)
    assert decision.reduction.outputs == 3
    assert torch.equal(decision.reduction.apply(same.features.flatten(0, 1)), torch.ones(3, 6))
    assert decision.reduction.survivors().tolist() == [0, 16, 32]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"proportional_attention": 1}, "proportional_attention must be True or False, got 1"),
        ({"unmerge": None}, "unmerge must be True or False, got None"),
        ({"inflection": 1.5}, r"inflection must be a number in \[-1.0, 1.0\], got 1.5"),
        ({"inflection": "0"}, "inflection must be a number"),
        ({"retention": 0}, "retention must be a number"),
    ],
    ids=str,
)
def test_knobs_out_of_range_are_refused(knobs, message) -> None:
    with pytest.raises(MethodError, match=message):
        ToMe(**knobs)


@pytest.mark.parametrize(
    "method", [ToMe(), ToMe(retention=0.1, unmerge=False), ToMe(proportional_attention=False, inflection=0.0)], ids=str
)
def test_a_method_survives_its_own_description(method) -> None:
    assert parse_method(method.describe()) == method


def test_frames_and_tokens_cannot_both_merge_in_the_encoder() -> None:
    with pytest.raises(MethodError, match="exclude each other"):
        EncoderPlan(token_layers=(0, 1), merge_layers=(1,))
    with pytest.raises(MethodError, match="exclude each other"):
        EncoderPlan(token_layers=(0, 1), frame_similarity=True)
