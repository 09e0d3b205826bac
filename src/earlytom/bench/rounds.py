"""Taking turns, so that a machine that gets slower or faster favours none of those who are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["in_rounds", "take_turns"]

T = TypeVar("T")


def take_turns(subjects: Sequence[T], turn: int) -> list[T]:
    """All subjects once; another one goes first on every turn.

    Args:
        subjects: in the order of turn 0.
        turn: any integer.
    """
    first = turn % len(subjects) if subjects else 0
    return [*subjects[first:], *subjects[:first]]


def in_rounds(subjects: Sequence[T], *, repeats: int, warm_ups: int = 0) -> Iterator[tuple[int, T]]:
    """Round robin: every subject once a round, each round beginning with another one.

    Args:
        subjects: who takes turns.
        repeats: rounds that count.
        warm_ups: rounds before them.

    Yields:
        The number of the round, below 0 in the warm-ups, and the subject whose turn it is.
    """
    for turn in range(-warm_ups, repeats):
        for subject in take_turns(subjects, turn):
            yield turn, subject
