"""Clips and questions of the benchmark, each a pure function of its seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from earlytom.errors import EarlyTomError, shown
from earlytom.eval.rows import ANY
from earlytom.testbed.evaluate import questions_of_clip
from earlytom.testbed.questions import SKILLS, Question
from earlytom.testbed.samples import write_video
from earlytom.testbed.scene_types import PATCH_GRID, ByteArray, Truth
from earlytom.testbed.scenes import generate_clip
from earlytom.testbed.series import USUAL, find_series
from earlytom.video import Sampling, Video, read_video

__all__ = [
    "CLIPS_PER_SEED",
    "CLIPS_PER_TIMED",
    "FIRST_SEED",
    "FORMS",
    "Benchmark",
    "Form",
    "Source",
    "Task",
    "make_task",
    "picture_size",
]

Source = Literal["video", "frames"]
Form = Literal["any", "free", "letters"]

FIRST_SEED = 1_200_000_000
"""Seeds of the benchmark begin here; those of training, evaluation and samples all lie below."""
CLIPS_PER_SEED = 1_000_000
# A question asked alone costs about a third of all a clip's questions together, and a median needs no more times.
CLIPS_PER_TIMED = 4
"""Of so many clips one is timed."""
FORMS: tuple[Form, ...] = ("any", "free", "letters")
_SMALLEST, _LARGEST = 96, 384
# The file holds a frame between every two that are sampled, so that sampling has something to leave out.
_STEP = 2


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Which clips and questions there are.

    Attributes:
        seed: which series of clips; different numbers share no clip.
        source: ``"video"``: through an H.264 file; ``"frames"``: the same pictures without one.
        frames: frames that the model gets of a clip.
        size: side of the pictures in pixels, a multiple of 12.
        skills: skills that are asked for.
        form: ``"free"`` answers, ``"letters"`` (multiple choice), or ``"any"``.
        max_tokens: most visual tokens of a clip before it is compressed (`earlytom.VideoQA.ask`).
        clips_of: what clips are like, one of `earlytom.testbed.series.SERIES`.

    Raises:
        EarlyTomError: a value is not allowed.
    """

    seed: int = 0
    source: Source = "video"
    frames: int = 16
    size: int = 96
    skills: tuple[str, ...] = SKILLS
    form: Form = "any"
    max_tokens: int | None = None
    clips_of: str = USUAL

    def __post_init__(self) -> None:
        find_series(self.clips_of)
        if self.seed < 0:
            raise EarlyTomError(f"seed must be at least 0, got {self.seed}")
        if self.frames < 1:
            raise EarlyTomError(f"frames must be at least 1, got {self.frames}")
        if self.source not in ("video", "frames"):
            raise EarlyTomError(f"source must be 'video' or 'frames', got {shown(self.source)}")
        if self.form not in FORMS:
            raise EarlyTomError(f"form must be one of {', '.join(FORMS)}, got {shown(self.form)}")
        unknown = [skill for skill in self.skills if skill not in SKILLS]
        if unknown or not self.skills:
            raise EarlyTomError(f"skills must be some of {', '.join(SKILLS)}, got {', '.join(unknown) or 'none'}")

    def clip_seed(self, clip: int) -> int:
        """The seed of a clip, by its number from 0. Raises `EarlyTomError` beyond the last one."""
        if not 0 <= clip < CLIPS_PER_SEED:
            raise EarlyTomError(f"clip must be from 0 to {CLIPS_PER_SEED - 1}, got {clip}")
        return FIRST_SEED + self.seed * CLIPS_PER_SEED + clip

    def questions(self, clip: int) -> tuple[Question, ...]:
        """What is asked about a clip; may be nothing where skills or form are restricted."""
        asked = questions_of_clip(self.clip_seed(clip), series=find_series(self.clips_of))[1]
        return tuple(
            question
            for question in asked
            if question.skill in self.skills and self.form in (ANY, "letters" if question.letters else "free")
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A clip, the questions about it, and the truth of its frames (`earlytom.testbed.scene_types.Truth`)."""

    clip: int
    seed: int
    video: Video
    truth: Truth
    questions: tuple[Question, ...]

    @property
    def timed(self) -> bool:
        """Whether the time to the first token is taken on this clip."""
        return self.clip % CLIPS_PER_TIMED == 0


def make_task(benchmark: Benchmark, clip: int) -> Task | None:
    """Draw a clip and its questions; ``None`` when there is nothing to ask about it.

    The questions are about what as many frames show as the series has slots (16 in the usual one), whatever number the
    model gets.
    """
    questions = benchmark.questions(clip)
    if not questions:
        return None
    seed, sampling = benchmark.clip_seed(clip), Sampling(frames=benchmark.frames)
    count, series = _STEP * (benchmark.frames - 1) + 1, find_series(benchmark.clips_of)
    frames, truth = generate_clip(seed, count, benchmark.size, series=series)
    video = _through_file(frames, sampling) if benchmark.source == "video" else read_video(frames, sampling)
    return Task(clip=clip, seed=seed, video=video, truth=truth.select(video.indices), questions=questions)


def picture_size(processor: Any) -> int:
    """A side in pixels, 96 to 384, that suits a processor: that of the frames it hands to the model.

    Where it is not fixed, the largest square it hands on. Drawing larger pictures than the model gets to see costs time
    only.
    """
    size = getattr(processor.video_processor, "size", None)
    height, most = _field(size, "height"), _field(size, "longest_edge")
    # Processors that choose the size by the video's own count all pixels of a frame there, not a side.
    side = height or (math.isqrt(most) if most else _LARGEST)
    wanted = min(max(side, _SMALLEST), _LARGEST)
    return wanted - wanted % PATCH_GRID


def _field(size: Any, name: str) -> int | None:
    """One number of a processor's ``size``, which is a mapping or an object."""
    value = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    return None if value is None else int(value)


def _through_file(frames: ByteArray, sampling: Sampling) -> Video:
    """Encode [T, H, W, 3] pictures as H.264 and read them back."""
    with TemporaryDirectory(prefix="earlytom-") as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames, preset="veryfast")
        return read_video(path, sampling)
