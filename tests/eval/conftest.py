"""The shipped model, loaded once, and answerers that need none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

import earlytom
from earlytom.eval.answering import Reply
from earlytom.eval.tasks import Task
from earlytom.testbed.questions import Question


@pytest.fixture(scope="session")
def qa() -> earlytom.VideoQA:
    return earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")


@dataclass
class Scripted:
    """Says what a function says about each question, and notes which clips it was asked about."""

    say: Callable[[Question], str]
    tokens: int = 100
    clips: list[int] = field(default_factory=list)

    def answer(self, task: Task) -> Reply:
        self.clips.append(task.clip)
        texts = tuple(self.say(question) for question in task.questions)
        return Reply(
            texts=texts,
            visual_tokens=self.tokens,
            tokens_per_layer=self.tokens / 2,
            frames_left=16,
            ttft=0.1 + task.clip / 1000,
        )


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted
