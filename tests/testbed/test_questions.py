"""Questions and answers: derived from the truth, answerable from it, and not from a constant."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from earlytom.testbed.questions import (
    CORNERS,
    NOTHING,
    NUMBERS,
    PARAPHRASES,
    SKILLS,
    WORDINGS,
    Question,
    ask,
    vocabulary,
    words_of,
)
from earlytom.testbed.scene_types import COLOURS, DIRECTIONS, SHAPES, Truth
from earlytom.testbed.scenes import generate_clip
from earlytom.testbed.series import SERIES, USUAL

Asked = list[tuple[Truth, Question]]


@pytest.fixture(scope="module")
def asked() -> Asked:
    """Return all questions about 60 clips, each with the truth of its clip."""
    rows: Asked = []
    for seed in range(941_000_000, 941_000_060):
        truth = generate_clip(seed)[1]
        rows += [(truth, question) for question in ask(truth, np.random.default_rng(seed), per_skill=4)]
    return rows


def find(truth: Truth, text: str) -> list[int]:
    """Return the objects that the words of ``text`` describe, in the order of the text."""
    found: list[int] = []
    pattern = rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}|object|thing)|\b({'|'.join(SHAPES)})\b"
    for colour, shape, alone in re.findall(pattern, text):
        wanted = alone or shape
        fits = [
            column
            for column, item in enumerate(truth.objects)
            if truth.visible[:, column].any()
            and item.colour == (colour or item.colour)
            and wanted in (item.shape, "object", "thing")
        ]
        assert len(fits) <= 1, (text, fits)
        found += fits
    return found


def scene_meant(truth: Truth, text: str) -> int | None:
    """Return the scene that the words of ``text`` name, or None."""
    match = re.search(r"(first|second|third|last) scene", text)
    if match is None:
        return None
    last = int(truth.scene[-1])
    return last if match[1] == "last" else ("first", "second", "third").index(match[1])


def shown_in(truth: Truth, scene: int) -> list[int]:
    """Return the objects that the frames of one scene show, counted from pixels covered."""
    shown = truth.visible[truth.scene == scene].any(axis=0)
    return [int(column) for column in np.flatnonzero(shown)]


def oracle(truth: Truth, question: Question) -> str:
    """Answer from coverage and centres alone, along another way than the questions were made."""
    text, objects = question.text, find(truth, question.text)
    scene = scene_meant(truth, text)
    if scene is not None and scene > int(truth.scene[-1]):
        return NOTHING
    if not objects and question.skill in ("colour", "shape", "direction", "position"):
        return NOTHING
    if question.skill == "colour":
        return truth.objects[objects[0]].colour
    if question.skill == "shape":
        return truth.objects[objects[0]].shape
    if question.skill == "count":
        return NUMBERS[len(shown_in(truth, scene or 0)) - 1]
    if question.skill == "brief":
        frames = truth.visible.sum(axis=0)
        shortest = [column for column in np.flatnonzero(frames) if truth.objects[column].brief]
        return truth.objects[int(shortest[0])].name if shortest else NOTHING
    if question.skill == "order":
        if scene is not None:
            return truth.objects[shown_in(truth, scene)[0]].name
        first_seen = [int(np.flatnonzero(truth.visible[:, column])[0]) for column in objects]
        late = re.search(r"\b(last|later)\b", text) is not None
        return truth.objects[objects[int(np.argmax(first_seen) if late else np.argmin(first_seen))]].name
    path = truth.centres[truth.visible[:, objects[0]], objects[0]]
    if question.skill == "position":
        x, y = path.mean(axis=0)
        return f"{'top' if y < 48 else 'bottom'} {'left' if x < 48 else 'right'}"
    travelled = path[-1] - path[0]
    return max(DIRECTIONS, key=lambda name: float(travelled @ np.array(DIRECTIONS[name])))


def test_all_seven_skills_are_asked(asked: Asked) -> None:
    counts = Counter(question.skill for _, question in asked)
    assert set(counts) == set(SKILLS)
    assert min(counts.values()) >= 15


def test_an_oracle_that_answers_from_the_truth_is_always_right(asked: Asked) -> None:
    wrong = [(question, oracle(truth, question)) for truth, question in asked]
    wrong = [(question, said) for question, said in wrong if said != question.answer]
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in SERIES if name != USUAL])
def test_the_oracle_is_right_about_harder_series_too(name: str) -> None:
    series, skills = SERIES[name], set()
    for seed in range(941_000_000, 941_000_012):
        truth = generate_clip(seed, series.slots, degrade=False, series=series)[1]
        for question in ask(truth, np.random.default_rng(seed), per_skill=4):
            assert oracle(truth, question) == question.answer, (seed, question)
            assert words_of(question.text) <= vocabulary()
            skills.add(question.skill)
    assert skills >= set(series.skills)


def test_a_constant_answer_scores_near_chance(asked: Asked) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for _, question in asked:
        answers[question.skill][question.answer] += 1
    options = {"colour": 6, "shape": 4, "direction": 4, "count": 3, "order": 24, "brief": 24, "position": 4}
    for skill, counts in answers.items():
        best = max(counts.values()) / counts.total()
        assert best < 1 / options[skill] + 0.2, (skill, counts)


def test_answers_are_one_or_two_known_words(asked: Asked) -> None:
    words = vocabulary()
    allowed = {*COLOURS, *SHAPES, *DIRECTIONS, *NUMBERS, *CORNERS, NOTHING}
    allowed |= {f"{colour} {shape}" for colour in COLOURS for shape in SHAPES}
    for _, question in asked:
        assert question.answer in allowed
        assert set(re.findall(r"\w+|[^\w\s]", question.text.lower())) <= words


def test_every_skill_is_asked_in_three_wordings_or_more() -> None:
    assert all(len(wordings) >= 3 for wordings in WORDINGS.values())


def test_the_same_generator_asks_the_same_questions() -> None:
    truth = generate_clip(941_000_007)[1]
    assert ask(truth, np.random.default_rng(3)) == ask(truth, np.random.default_rng(3))


def test_questions_about_chosen_frames_ask_only_what_these_show() -> None:
    for seed in range(941_000_000, 941_000_030):
        truth = generate_clip(seed)[1].select([0])
        for question in ask(truth, np.random.default_rng(seed), per_skill=9):
            assert question.skill in {"colour", "shape", "count", "position"}
            named = find(truth, question.text)
            assert all(truth.visible[0, column] for column in named)
            assert question.skill == "count" or bool(named) is (question.answer != NOTHING)


def test_nothing_is_asked_after_in_some_questions_of_every_skill(asked: Asked) -> None:
    counts = Counter(question.skill for _, question in asked if question.answer == NOTHING)
    assert set(counts) == set(SKILLS)
    assert sum(counts.values()) < 0.15 * len(asked)


def test_a_paraphrase_is_new_but_of_known_words() -> None:
    assert set(PARAPHRASES) == set(WORDINGS)
    known = vocabulary()
    for kind, text in PARAPHRASES.items():
        assert text not in WORDINGS[kind]
        assert words_of(text) <= known
    truth = generate_clip(941_000_009)[1]
    plain = ask(truth, np.random.default_rng(1), paraphrase=False)
    other = ask(truth, np.random.default_rng(1), paraphrase=True)
    assert [question.answer for question in plain] == [question.answer for question in other]
    assert all(first.text != second.text for first, second in zip(plain, other, strict=True))
