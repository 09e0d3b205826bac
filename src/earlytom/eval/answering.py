"""Who answers the questions of the benchmark: a model with a method, or a control that needs none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypedDict

import numpy as np
import torch

from earlytom.errors import MethodError, ModelError
from earlytom.runtime import compress
from earlytom.testbed.evaluate import GREY

if TYPE_CHECKING:
    from torch import nn

    from earlytom.eval.tasks import Task
    from earlytom.methods.base import Method
    from earlytom.runtime.pipeline import Answer, VideoQA

__all__ = ["Answerer", "ModelAnswerer", "Reply", "check_fit", "weights_fingerprint"]

_MAX_NEW_TOKENS = 8
_DIGITS = 3
_SAMPLES = 16
_GREY_SIDE = 96


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What somebody said about a clip.

    Attributes:
        texts: one a question.
        visual_tokens: tokens of the clip that went into the language model.
        tokens_per_layer: of these, what a layer of the language model worked on, mean over its layers.
        frames_left: of the sampled frames, how many came out of the vision encoder (`earlytom.Answer.frames_left`).
        ttft: seconds to the first token of a question asked alone; ``None`` where nothing was timed.
    """

    texts: tuple[str, ...]
    visual_tokens: int
    tokens_per_layer: float
    frames_left: int
    ttft: float | None


class _Limits(TypedDict):
    max_tokens: int | None
    max_new_tokens: int


class Answerer(Protocol):
    """Answers the questions about one clip."""

    def answer(self, task: Task) -> Reply:
        """Answer every question of ``task``, in order."""


class ModelAnswerer:
    """A model with a compression method. A clip is encoded once for all its questions.

    Of a timed clip the first question is asked alone, so that its time is that of a single question.

    Args:
        qa: the model.
        method: the method.
        max_tokens: most visual tokens of a clip before it is compressed.

    Raises:
        MethodError: the method does not fit the model.
    """

    def __init__(self, qa: VideoQA, method: Method, max_tokens: int | None = None) -> None:
        with compress(qa.model, method):
            pass  # entering checks that the two fit, as far as can be told without a clip
        self._qa, self._method, self._warm = qa, method, False
        self._limits: _Limits = {"max_tokens": max_tokens, "max_new_tokens": _MAX_NEW_TOKENS}

    def answer(self, task: Task) -> Reply:
        """Answer every question about ``task``'s clip."""
        questions = [question.text for question in task.questions]
        alone = [self._ask_alone(task, questions[0])] if task.timed else []
        together = self._qa.ask_all(task.video, questions[len(alone) :], method=self._method, **self._limits)
        answers = [*alone, *together]
        call = answers[0].trace.calls[-1]
        return Reply(
            texts=tuple(answer.text for answer in answers),
            visual_tokens=answers[0].visual_tokens,
            tokens_per_layer=round(answers[0].visual_tokens * call.layer_share, _DIGITS),
            frames_left=answers[0].frames_left,
            ttft=alone[0].ttft if alone else None,
        )

    def _ask_alone(self, task: Task, question: str) -> Answer:
        """Answer one question; before the first of all once more, so that what is timed is warm."""
        for _ in range(1 if self._warm else 2):
            answer = self._qa.ask(task.video, question, method=self._method, **self._limits)
        self._warm = True
        return answer


def check_fit(qa: VideoQA, method: Method, *, max_tokens: int | None = None) -> None:
    """Try a method on one grey clip, before anything long is started.

    Raises:
        MethodError: the method does not fit the model.
    """
    grey = np.full((qa.default_frames, _GREY_SIDE, _GREY_SIDE, 3), GREY, dtype=np.uint8)
    try:
        qa.ask(grey, "What?", method=method, max_tokens=max_tokens, max_new_tokens=1)
    except ModelError as error:
        raise MethodError(f"{method.name} does not fit this model: {error}") from error


def weights_fingerprint(model: nn.Module) -> str:
    """A short text that tells one set of weights from another, from a few values of every parameter."""
    digest = hashlib.sha256()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            digest.update(f"{name}{tuple(parameter.shape)}".encode())
            if not parameter.is_meta:
                flat = parameter.flatten()
                taken = flat[:: max(1, flat.numel() // _SAMPLES)]
                digest.update(taken.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
