"""Multiple choice: a question with options, of which the answer names one by its letter, as lmms-eval's tasks ask."""

import re
from collections.abc import Sequence

import numpy as np

from earlytom.testbed.questions import CORNERS, NOTHING, NUMBERS, Question, words_of
from earlytom.testbed.scene_types import COLOURS, DIRECTIONS, SHAPES, Truth

LETTERS = ("a", "b", "c", "d")
# Which wording a question gets, and how likely: plain options, MVBench's way, and Video-MME's.
_WRAPPERS = (
    "{question}\n{options}\nAnswer with the option's letter from the given choices directly.",
    "{question}\n{options}\nAnswer with the letter of the correct option.",
    "Question: {question}\nOptions:\n{options}\nOnly give the best option.",
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option.\n{question}\n{options}\nThe best answer is:",
)
_WRAPPER_WEIGHTS = (0.45, 0.2, 0.25, 0.1)
_MARKS = ("{letter}. {option}", "({letter}) {option}")
_MARK_OF_WRAPPER = (0, 0, 1, 0)
_READING = "The answer is {answer}."
_NOTHING_SHARE = 0.15
_ANSWERS: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "direction": tuple(DIRECTIONS),
    "count": (*NUMBERS, "four"),
    "position": CORNERS,
}


def with_options(question: Question, names: Sequence[str], generator: np.random.Generator) -> Question:
    """Turn a question with a free answer into one with three or four options and letters.

    Args:
        question: The question.
        names: Names of objects of the clip, which make good wrong answers where an object is asked for.
        generator: Where chance comes from.
    """
    wrong = _wrong_answers(question, names, generator)
    if NOTHING not in (question.answer, *wrong) and generator.random() < _NOTHING_SHARE:
        wrong = [NOTHING, *wrong]
    count = int(generator.integers(3, len(LETTERS) + 1))
    options = [question.answer, *wrong[: count - 1]]
    options = [options[int(index)] for index in generator.permutation(len(options))]
    kind = int(generator.choice(len(_WRAPPERS), p=_WRAPPER_WEIGHTS))
    mark = _MARKS[_MARK_OF_WRAPPER[kind]]
    lines = [
        mark.format(letter=letter.upper(), option=option) for letter, option in zip(LETTERS, options, strict=False)
    ]
    return Question(
        text=_WRAPPERS[kind].format(question=question.text, options="\n".join(lines)),
        answer=LETTERS[options.index(question.answer)],
        skill=question.skill,
        letters=True,
        options=tuple(options),
        compares=question.compares,
    )


def mix_in_options(
    questions: Sequence[Question], truth: Truth, generator: np.random.Generator, share: float
) -> list[Question]:
    """Give options to about a ``share`` of the questions about a clip."""
    names = [truth.objects[column].name for column in np.flatnonzero(truth.visible.any(axis=0))]
    chosen = generator.random(len(questions)) < share
    return [
        with_options(question, names, generator) if picked else question
        for question, picked in zip(questions, chosen, strict=True)
    ]


def option_ends(question: Question) -> list[tuple[int, bool]]:
    """Return for each option of a question where it ends in the text, and whether it is the right one."""
    found = []
    for letter, option in zip(LETTERS, question.options, strict=False):
        match = re.search(rf"{letter.upper()}[.)] {re.escape(option)}", question.text)
        if match is None:
            raise ValueError(f"option {option!r} is not in the text of the question: {question.text!r}")
        found.append((match.end(), letter == question.answer))
    return found


def reading_question(generator: np.random.Generator) -> Question:
    """Return a question whose answer stands in its text, for learning what letters are for."""
    kinds = list(_ANSWERS)
    kind = kinds[int(generator.integers(len(kinds)))]
    answer = str(generator.choice(_ANSWERS[kind]))
    if generator.random() < 0.4:
        kind, answer = "brief", f"{generator.choice(list(COLOURS))} {generator.choice(SHAPES)}"
    return with_options(Question(_READING.format(answer=answer), answer, kind), (), generator)


def vocabulary() -> set[str]:
    """Return every word that multiple choice adds to the questions."""
    return words_of(*_WRAPPERS, *_MARKS, _READING, *LETTERS, *_ANSWERS["count"])


def _wrong_answers(question: Question, names: Sequence[str], generator: np.random.Generator) -> list[str]:
    """Return wrong answers of the right kind in random order; for objects, those of the clip come first."""
    if question.skill in _ANSWERS:
        pool = [answer for answer in _ANSWERS[question.skill] if answer != question.answer]
        return [pool[int(index)] for index in generator.permutation(len(pool))]
    known = [name for name in dict.fromkeys(names) if name != question.answer]
    known = [known[int(index)] for index in generator.permutation(len(known))]
    if question.compares is not None:
        # The two objects that are compared have to be among the options.
        known.sort(key=lambda name: name not in question.text)
    known = known[:2]
    pool = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    pool = [name for name in pool if name not in (question.answer, *known)]
    return [*known, *(pool[int(index)] for index in generator.choice(len(pool), 3, replace=False))]
