"""From records to rows, compared with counting by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from earlytom.errors import EarlyTomError
from earlytom.eval.records import Asked, Record
from earlytom.eval.rows import Row
from earlytom.eval.statistics import mcnemar
from earlytom.eval.summary import summarise
from earlytom.eval.variants import make_variants

(NONE, METHOD), _ = make_variants(["earlytom"], [0.25])


def asked(skill: str, expected: str, reply: str, letters: bool = False, guess: float = 0.0) -> Asked:
    text = f"{skill} {expected}?"
    return Asked(question=text, expected=expected, skill=skill, letters=letters, guess=guess, reply=reply)


def record(clip: int, *entries: Asked, tokens: int = 10, frames: int = 4, ttft: float | None = 1.0) -> Record:
    numbers = {"visual_tokens": tokens, "tokens_per_layer": tokens / 2, "frames_left": frames, "ttft": ttft}
    return Record(clip=clip, seed=clip, asked=entries, **numbers)


def find(rows: list[Row], method: str, skill: str, form: str = "any") -> Row:
    (row,) = [row for row in rows if (row.method, row.skill, row.form) == (method, skill, form)]
    return row


@pytest.fixture
def rows() -> list[Row]:
    plain = [
        record(0, asked("colour", "red", "red"), asked("colour", "blue", "Blue."), asked("count", "two", "two")),
        record(1, asked("colour", "red", "green"), asked("count", "b", "(B)", letters=True)),
        record(2, asked("colour", "red", "red"), ttft=5.0),
    ]
    short = [
        record(
            0, asked("colour", "red", "red"), asked("colour", "blue", "red"), asked("count", "two", "one"), tokens=4
        ),
        record(1, asked("colour", "red", "red"), asked("count", "b", "b", letters=True), tokens=4, frames=2),
        record(2, asked("colour", "red", "red"), tokens=1, frames=3, ttft=None),
    ]
    return summarise({NONE: plain, METHOD: short})


def test_accuracy_and_counts(rows) -> None:
    colour, count, every = (find(rows, "none", skill) for skill in ("colour", "count", "all"))
    assert (colour.n, colour.clips, colour.accuracy) == (4, 3, 0.75)
    assert (count.n, count.clips, count.accuracy) == (2, 2, 1.0)
    assert (every.n, every.clips, every.accuracy) == (6, 3, 0.875)  # the mean of the skills, not of the questions
    short = find(rows, "earlytom", "all")
    assert short.accuracy == pytest.approx((0.75 + 0.5) / 2)
    assert all(row.low <= row.accuracy <= row.high for row in rows)


def test_tokens_frames_and_times(rows) -> None:
    short = find(rows, "earlytom", "all")
    assert (short.retention, short.visual_tokens, short.ttft) == (0.25, 3.0, 1.0)
    assert short.frames_left == 3.0
    assert find(rows, "none", "all").ttft == 1.0
    assert find(rows, "earlytom", "count").visual_tokens == 4.0
    assert find(rows, "earlytom", "count").tokens_per_layer == 2.0
    # Clip 2, the slow one, has no question about numbers: what is timed is the method, not the skill.
    assert find(rows, "none", "count").ttft == find(rows, "none", "all").ttft


def test_chance_is_the_best_constant_of_every_skill_and_form(rows) -> None:
    assert find(rows, "none", "colour").chance == 0.75
    assert find(rows, "none", "count").chance == 1.0  # "two" for the free one, "b" for letters
    assert find(rows, "none", "all").chance == 0.875


def test_chance_is_that_of_guessing_among_named_answers_where_that_is_better() -> None:
    entries = [asked("order", name, name, guess=0.5) for name in ("red", "blue", "green", "pink")]
    letters = [asked("order", letter, letter, letters=True, guess=0.25) for letter in "aabc"]
    (row,) = [row for row in summarise({NONE: [record(0, *entries)]}) if row.skill == "order"]
    assert row.chance == 0.5
    both = summarise({NONE: [record(0, *entries, *letters)]})
    assert find(both, "none", "order", "letters").chance == 0.5  # two of four are "a"


def test_differences_are_paired(rows) -> None:
    colour, count = find(rows, "earlytom", "colour"), find(rows, "earlytom", "count")
    assert (colour.difference, count.difference) == (0.0, -0.5)
    assert colour.p_value == mcnemar(1, 1)
    assert count.p_value == mcnemar(0, 1)
    assert find(rows, "earlytom", "all").p_value == mcnemar(1, 2)
    for row in rows:
        if row.method == "none":
            assert (row.difference, row.difference_low, row.difference_high, row.p_value) == (None,) * 4
        else:
            assert row.difference_low <= row.difference <= row.difference_high


def test_forms_have_rows_of_their_own_where_both_exist(rows) -> None:
    assert find(rows, "none", "all", "letters").n == 1
    assert find(rows, "none", "all", "free").n == 5
    assert find(rows, "earlytom", "count", "letters").accuracy == 1.0
    assert not [row for row in rows if (row.skill, row.form) == ("colour", "letters")]
    free = [record(0, asked("colour", "red", "red"))]
    assert {row.form for row in summarise({NONE: free})} == {"any"}


def test_rows_are_ordered_with_the_headline_first(rows) -> None:
    keys = [(row.method, row.form, row.skill) for row in rows[:6]]
    assert keys == [
        ("none", "any", "all"),
        ("none", "any", "colour"),
        ("none", "any", "count"),
        ("none", "free", "all"),
        ("none", "free", "colour"),
        ("none", "free", "count"),
    ]


def test_pairing_makes_differences_surer_than_accuracies() -> None:
    """Two methods that fail on the same hard clips differ by little, however much the clips differ."""
    generator = np.random.default_rng(0)
    plain, short = [], []
    for clip in range(60):
        hard = generator.random() < 0.4
        replies = ["green" if hard else "red"] * 4
        plain.append(record(clip, *(asked("colour", "red", reply) for reply in replies)))
        replies[0] = "green" if generator.random() < 0.1 else replies[0]
        short.append(record(clip, *(asked("colour", "red", reply) for reply in replies)))
    row = find(summarise({NONE: plain, METHOD: short}), "earlytom", "all")
    assert row.difference_high - row.difference_low < (row.high - row.low) / 4


def test_rows_survive_json() -> None:
    (row, *_) = summarise({NONE: [record(0, asked("colour", "red", "red"))]})
    assert Row.from_dict(row.to_dict()) == row
    with pytest.raises(EarlyTomError, match="not a row of results"):
        Row.from_dict(row.to_dict() | {"colour": 1})


def test_what_cannot_be_compared_is_refused() -> None:
    plain = [record(0, asked("colour", "red", "red"))]
    with pytest.raises(EarlyTomError, match="no records of method 'none'"):
        summarise({METHOD: plain})
    with pytest.raises(EarlyTomError, match="there is no question"):
        summarise({NONE: []})
    other = [dataclasses.replace(plain[0], asked=(asked("colour", "blue", "red"),))]
    with pytest.raises(EarlyTomError, match=r"earlytom:retention=0.25 was asked other questions"):
        summarise({NONE: plain, METHOD: other})


def test_methods_are_compared_with_random_tokens_of_the_same_retention() -> None:
    variants, _ = make_variants(["earlytom", "random"], [0.25, 0.1])
    replies = {"none": "yyyy", "earlytom": "yyyn", "random": "ynnn"}
    records = {
        variant: [record(clip, asked("colour", "y", reply)) for clip, reply in enumerate(replies[variant.label])]
        for variant in variants
        if (variant.label, variant.retention) != ("random", 0.1)
    }
    found = {(row.method, row.retention): row for row in summarise(records) if row.skill == "all"}
    ours = found["earlytom", 0.25]
    assert (ours.difference, ours.over_random) == (-0.25, 0.5)
    assert 0.0 <= ours.over_random_low <= 0.5 <= ours.over_random_high
    # None was run at 10%, and neither no compression nor random tokens are compared with random tokens.
    for name, retention in (("earlytom", 0.1), ("none", 1.0), ("random", 0.25)):
        row = found[name, retention]
        assert (row.over_random, row.over_random_low, row.over_random_high) == (None, None, None)
    assert found["random", 0.25].difference == -0.75


def test_methods_are_compared_with_as_many_random_tokens() -> None:
    variants, _ = make_variants(["earlytom", "random", "random:seed=1"], [], visual_tokens=[64, 9])
    replies = {"none": "yyyy", "earlytom": "yyyn", "random": "ynnn"}
    records = {
        variant: [record(clip, asked("colour", "y", reply)) for clip, reply in enumerate(replies[variant.method.name])]
        for variant in variants
        if (variant.label, variant.method.visual_tokens) != ("random:visual_tokens=9", 9)
    }
    rows = {row.method: row for row in summarise(records) if row.skill == "all"}
    assert {row.retention for name, row in rows.items() if name != "none"} == {None}
    found = {name: row.over_random for name, row in rows.items()}
    assert (found["earlytom:visual_tokens=64"], found["earlytom:visual_tokens=9"]) == (0.5, None)
    assert (found["random:visual_tokens=64"], found["random:visual_tokens=64,seed=1"]) == (None, 0.0)


def test_any_variant_may_be_what_the_others_are_compared_with() -> None:
    right, wrong = record(0, asked("colour", "red", "red")), record(0, asked("colour", "red", "blue"))
    rows = summarise({NONE: [wrong], METHOD: [right]}, against=METHOD)
    assert find(rows, "earlytom", "all").difference is None
    assert find(rows, "none", "all").difference == -1.0
    assert find(summarise({METHOD: [right]}, against=METHOD), "earlytom", "all").accuracy == 1.0
