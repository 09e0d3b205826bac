"""Questions about generated clips and their answers, both derived from the truth.

Seven skills: colour, shape, direction, count, order (across a cut), brief (an object seen for one or two frames only)
and position. Every question is asked in several wordings; every answer is one or two words, "none" where the video does
not show what is asked for. ``earlytom.testbed.choices`` turns a question into one with options and letters.
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
NOTHING = "none"
WORDINGS: dict[str, tuple[str, ...]] = {
    "colour": (
        "What colour is the {shape}?",
        "Which colour does the {shape} have?",
        "What is the colour of the {shape}?",
        "Name the colour of the {shape}.",
        "The {shape} is of which colour?",
        "What colour does the {shape} in the video have?",
    ),
    "shape": (
        "What shape is the {colour} object?",
        "Which shape does the {colour} object have?",
        "What is the shape of the {colour} object?",
        "Name the shape of the {colour} object.",
        "The {colour} object has which shape?",
        "What shape does the {colour} thing in the video have?",
    ),
    "direction": (
        "In which direction does the {object} move?",
        "Which way does the {object} go?",
        "In what direction is the {object} moving?",
        "Where does the {object} move?",
        "What is the direction of the {object}?",
        "Name the direction in which the {object} moves.",
    ),
    "count": (
        "How many objects are there?",
        "How many objects can be seen?",
        "What is the number of objects?",
        "How many objects are in the video?",
        "How many things does the video show?",
        "Name the number of objects in the video.",
    ),
    "count_scene": (
        "How many objects are in the {scene} scene?",
        "How many objects can be seen in the {scene} scene?",
        "What is the number of objects in the {scene} scene?",
        "How many objects does the {scene} scene show?",
    ),
    "order_first": (
        "Which object appears first, the {one} or the {other}?",
        "Which object comes first, the {one} or the {other}?",
        "What is seen earlier, the {one} or the {other}?",
        "What appears first, the {one} or the {other}?",
    ),
    "order_last": (
        "Which object appears last, the {one} or the {other}?",
        "Which object comes last, the {one} or the {other}?",
        "What is seen later, the {one} or the {other}?",
        "What appears last, the {one} or the {other}?",
    ),
    "order_scene": (
        "Which object is in the {scene} scene?",
        "What can be seen in the {scene} scene?",
        "What does the {scene} scene show?",
        "Name the object in the {scene} scene.",
    ),
    "brief": (
        "What appears briefly?",
        "Which object appears only briefly?",
        "Which object is seen only for a moment?",
        "What can be seen for a short time?",
        "Name the object that appears only for a moment.",
        "What is there only for a short time?",
    ),
    "position": (
        "Where is the {object}?",
        "In which corner is the {object}?",
        "In which part of the picture is the {object}?",
        "Where can the {object} be seen?",
        "What is the position of the {object}?",
        "Name the corner in which the {object} is.",
    ),
}
PARAPHRASES: dict[str, str] = {
    "colour": "Which is the colour of the {shape} in the video?",
    "shape": "Which is the shape of the {colour} thing?",
    "direction": "In which way is the {object} moving?",
    "count": "What number of objects can be seen in the video?",
    "count_scene": "In the {scene} scene, how many objects are there?",
    "order_first": "Which comes earlier, the {one} or the {other}?",
    "order_last": "Which comes later, the {one} or the {other}?",
    "order_scene": "In the {scene} scene, which object can be seen?",
    "brief": "Which thing is seen for a moment only?",
    "position": "In what part of the picture can the {object} be seen?",
}
"""Wordings that training never uses, of words that it does use: they show whether a paraphrase breaks the model."""
FILLER_WORDS = ("the", "is", "of", "in", "does", "are", "can", "be", "have", "for", "a", "what", "which", "object")
_ORDINALS = ("first", "second", "third")
_CORNER_MARGIN_UNITS = 8.0
_MIDDLE = PICTURE_UNITS / 2.0


@dataclass(frozen=True)
class Question:
    """One question and its answer.

    Attributes:
        text: What is asked, with the options if it has any.
        answer: The right answer in lower case; a letter if ``letters``.
        skill: The skill that it needs.
        letters: Whether options are given, of which the answer names one by its letter.
        options: The options, in the order of their letters; empty for a free answer.
        compares: 0 where the first of two objects is asked for, 1 for the last, None for other questions.
    """

    text: str
    answer: str
    skill: str
    letters: bool = False
    options: tuple[str, ...] = ()
    compares: int | None = None

    @property
    def guess(self) -> float:
        """How often a guess among the answers that the question itself names is right; 0 where it names none."""
        if self.letters:
            return 1.0 / len(self.options)
        return 0.0 if self.compares is None else 0.5


def ask(
    truth: Truth,
    generator: np.random.Generator,
    per_skill: int = 2,
    more: Mapping[str, int] | None = None,
    absent_share: float = 0.12,
    paraphrase: bool = False,
) -> list[Question]:
    """Return questions that the frames of ``truth`` can answer, in random order.

    Args:
        truth: What the frames show.
        generator: Where chance comes from.
        per_skill: How often every skill is asked, at most.
        more: Another number for some skills.
        absent_share: How likely each skill is to get one more question, after something that is not there.
        paraphrase: Whether to word them as training never does.
    """
    asker = _Asker(truth, generator, paraphrase)
    questions: list[Question] = []
    for skill, make in _MAKERS.items():
        candidates = make(asker)
        chosen = generator.permutation(len(candidates))[: (more or {}).get(skill, per_skill)]
        questions.extend(candidates[int(index)] for index in chosen)
        if generator.random() < absent_share:
            questions.extend(asker.absent(skill))
    return [questions[int(index)] for index in generator.permutation(len(questions))]


def words_of(*texts: str) -> set[str]:
    """Return the words and punctuation marks of texts with placeholders, in lower case."""
    words: set[str] = set()
    for text in texts:
        words.update(re.findall(r"\w+|[^\w\s]", re.sub(r"\{\w+\}", " ", text).lower()))
    return words


def vocabulary() -> set[str]:
    """Return every word that questions and free answers use."""
    wordings = [wording for group in WORDINGS.values() for wording in group]
    return words_of(*wordings, *COLOURS, *SHAPES, *DIRECTIONS, *NUMBERS, *CORNERS, *_ORDINALS, NOTHING)


class _Asker:
    """Words questions about one clip."""

    def __init__(self, truth: Truth, generator: np.random.Generator, paraphrase: bool) -> None:
        """Take the clip's truth, the source of chance, and whether to use the wordings kept from training."""
        self.truth, self.generator, self._paraphrase = truth, generator, paraphrase
        self.present = [int(column) for column in np.flatnonzero(truth.visible.any(axis=0))]
        self.objects = [truth.objects[column] for column in self.present]
        self.scenes = int(truth.scene[-1]) + 1

    def wording(self, kind: str, **parts: str) -> str:
        """Pick a wording of ``kind`` and fill it in."""
        choices = WORDINGS[kind]
        text = choices[int(self.generator.integers(len(choices)))]
        return (PARAPHRASES[kind] if self._paraphrase else text).format(**parts)

    def reference(self, column: int) -> str:
        """Return words that single out one object: colour and shape, colour only, or the shape if no other has it."""
        item = self.truth.objects[column]
        shapes = [other.shape for other in self.objects]
        choice = self.generator.random()
        if choice < 0.2 and shapes.count(item.shape) == 1:
            return item.shape
        return f"{item.colour} object" if choice < 0.45 else item.name

    def has_words(self, scene: int) -> bool:
        """Tell whether there is a word for a scene: it is one of the first three, or the last."""
        return scene < len(_ORDINALS) or scene == self.scenes - 1

    def scene_words(self, scene: int) -> str:
        """Return ``first``, ``second``, ``third`` or ``last``."""
        last = scene == self.scenes - 1 and self.generator.random() < 0.5
        return "last" if last or scene >= len(_ORDINALS) else _ORDINALS[scene]

    def objects_by_scene(self) -> list[list[int]]:
        """Return the objects that the frames of each scene show."""
        truth = self.truth
        shown = [truth.visible[truth.scene == scene].any(axis=0) for scene in range(self.scenes)]
        return [[int(column) for column in np.flatnonzero(row)] for row in shown]

    def absent(self, skill: str) -> list[Question]:
        """Return one question of ``skill`` after something that is not there, or nothing if everything is."""
        colours = sorted(set(COLOURS) - {item.colour for item in self.objects})
        shapes = sorted(set(SHAPES) - {item.shape for item in self.objects})
        text = None
        if skill == "colour" and shapes:
            text = self.wording("colour", shape=str(self.generator.choice(shapes)))
        elif skill == "shape" and colours:
            text = self.wording("shape", colour=str(self.generator.choice(colours)))
        elif skill in ("direction", "position") and colours and (skill == "position" or len(self.truth.scene) > 1):
            shape = "object" if self.generator.random() < 0.3 else str(self.generator.choice(SHAPES))
            text = self.wording(skill, object=f"{self.generator.choice(colours)} {shape}")
        elif skill in ("count", "order") and 1 < self.scenes < len(_ORDINALS):
            text = self.wording(f"{skill}_scene", scene=_ORDINALS[self.scenes])
        elif skill == "brief" and len(self.truth.scene) > 1 and not any(item.brief for item in self.objects):
            text = self.wording("brief")
        return [] if text is None else [Question(text, NOTHING, skill)]


def _colour_questions(asker: _Asker) -> list[Question]:
    """Ask for the colour of every shape that occurs once."""
    shapes = [item.shape for item in asker.objects]
    return [
        Question(asker.wording("colour", shape=item.shape), item.colour, "colour")
        for item in asker.objects
        if shapes.count(item.shape) == 1
    ]


def _shape_questions(asker: _Asker) -> list[Question]:
    """Ask for the shape of every object; colours are never used twice."""
    return [Question(asker.wording("shape", colour=item.colour), item.shape, "shape") for item in asker.objects]


def _direction_questions(asker: _Asker) -> list[Question]:
    """Ask where the objects that travel far enough in these frames move."""
    questions = []
    for column in asker.present:
        direction = asker.truth.objects[column].direction
        centres = asker.truth.centres[asker.truth.visible[:, column], column]
        travelled = float(np.ptp(centres, axis=0).max())
        if direction is not None and travelled >= MINIMUM_TRAVEL_UNITS:
            text = asker.wording("direction", object=asker.reference(column))
            questions.append(Question(text, direction, "direction"))
    return questions


def _count_questions(asker: _Asker) -> list[Question]:
    """Ask for the number of objects of a clip of one scene, or of each scene; scenes with a brief object are left out.

    A single frame counts what it shows.
    """
    questions = []
    by_scene = asker.objects_by_scene()
    for scene, columns in enumerate(by_scene):
        brief = any(asker.truth.objects[column].brief for column in columns)
        if not columns or (brief and len(asker.truth.scene) > 1) or not asker.has_words(scene):
            continue
        if len(by_scene) == 1:
            text = asker.wording("count")
        else:
            text = asker.wording("count_scene", scene=asker.scene_words(scene))
        questions.append(Question(text, NUMBERS[len(columns) - 1], "count"))
    return questions


def _order_questions(asker: _Asker) -> list[Question]:
    """Ask which of two objects of different scenes comes first or last, and what the only object of a scene is."""
    by_scene = asker.objects_by_scene()
    if len(by_scene) < 2:
        return []
    objects = asker.truth.objects
    questions = []
    for scene, columns in enumerate(by_scene):
        if len(columns) == 1 and asker.has_words(scene):
            text = asker.wording("order_scene", scene=asker.scene_words(scene))
            questions.append(Question(text, objects[columns[0]].name, "order"))
        for later in by_scene[scene + 1 :]:
            if columns and later:
                first = objects[int(asker.generator.choice(columns))]
                last = objects[int(asker.generator.choice(later))]
                questions += _compare(first, last, asker)
    return questions


def _compare(first: SceneObject, last: SceneObject, asker: _Asker) -> list[Question]:
    """Ask which of two objects comes first, and which comes last."""
    questions = []
    for number, (kind, answer) in enumerate((("order_first", first.name), ("order_last", last.name))):
        names = [first.name, last.name]
        one, other = names if asker.generator.random() < 0.5 else names[::-1]
        questions.append(Question(asker.wording(kind, one=one, other=other), answer, "order", compares=number))
    return questions


def _brief_questions(asker: _Asker) -> list[Question]:
    """Ask for the object that is gone again while its scene goes on."""
    truth = asker.truth
    for column in asker.present:
        if not truth.objects[column].brief:
            continue
        shown = truth.visible[:, column]
        scene = truth.scene[shown][0]
        if int((truth.scene == scene).sum()) > int(shown.sum()):
            return [Question(asker.wording("brief"), truth.objects[column].name, "brief")]
    return []


def _position_questions(asker: _Asker) -> list[Question]:
    """Ask for the corner of objects that stay well inside one quarter of the picture."""
    questions = []
    truth = asker.truth
    for column in asker.present:
        if truth.objects[column].direction is not None and len(truth.scene) > 1:
            continue
        offset = truth.centres[truth.visible[:, column], column] - _MIDDLE
        corner = CORNERS[2 * int(offset[0, 1] > 0) + int(offset[0, 0] > 0)]
        if float(np.abs(offset).min()) < _CORNER_MARGIN_UNITS or np.ptp(np.sign(offset), axis=0).any():
            continue
        questions.append(Question(asker.wording("position", object=asker.reference(column)), corner, "position"))
    return questions


_MAKERS: dict[str, Callable[[_Asker], list[Question]]] = {
    "colour": _colour_questions,
    "shape": _shape_questions,
    "direction": _direction_questions,
    "count": _count_questions,
    "order": _order_questions,
    "brief": _brief_questions,
    "position": _position_questions,
}
