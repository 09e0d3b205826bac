"""From records to rows: accuracies, their intervals, and what a method changes, paired question by question."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from earlytom.errors import EarlyTomError
from earlytom.eval.judging import is_right
from earlytom.eval.mixes import EVEN, MIXES, check_mix
from earlytom.eval.records import Record
from earlytom.eval.rows import ALL, ANY, Row
from earlytom.eval.statistics import Floats, accuracies, draw_clips, interval, mcnemar
from earlytom.eval.variants import Variant
from earlytom.testbed.questions import SKILLS

__all__ = ["summarise"]

Flags = npt.NDArray[np.bool_]
_DIGITS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sheet:
    """The Q questions about C clips that every variant was asked, in K skills.

    Attributes:
        clip: [Q] place of the clip among the records.
        skill: [Q] place of the skill in ``skills``.
        letters: [Q] whether it was multiple choice.
        guess: [Q] how often a guess among the answers that the question names is right.
        expected: Q right answers.
        skills: K names.
        weights: [R, C] resamples of the clips.
        mix: name of the mix that the skills are averaged by.
    """

    clip: npt.NDArray[np.int64]
    skill: npt.NDArray[np.int64]
    letters: Flags
    guess: Floats
    expected: tuple[str, ...]
    skills: tuple[str, ...]
    weights: Floats
    mix: str

    @property
    def shares(self) -> Floats:
        """[K]: how much each skill weighs in the mean."""
        return np.array([MIXES[self.mix][skill] for skill in self.skills])

    def count(self, chosen: Flags) -> Floats:
        """[C, K]: how many of the ``chosen`` [Q] questions there are, by clip and skill."""
        table = np.zeros((self.weights.shape[1], len(self.skills)))
        np.add.at(table, (self.clip[chosen], self.skill[chosen]), 1.0)
        return table

    def forms(self) -> dict[str, Flags]:
        """The questions of every form that there is; ``"any"`` alone where they are of one kind."""
        forms = {ANY: np.ones_like(self.letters)}
        if self.letters.any() and not self.letters.all():
            forms |= {"free": ~self.letters, "letters": self.letters}
        return forms


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """Accuracies in each skill, the mean by the mix last: of the sample, [K + 1], and of its resamples, [R, K + 1]."""

    value: Floats
    resampled: Floats


@dataclass(frozen=True, kw_only=True)
class _Others:
    """[Q] right answers of the baseline and of random tokens, where a variant is compared with them."""

    plain: Flags | None
    random: Flags | None


def summarise(
    records: Mapping[Variant, Sequence[Record]], *, against: Variant | None = None, mix: str = EVEN
) -> list[Row]:
    """The rows of a run: for each variant and form of question one for the average and one for each skill.

    Args:
        records: of each variant, the baseline among them; all about the same questions.
        against: the variant that all others are compared with; ``None``: method ``none``.
        mix: how the skills are averaged, one of `earlytom.eval.mixes.MIXES`.

    Raises:
        EarlyTomError: there is no such mix, no baseline or no question, or the variants were asked different questions.
    """
    check_mix(mix)
    baseline = against or next((variant for variant in records if variant.is_baseline), None)
    if baseline is None:
        raise EarlyTomError("there are no records of method 'none', which every other one is compared with")
    sheet = _read_sheet(records[baseline], mix)
    for variant in records:
        if _questions(records[variant]) != _questions(records[baseline]):
            raise EarlyTomError(
                f"method {variant.spec} was asked other questions than method {baseline.label!r}; use a new folder"
            )
    right = {variant: _marks(records[variant]) for variant in records}
    random = {variant.amount: variant for variant in records if variant.is_random}
    rows: list[Row] = []
    for variant in records:
        plain = None if variant is baseline else right[baseline]
        control = None if variant is baseline else random.get(variant.amount)
        others = _Others(plain=plain, random=None if control in (None, variant) else right[control])
        for form, questions in sheet.forms().items():
            rows += _rows(variant, records[variant], sheet, form, questions, right[variant], others)
    return rows


def _read_sheet(records: Sequence[Record], mix: str) -> _Sheet:
    asked = [(place, entry) for place, record in enumerate(records) for entry in record.asked]
    if not asked:
        raise EarlyTomError("there is no question of the skills and the form that were asked for; ask for more clips")
    skills = tuple(skill for skill in SKILLS if any(entry.skill == skill for _, entry in asked))
    return _Sheet(
        clip=np.array([place for place, _ in asked]),
        skill=np.array([skills.index(entry.skill) for _, entry in asked]),
        letters=np.array([entry.letters for _, entry in asked]),
        guess=np.array([entry.guess for _, entry in asked]),
        expected=tuple(entry.expected for _, entry in asked),
        skills=skills,
        weights=draw_clips(len(records)),
        mix=mix,
    )


def _questions(records: Sequence[Record]) -> list[tuple[int, str, str]]:
    return [(record.seed, entry.question, entry.expected) for record in records for entry in record.asked]


def _marks(records: Sequence[Record]) -> Flags:
    """[Q]: which questions were answered rightly."""
    entries = [entry for record in records for entry in record.asked]
    return np.array([is_right(entry.reply, entry.expected, letters=entry.letters) for entry in entries])


def _rows(
    variant: Variant,
    records: Sequence[Record],
    sheet: _Sheet,
    form: str,
    questions: Flags,
    right: Flags,
    others: _Others,
) -> Iterator[Row]:
    """The rows of one variant and one form, the average first."""
    mine = _score(sheet, questions, right)
    base, random = (
        None if flags is None else _score(sheet, questions, flags) for flags in (others.plain, others.random)
    )
    for column in (len(sheet.skills), *range(len(sheet.skills))):
        chosen = questions & ((sheet.skill == column) | (column == len(sheet.skills)))
        if not chosen.any():
            continue
        row = _row(variant, records, sheet, form, chosen, mine, column)
        if base is not None and others.plain is not None:
            gained, lost = int((right & ~others.plain & chosen).sum()), int((~right & others.plain & chosen).sum())
            row = _compare(row, "difference", mine, base, column)
            row = dataclasses.replace(row, p_value=mcnemar(gained, lost))
        if random is not None:
            row = _compare(row, "over_random", mine, random, column)
        yield row


def _score(sheet: _Sheet, questions: Flags, right: Flags) -> _Scores:
    counts, asked = sheet.count(questions & right), sheet.count(questions)
    return _Scores(
        value=accuracies(counts, asked, np.ones((1, len(asked))), sheet.shares)[0],
        resampled=accuracies(counts, asked, sheet.weights, sheet.shares),
    )


def _row(
    variant: Variant,
    records: Sequence[Record],
    sheet: _Sheet,
    form: str,
    chosen: Flags,
    mine: _Scores,
    column: int,
) -> Row:
    """What a row says of a variant by itself."""
    held = [records[place] for place in np.unique(sheet.clip[chosen])]
    value = float(mine.value[column])
    low, high = interval(value, mine.resampled[:, column], len(held), 0.0, 1.0)
    # A question of one skill waits no longer than one of another, so that all timed clips count for each.
    times = [record.ttft for record in records if record.ttft is not None]
    return Row(
        method=variant.label,
        retention=variant.retention,
        skill=(*sheet.skills, ALL)[column],
        form=form,
        n=int(chosen.sum()),
        clips=len(held),
        accuracy=round(value, _DIGITS),
        low=round(low, _DIGITS),
        high=round(high, _DIGITS),
        chance=round(_chance(sheet, chosen), _DIGITS),
        visual_tokens=round(statistics.fmean(record.visual_tokens for record in held), _DIGITS),
        tokens_per_layer=round(statistics.fmean(record.tokens_per_layer for record in held), _DIGITS),
        frames_left=round(statistics.fmean(record.frames_left for record in held), _DIGITS),
        ttft=statistics.median(times) if times else None,
        mix=sheet.mix,
    )


def _compare(row: Row, name: str, mine: _Scores, other: _Scores, column: int) -> Row:
    """The row with what differs from another method on the same questions, as ``name`` and its interval."""
    difference = float(mine.value[column] - other.value[column])
    resampled = mine.resampled[:, column] - other.resampled[:, column]
    low, high = interval(difference, resampled, row.clips, -1.0, 1.0)
    found: dict[str, Any] = {name: difference, f"{name}_low": low, f"{name}_high": high}
    return dataclasses.replace(row, **{field: round(value, _DIGITS) for field, value in found.items()})


def _chance(sheet: _Sheet, chosen: Flags) -> float:
    """What can be had without the video: for each skill and form the best constant answer, or a guess among the answers
    that questions name, whichever is better; the mean over the skills, by the mix.
    """
    shares, weights = [], []
    for skill in np.unique(sheet.skill[chosen]):
        mine = chosen & (sheet.skill == skill)
        best = 0.0
        for form in (mine & sheet.letters, mine & ~sheet.letters):
            answers = Counter(sheet.expected[place] for place in np.flatnonzero(form))
            best += max(max(answers.values(), default=0), float(sheet.guess[form].sum()))
        weights.append(float(sheet.shares[skill]))
        shares.append(best / int(mine.sum()) * weights[-1])
    return math.fsum(shares) / math.fsum(weights)
