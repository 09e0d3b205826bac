"""One line of results."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from earlytom.errors import EarlyTomError, shortened, shown, shown_cause
from earlytom.eval.mixes import EVEN

__all__ = ["ALL", "ANY", "Row", "read_rows"]

ALL = "all"
"""The skill of rows that average over the skills."""
ANY = "any"
"""The form of rows over all questions, whatever they want as an answer."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method at one retention, in one skill and one form of question. Shares lie in [0, 1].

    Attributes:
        method: the method with its options, retention left out; a number of tokens that was asked for is among them.
        retention: visual tokens that the language model gets, over those it would have got; ``None`` where other
            options of the method say what is kept.
        skill: the skill; ``"all"``: the average over the skills.
        form: ``"free"`` answers, ``"letters"`` (multiple choice), or ``"any"``.
        n: questions.
        clips: clips that they are about.
        accuracy: share of right answers; low, high: its 95% interval.
        chance: accuracy of the best constant answer, or of guessing among the answers that questions name, if that is
            better.
        visual_tokens: tokens of a clip that went into the language model, mean over the clips.
        tokens_per_layer: of these, what a layer of the language model worked on: mean over its layers and the clips.
        frames_left: of the sampled frames of a clip, how many came out of the vision encoder (a temporal grid counts
            as the frames that it holds), mean over the clips.
        ttft: seconds to the first token, median over the timed clips, of whatever skill; ``None`` where no model was
            timed.
        difference: accuracy less that of method ``none`` on the same questions; ``None`` for ``none`` itself.
        difference_low: lower end of its 95% interval; ``difference_high``: the upper end.
        over_random: accuracy less that of method ``random`` of the same retention or number of tokens, likewise with
            ``over_random_low`` and ``over_random_high``; ``None`` where that was not run, and for ``none``.
        p_value: McNemar's, exact, two-sided: how likely so uneven a gain and loss of right answers is by chance.
        mix: how rows of skill ``"all"`` average the skills (`earlytom.eval.mixes.MIXES`); left out of plain data where
            it is ``"even"``.
    """

    method: str
    retention: float | None
    skill: str
    form: str
    n: int
    clips: int
    accuracy: float
    low: float
    high: float
    chance: float
    visual_tokens: float
    tokens_per_layer: float
    frames_left: float
    ttft: float | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    over_random: float | None = None
    over_random_low: float | None = None
    over_random_high: float | None = None
    p_value: float | None = None
    mix: str = EVEN

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data, for JSON."""
        data = dataclasses.asdict(self)
        if self.mix == EVEN:
            del data["mix"]  # as it was written before there were others
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            EarlyTomError: a field is missing, unknown, of another type, or no finite number.
        """
        try:
            row = cls(**data)
        except TypeError as error:
            raise EarlyTomError(f"not a row of results: {shown_cause(error)}") from error
        for field in dataclasses.fields(cls):
            _check_field(field.name, str(field.type), getattr(row, field.name))
        return row


# By the fields' annotations: what is allowed, and how that is told.
_ALLOWED: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "a text"),
    "int": (int, "an integer"),
    "float": ((int, float), "a finite number"),
    "float | None": ((int, float, type(None)), "a finite number or null"),
}


def _check_field(name: str, annotation: str, value: object) -> None:
    types, told = _ALLOWED[annotation]
    # true and false are integers to Python, and numbers too large for a float cannot be reckoned with.
    if isinstance(value, types) and not isinstance(value, bool) and _is_finite(value):
        return
    raise EarlyTomError(f"not a row of results: {name} must be {told}, got {shown(value)}")


def _is_finite(value: object) -> bool:
    try:
        return not isinstance(value, int | float) or math.isfinite(value)
    except OverflowError:
        return False


def read_rows(path: Path) -> list[Row]:
    """The rows that an evaluation has written.

    Raises:
        EarlyTomError: the file cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EarlyTomError(f"{shortened(path)}: cannot be read as rows of results: {shown_cause(error)}") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise EarlyTomError(f"{shortened(path)}: holds no rows of an evaluation, which are a list of objects")
    return [Row.from_dict(row) for row in found]
