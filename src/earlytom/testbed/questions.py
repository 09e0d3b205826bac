"""Questions about generated clips and their answers, both derived from the truth.

Seven skills: colour, shape, direction, count, order (across a cut), brief (an object seen for one or two frames only)
and position. Every question is asked in several wordings; every answer is one or two words.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from earlytom.testbed.scene_types import (
    COLOURS,
    DIRECTIONS,
    MINIMUM_TRAVEL_UNITS,
    PICTURE_UNITS,
    SHAPES,
    SceneObject,
    Truth,
)

SKILLS = ("colour", "shape", "direction", "count", "order", "brief", "position")
NUMBERS = ("one", "two", "three")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
WORDINGS: dict[str, tuple[str, ...]] = {
    "colour": (
        "What colour is the {shape}?",
        "Which colour does the {shape} have?",
        "What is the colour of the {shape}?",
        "Name the colour of the {shape}.",
    ),
    "shape": (
        "What shape is the {colour} object?",
        "Which shape does the {colour} object have?",
        "What is the shape of the {colour} object?",
        "Name the shape of the {colour} object.",
    ),
    "direction": (
        "In which direction does the {object} move?",
        "Which way does the {object} go?",
        "In what direction is the {object} moving?",
        "Where does the {object} move?",
    ),
    "count": (
        "How many objects are there?",
        "How many objects can be seen?",
        "What is the number of objects?",
        "How many objects are in the video?",
    ),
    "count_scene": (
        "How many objects are in the {scene} scene?",
        "How many objects can be seen in the {scene} scene?",
        "What is the number of objects in the {scene} scene?",
    ),
    "order_first": (
        "Which object appears first, the {one} or the {other}?",
        "Which object comes first, the {one} or the {other}?",
        "What is seen earlier, the {one} or the {other}?",
    ),
    "order_last": (
        "Which object appears last, the {one} or the {other}?",
        "Which object comes last, the {one} or the {other}?",
        "What is seen later, the {one} or the {other}?",
    ),
    "order_scene": (
        "Which object is in the {scene} scene?",
        "What can be seen in the {scene} scene?",
        "What does the {scene} scene show?",
    ),
    "brief": (
        "What appears briefly?",
        "Which object appears only briefly?",
        "Which object is seen only for a moment?",
        "What can be seen for a short time?",
    ),
    "position": (
        "Where is the {object}?",
        "In which corner is the {object}?",
        "In which part of the picture is the {object}?",
        "Where can the {object} be seen?",
    ),
}
RESERVED_WORDS = [
    "a",
    "an",
    "and",
    "answer",
    "b",
    "below",
    "c",
    "choose",
    "correct",
    "d",
    "describe",
    "do",
    "does",
    "end",
    "from",
    "has",
    "it",
    "letter",
    "no",
    "none",
    "not",
    "now",
    "of",
    "on",
    "option",
    "options",
    "picture",
    "please",
    "question",
    "same",
    "start",
    "still",
    "that",
    "then",
    "these",
    "thing",
    "this",
    "to",
    "video",
    "was",
    "were",
    "when",
    "who",
    "with",
    "word",
    "yes",
    "you",
    "your",
    "four",
    "five",
    "six",
]
FILLER_WORDS = ("the", "is", "of", "in", "does", "are", "can", "be", "have", "for", "a", "what", "which", "object")
_ORDINALS = ("first", "second", "third")
_CORNER_MARGIN_UNITS = 8.0
_MIDDLE = PICTURE_UNITS / 2.0


@dataclass(frozen=True)
class Question:
    """One question, its answer in lower case, and the skill that it needs."""

    text: str
    answer: str
    skill: str


def ask(
    truth: Truth, generator: np.random.Generator, per_skill: int = 2, more: Mapping[str, int] | None = None
) -> list[Question]:
    """Return questions that the frames of ``truth`` can answer, in random order.

    Every skill is asked up to ``per_skill`` times, or as often as ``more`` says for it.
    """
    questions: list[Question] = []
    for skill in SKILLS:
        candidates = _MAKERS[skill](truth, generator)
        chosen = generator.permutation(len(candidates))[: (more or {}).get(skill, per_skill)]
        questions.extend(candidates[int(index)] for index in chosen)
    return [questions[int(index)] for index in generator.permutation(len(questions))]


def comparison(text: str) -> int | None:
    """Return what a comparison of two objects asks for: 0 the first, 1 the last; None for other questions."""
    if " or " not in text:
        return None
    return int(" last" in text or " later" in text)


def vocabulary() -> list[str]:
    """Return every word that questions and answers use, and some reserved ones, sorted."""
    words: set[str] = set(RESERVED_WORDS)
    texts = [re.sub(r"\{\w+\}", " ", wording) for group in WORDINGS.values() for wording in group]
    for text in [*texts, *COLOURS, *SHAPES, *DIRECTIONS, *NUMBERS, *CORNERS, *_ORDINALS]:
        words.update(re.findall(r"\w+|[^\w\s]", text.lower()))
    return sorted(words)


def _wording(kind: str, generator: np.random.Generator, **parts: str) -> str:
    """Pick a wording of ``kind`` and fill it in."""
    choices = WORDINGS[kind]
    return choices[int(generator.integers(len(choices)))].format(**parts)


def _present(truth: Truth) -> list[int]:
    """Return the numbers of the objects that at least one frame shows."""
    return [int(column) for column in np.flatnonzero(truth.visible.any(axis=0))]


def _reference(truth: Truth, column: int, generator: np.random.Generator) -> str:
    """Return words that single out one object: colour and shape, colour only, or the shape if it is the only one."""
    item = truth.objects[column]
    shapes = [truth.objects[other].shape for other in _present(truth)]
    choice = generator.random()
    if choice < 0.2 and shapes.count(item.shape) == 1:
        return item.shape
    return f"{item.colour} object" if choice < 0.45 else item.name


def _scene_words(truth: Truth, scene: int, generator: np.random.Generator) -> str:
    """Return ``first``, ``second``, ``third`` or ``last``."""
    is_last = scene == int(truth.scene[-1])
    return "last" if is_last and generator.random() < 0.5 else _ORDINALS[scene]


def _objects_by_scene(truth: Truth) -> list[list[int]]:
    """Return the objects that the frames of each scene show."""
    scenes = range(int(truth.scene[-1]) + 1)
    shown = [truth.visible[truth.scene == scene].any(axis=0) for scene in scenes]
    return [[int(column) for column in np.flatnonzero(row)] for row in shown]


def _colour_questions(truth: Truth, generator: np.random.Generator) -> list[Question]:
    """Ask for the colour of every shape that occurs once."""
    present = [truth.objects[column] for column in _present(truth)]
    shapes = [item.shape for item in present]
    return [
        Question(_wording("colour", generator, shape=item.shape), item.colour, "colour")
        for item in present
        if shapes.count(item.shape) == 1
    ]


def _shape_questions(truth: Truth, generator: np.random.Generator) -> list[Question]:
    """Ask for the shape of every object; colours are never used twice."""
    present = [truth.objects[column] for column in _present(truth)]
    return [Question(_wording("shape", generator, colour=item.colour), item.shape, "shape") for item in present]


def _direction_questions(truth: Truth, generator: np.random.Generator) -> list[Question]:
    """Ask where the objects that travel far enough in these frames move."""
    questions = []
    for column in _present(truth):
        direction = truth.objects[column].direction
        centres = truth.centres[truth.visible[:, column], column]
        travelled = float(np.ptp(centres, axis=0).max())
        if direction is not None and travelled >= MINIMUM_TRAVEL_UNITS:
            text = _wording("direction", generator, object=_reference(truth, column, generator))
            questions.append(Question(text, direction, "direction"))
    return questions


def _count_questions(truth: Truth, generator: np.random.Generator) -> list[Question]:
    """Ask for the number of objects of a clip of one scene, or of each scene; scenes with a brief object are left out.

    A single frame counts what it shows.
    """
    questions = []
    by_scene = _objects_by_scene(truth)
    for scene, columns in enumerate(by_scene):
        brief = any(truth.objects[column].brief for column in columns)
        if not columns or (brief and len(truth.scene) > 1):
            continue
        if len(by_scene) == 1:
            text = _wording("count", generator)
        else:
            text = _wording("count_scene", generator, scene=_scene_words(truth, scene, generator))
        questions.append(Question(text, NUMBERS[len(columns) - 1], "count"))
    return questions


def _order_questions(truth: Truth, generator: np.random.Generator) -> list[Question]:
    """Ask which of two objects of different scenes comes first or last, and what the only object of a scene is."""
    by_scene = _objects_by_scene(truth)
    if len(by_scene) < 2:
        return []
    questions = []
    for scene, columns in enumerate(by_scene):
        if len(columns) == 1:
            text = _wording("order_scene", generator, scene=_scene_words(truth, scene, generator))
            questions.append(Question(text, truth.objects[columns[0]].name, "order"))
        for later in by_scene[scene + 1 :]:
            if columns and later:
                first = truth.objects[int(generator.choice(columns))]
                last = truth.objects[int(generator.choice(later))]
                questions += _compare(first, last, generator)
    return questions


def _compare(first: SceneObject, last: SceneObject, generator: np.random.Generator) -> list[Question]:
    """Ask which of two objects comes first, and which comes last."""
    questions = []
    for kind, answer in (("order_first", first.name), ("order_last", last.name)):
        names = [first.name, last.name]
        one, other = names if generator.random() < 0.5 else names[::-1]
        questions.append(Question(_wording(kind, generator, one=one, other=other), answer, "order"))
    return questions


def _brief_questions(truth: Truth, generator: np.random.Generator) -> list[Question]:
    """Ask for the object that is gone again while its scene goes on."""
    for column in _present(truth):
        if not truth.objects[column].brief:
            continue
        shown = truth.visible[:, column]
        scene = truth.scene[shown][0]
        if int((truth.scene == scene).sum()) > int(shown.sum()):
            return [Question(_wording("brief", generator), truth.objects[column].name, "brief")]
    return []


def _position_questions(truth: Truth, generator: np.random.Generator) -> list[Question]:
    """Ask for the corner of objects that stay well inside one quarter of the picture."""
    questions = []
    for column in _present(truth):
        if truth.objects[column].direction is not None and len(truth.scene) > 1:
            continue
        offset = truth.centres[truth.visible[:, column], column] - _MIDDLE
        if float(np.abs(offset).min()) < _CORNER_MARGIN_UNITS:
            continue
        corner = CORNERS[2 * int(offset[0, 1] > 0) + int(offset[0, 0] > 0)]
        text = _wording("position", generator, object=_reference(truth, column, generator))
        questions.append(Question(text, corner, "position"))
    return questions


_MAKERS: dict[str, Callable[[Truth, np.random.Generator], list[Question]]] = {
    "colour": _colour_questions,
    "shape": _shape_questions,
    "direction": _direction_questions,
    "count": _count_questions,
    "order": _order_questions,
    "brief": _brief_questions,
    "position": _position_questions,
}
