"""Who answers the questions of the benchmark: a model with a method, or a control that needs none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from earlytom.errors import MethodError, ModelError
from earlytom.runtime import compress
from earlytom.testbed.evaluate import GREY

if TYPE_CHECKING:
    from torch import nn

    from earlytom.eval.tasks import Task
    from earlytom.methods.base import Method
    from earlytom.runtime.pipeline import VideoQA

__all__ = ["Answerer", "ModelAnswerer", "Reply", "check_fit", "weights_fingerprint"]

_MAX_NEW_TOKENS = 8
_SAMPLES = 16
_GREY_SIDE = 96


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What somebody said about a clip.

    Attributes:
        texts: one a question.
        visual_tokens: tokens of the clip that went into the language model.
        frames_left: frames that came out of the vision encoder.
        ttft: seconds to the first token of the first question, asked alone; ``None`` where nothing was timed.
    """

    texts: tuple[str, ...]
    visual_tokens: int
    frames_left: int
    ttft: float | None


class Answerer(Protocol):
    """Answers the questions about one clip."""

    def answer(self, task: Task) -> Reply:
        """Answer every question of ``task``, in order."""


class ModelAnswerer:
    """A model with a compression method. The clip is encoded for the first question, and once for all the others.

    Args:
        qa: the model.
        method: the method.

    Raises:
        MethodError: the method does not fit the model.
    """

    def __init__(self, qa: VideoQA, method: Method) -> None:
        with compress(qa.model, method):
            pass  # entering checks that the two fit, as far as can be told without a clip
        self._qa, self._method, self._warm = qa, method, False

    def answer(self, task: Task) -> Reply:
        """Answer every question; the first one alone, so that its time is that of a single question."""
        first, *others = [question.text for question in task.questions]
        if not self._warm:
            self._qa.ask(task.video, first, method=self._method, max_new_tokens=_MAX_NEW_TOKENS)
            self._warm = True
        alone = self._qa.ask(task.video, first, method=self._method, max_new_tokens=_MAX_NEW_TOKENS)
        together = self._qa.ask_all(task.video, others, method=self._method, max_new_tokens=_MAX_NEW_TOKENS)
        return Reply(
            texts=(alone.text, *(answer.text for answer in together)),
            visual_tokens=alone.visual_tokens,
            frames_left=alone.frames_left,
            ttft=alone.ttft,
        )


def check_fit(qa: VideoQA, method: Method) -> None:
    """Try a method on one grey clip, before anything long is started.

    Raises:
        MethodError: the method does not fit the model.
    """
    grey = np.full((qa.default_frames, _GREY_SIDE, _GREY_SIDE, 3), GREY, dtype=np.uint8)
    try:
        qa.ask(grey, "What?", method=method, max_new_tokens=1)
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
