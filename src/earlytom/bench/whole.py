"""A whole benchmark as one document: subjects measured, and what they were measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from earlytom.bench.environment import describe_environment, machine_load
from earlytom.bench.results import BenchResults
from earlytom.bench.running import run_bench
from earlytom.models import open_model
from earlytom.runtime.devices import input_device
from earlytom.video import Sampling, read_video

if TYPE_CHECKING:
    from earlytom.bench.clips import ClipSettings
    from earlytom.bench.subjects import Subject
    from earlytom.runtime.pipeline import VideoQA

__all__ = ["Clip", "describe_clip", "describe_model", "measure_whole"]


_GONE_BY = ("repeats", "warm_ups", "new_tokens", "near", "max_tokens")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video file, and the settings that it was made with, where it was."""

    path: Path
    made: ClipSettings | None = None


def describe_model(model: nn.Module, name: str, weights: str) -> dict[str, Any]:
    """A model as plain data for JSON.

    Args:
        model: a supported stock model.
        name: that it is known by.
        weights: where they come from, in words.

    Raises:
        ModelError: the model is not supported.
    """
    host = open_model(model)
    return {
        "name": name,
        "family": host.config.model_type,
        "weights": weights,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "vision_depth": host.shape.depth,
        "language_depth": len(host.language.layers),
    }


def describe_clip(
    clip: Clip, redundant_share: float | None = None, deviation: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """A video as plain data for JSON; of a file only its name is told.

    Args:
        clip: the video.
        redundant_share: as measured on its sampled frames; ``None`` where it was not.
        deviation: mean and largest seconds that they are off those asked for; ``None`` where these were taken.

    Raises:
        VideoError: the video cannot be read.
    """
    video = read_video(clip.path, Sampling(frames=1))
    height, width = video.frames.shape[1:3]
    return {
        "kind": "file" if clip.made is None else "generated",
        "name": clip.path.name if clip.made is None else clip.made.name,
        "width": width,
        "height": height,
        "seconds": None if video.duration is None else round(video.duration, 3),
        "redundant_share": None if redundant_share is None else round(redundant_share, 4),
        "redundant_share_asked": None if clip.made is None else clip.made.redundant_share,
        "deviation": None if deviation is None else dict(deviation),
    }


def measure_whole(
    qa: VideoQA,
    clip: Clip,
    subjects: Sequence[Subject],
    *,
    question: str,
    settings: Mapping[str, Any],
    model: Mapping[str, Any],
    on_run: Callable[[str], object] = lambda name: None,
) -> BenchResults:
    """Measure all subjects, and describe what they were measured on.

    Args:
        qa: the model.
        clip: what it looks at.
        subjects: who is measured.
        question: asked about the video.
        settings: ``repeats``, and ``warm_ups``, ``new_tokens``, ``near`` and ``max_tokens`` where given, are gone by
            (see `run_bench`); the others are only told.
        model: as `describe_model` gives it.
        on_run: see `run_bench`.

    Raises:
        EarlyTomError: a number is not allowed.
        VideoError: the video cannot be read.
    """
    environment = describe_environment(input_device(qa.model))
    described = describe_clip(clip)  # nothing may fail any more once everything has been measured
    numbers = {name: settings[name] for name in _GONE_BY if name in settings}
    found = run_bench(qa, clip.path, subjects, question=question, on_run=on_run, **numbers)
    return BenchResults(
        environment=environment | {"load_at_end": machine_load()},
        settings={**settings, "question_tokens": found.question_tokens},
        model=model,
        clip=described | {"redundant_share": round(found.redundant_share, 4), "deviation": found.deviation},
        results=found.results,
        left_out=found.left_out,
    )
