"""Questions with options: the letter names the right option, guessing gains nothing, lengths and wordings vary."""

from collections import Counter

import numpy as np
import pytest

from earlytom.testbed.choices import (
    LETTERS,
    mix_in_options,
    option_ends,
    reading_question,
    vocabulary,
    with_options,
)
from earlytom.testbed.questions import SKILLS, Question, ask, words_of
from earlytom.testbed.questions import vocabulary as question_vocabulary
from earlytom.testbed.scenes import generate_clip


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Question, Question]]:
    """Return questions about 60 clips, each with its form with options."""
    rows = []
    for seed in range(941_000_000, 941_000_060):
        truth, generator = generate_clip(seed)[1], np.random.default_rng(seed)
        plain = ask(truth, generator)
        rows += zip(plain, mix_in_options(plain, truth, generator, share=1.0), strict=True)
    return rows


def test_the_letter_names_the_free_answer_and_no_other_option_does(pairs: list[tuple[Question, Question]]) -> None:
    for plain, chosen in pairs:
        assert chosen.letters
        assert chosen.options[LETTERS.index(chosen.answer)] == plain.answer
        assert len(set(chosen.options)) == len(chosen.options)
        assert len(chosen.options) in (3, 4)
        assert plain.text in chosen.text
        assert (chosen.skill, chosen.compares) == (plain.skill, plain.compares)


def test_every_letter_is_right_equally_often(pairs: list[tuple[Question, Question]]) -> None:
    for length in (3, 4):
        counts = Counter(chosen.answer for _, chosen in pairs if len(chosen.options) == length)
        assert set(counts) == set(LETTERS[:length])
        assert max(counts.values()) < 1.5 * counts.total() / length


def test_both_objects_of_a_comparison_are_options(pairs: list[tuple[Question, Question]]) -> None:
    compared = [(plain, chosen) for plain, chosen in pairs if plain.compares is not None]
    assert len(compared) > 20
    for plain, chosen in compared:
        assert sum(option in plain.text for option in chosen.options) >= 2


def test_nothing_is_an_option_more_often_than_the_answer(pairs: list[tuple[Question, Question]]) -> None:
    offered = [(plain, chosen) for plain, chosen in pairs if "none" in chosen.options]
    right = sum(plain.answer == "none" for plain, _ in offered)
    assert 0.2 < right / len(offered) < 0.7


def test_the_ends_of_the_options_are_found(pairs: list[tuple[Question, Question]]) -> None:
    for _, chosen in pairs:
        ends = option_ends(chosen)
        assert [chosen.text[:end].endswith(option) for (end, _), option in zip(ends, chosen.options, strict=True)]
        assert sum(right for _, right in ends) == 1
    assert option_ends(Question("What colour is the circle?", "red", "colour")) == []
    with pytest.raises(ValueError, match="option 'red' is not in the text"):
        option_ends(Question("What?", "a", "colour", letters=True, options=("red",)))


def test_all_words_are_known(pairs: list[tuple[Question, Question]]) -> None:
    known = vocabulary() | question_vocabulary()
    for _, chosen in pairs:
        assert words_of(chosen.text, chosen.answer) <= known


def test_a_reading_question_holds_its_answer() -> None:
    generator = np.random.default_rng(5)
    for _ in range(100):
        question = reading_question(generator)
        right = question.options[LETTERS.index(question.answer)]
        assert f"The answer is {right}." in question.text
        assert question.skill in SKILLS


def test_the_share_of_questions_with_options_is_kept() -> None:
    truth, generator = generate_clip(941_000_003)[1], np.random.default_rng(2)
    plain = ask(truth, generator, per_skill=9)
    assert mix_in_options(plain, truth, generator, share=0.0) == plain
    mixed = [item.letters for _ in range(60) for item in mix_in_options(plain, truth, generator, share=0.4)]
    assert 0.3 < np.mean(mixed) < 0.5


def test_options_are_a_function_of_the_generator() -> None:
    question = Question("What colour is the circle?", "red", "colour")
    first, again = (with_options(question, (), np.random.default_rng(7)) for _ in range(2))
    assert first == again
