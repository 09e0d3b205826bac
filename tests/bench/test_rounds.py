"""Taking turns."""

from __future__ import annotations

import pytest

from earlytom.bench.rounds import in_rounds, take_turns


def test_another_one_goes_first_on_every_turn() -> None:
    assert [take_turns("abc", turn) for turn in (-1, 0, 1, 2, 3)] == [
        ["c", "a", "b"],
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
    assert take_turns([], 5) == []


def test_rounds_that_do_not_count_are_below_zero() -> None:
    assert list(in_rounds("ab", repeats=2, warm_ups=1)) == [
        (-1, "b"),
        (-1, "a"),
        (0, "a"),
        (0, "b"),
        (1, "b"),
        (1, "a"),
    ]


@pytest.mark.parametrize("subjects", [1, 2, 3, 5])
def test_everybody_is_as_often_in_every_place(subjects) -> None:
    names = list(range(subjects))
    rounds = list(in_rounds(names, repeats=subjects))
    for place in range(subjects):
        assert sorted(name for _, name in rounds[place::subjects]) == names
