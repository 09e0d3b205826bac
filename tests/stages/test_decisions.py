"""What a method decided is looked at before it is applied."""

from __future__ import annotations

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from earlytom import CompressionError, MethodError, Reduction
from earlytom.stages.decisions import checked
from earlytom.types import Decision


class Theirs(earlytom.EarlyTom):
    """A method of another package."""


@pytest.mark.parametrize(
    ("method", "looked"),
    [
        (earlytom.EarlyTom(), False),
        (earlytom.compose("earlytom", "visionzip"), False),
        (Theirs(), True),
        (earlytom.compose(Theirs(), "visionzip"), True),
    ],
    ids=["ours", "composed", "theirs", "composed with theirs"],
)
def test_values_on_a_device_are_read_only_where_somebody_else_made_them(method, looked, monkeypatch) -> None:
    asked: list[Reduction] = []
    monkeypatch.setattr(Reduction, "check_values", lambda self: asked.append(self))
    there = Reduction.keep(torch.tensor([0, 1], device="meta"), 3)
    assert checked(method, there, 3) is there
    assert bool(asked) == looked


class Wrong(earlytom.EarlyTom):
    def merge_frames(self, states, layer, floor):
        return Decision()

    def select_tokens(self, tokens, budget):
        return Decision(reduction=Reduction.keep(torch.arange(budget), self.rows(tokens)))

    def rows(self, tokens) -> int:
        return tokens.features.shape[0] * tokens.features.shape[1]


class OtherRows(Wrong):
    def rows(self, tokens) -> int:
        return super().rows(tokens) + 1


class OutOfRange(Wrong):
    def rows(self, tokens) -> int:
        return 7


class OtherFrames(earlytom.EarlyTom):
    def merge_frames(self, states, layer, floor):
        return Decision(reduction=Reduction.identity(5))


class OtherVisualTokens(earlytom.EarlyTom):
    def reduce_in_llm(self, states, layer):
        return Reduction.identity(5)


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        (OtherRows(), CompressionError, "decided about 193 rows where there are 192"),
        (OutOfRange(), MethodError, r"rows of the 7 inputs \(0 to 6\), got \[0, 1, .* to 47\)"),
        (OtherFrames(), CompressionError, "decided about 5 rows where there are 12"),
        (OtherVisualTokens(inner_merging=True), CompressionError, "decided about 5 rows where there are 49"),
    ],
    ids=["rows", "range", "frames", "language model"],
)
def test_a_wrong_decision_is_an_error_and_leaves_the_model_intact(method, error, message) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    before = model(**inputs).logits
    with earlytom.compress(model, method), pytest.raises(error, match=message):
        model.generate(**inputs, max_new_tokens=1)
    assert torch.equal(model(**inputs).logits, before)


class Nothing(earlytom.EarlyTom):
    def select_tokens(self, tokens, budget):
        return None


class Bare(earlytom.EarlyTom):
    def merge_frames(self, states, layer, floor):
        return Reduction.identity(states.features.shape[0])


class Many(earlytom.EarlyTom):
    """Keeps more tokens than there are."""

    exact_budget = False

    def select_tokens(self, tokens, budget):
        total = tokens.features.shape[0] * tokens.features.shape[1]
        return Decision(reduction=Reduction.keep(torch.arange(total + 9).clamp(max=total - 1), total))


class NoFrames(earlytom.EarlyTom):
    def merge_frames(self, states, layer, floor):
        return Decision(reduction=Reduction.keep(torch.tensor([], dtype=torch.int64), states.features.shape[0]))


class OnePlace(earlytom.EarlyTom):
    def reduce_in_llm(self, states, layer):
        return Reduction.keep(torch.tensor([5, 5, 1]), states.features.shape[0])


class List(earlytom.EarlyTom):
    def reduce_in_llm(self, states, layer):
        return [1, 2]


class Unmade(type(earlytom.make_method("tome"))):
    def merge_tokens(self, states, layer):
        return [1, 2]


class Twice(type(earlytom.make_method("tome"))):
    """Uses one row twice and another never."""

    def merge_tokens(self, states, layer):
        rows = torch.arange(states.features.shape[0] * states.features.shape[1])
        rows[1] = 0
        return Reduction.keep(rows, rows.shape[0])


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Nothing(), "must return an earlytom.types.Decision, got None"),
        (Bare(), "must return an earlytom.types.Decision, got Reduction"),
        (Many(), r"left (\d+) of (\d+) rows, where 1 to \2 can be left"),
        (NoFrames(), "left 0 of 12 rows"),
        (OnePlace(inner_merging=True), "left two tokens in one place"),
        (List(inner_merging=True), r"must decide by an earlytom.Reduction, got \[1, 2\]"),
        (Unmade(), r"must decide by an earlytom.Reduction, got \[1, 2\]"),
        (Twice(), "left two tokens in one place"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_decision_is_named(method, message) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, method), pytest.raises(earlytom.EarlyTomError, match=message):
        model.generate(**inputs, max_new_tokens=1)
