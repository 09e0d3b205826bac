"""Controls: answerers and changes of a task whose score is known beforehand. They show that the benchmark measures.

The truth itself scores 1; a constant answer scores no more than chance; a model that sees grey frames, or a clip
without its brief event, scores no more than chance at what cannot be seen any more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from earlytom.eval.answering import Answerer, Reply
from earlytom.eval.tasks import Task
from earlytom.testbed.evaluate import GREY

__all__ = ["Changed", "Constant", "Oracle", "blind", "without_brief"]


class Oracle:
    """Answers from the generator's truth."""

    def answer(self, task: Task) -> Reply:
        """The right answer to every question."""
        return _untimed(task, tuple(question.answer for question in task.questions))


@dataclasses.dataclass(frozen=True)
class Constant:
    """Gives the same answer to every question."""

    text: str

    def answer(self, task: Task) -> Reply:
        """The answer, as often as there are questions."""
        return _untimed(task, (self.text,) * len(task.questions))


@dataclasses.dataclass(frozen=True)
class Changed:
    """Shows another answerer a changed clip."""

    answerer: Answerer
    change: Callable[[Task], Task]

    def answer(self, task: Task) -> Reply:
        """What the other one says about the changed clip."""
        return self.answerer.answer(self.change(task))


def blind(task: Task) -> Task:
    """Every frame grey."""
    return _with_frames(task, np.full_like(task.video.frames, GREY))


def without_brief(task: Task) -> Task:
    """Frames that show a brief object replaced by the nearest frame without one, of the same scene where there is one.

    A clip whose every frame shows one comes back as it is.
    """
    truth = task.truth
    brief = np.array([item.brief for item in truth.objects], dtype=np.bool_)
    shown = np.asarray(truth.visible[:, brief].any(axis=1))
    clean = np.flatnonzero(~shown)
    if clean.size == 0:
        return task
    frames = np.arange(len(shown))
    distance = np.abs(frames[:, None] - clean[None])
    elsewhere = truth.scene[:, None] != truth.scene[clean][None]
    nearest = clean[(distance + len(frames) * elsewhere).argmin(axis=1)]
    return _with_frames(task, task.video.frames[nearest])


def _with_frames(task: Task, frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Task:
    return dataclasses.replace(task, video=dataclasses.replace(task.video, frames=frames))


def _untimed(task: Task, texts: tuple[str, ...]) -> Reply:
    return Reply(texts=texts, visual_tokens=0, tokens_per_layer=0.0, frames_left=len(task.video.frames), ttft=None)
