"""Where the files that come with the package lie: the test model and the sample videos."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from earlytom.errors import EarlyTomError

__all__ = ["SampleQuestion", "sample_questions", "sample_videos", "shipped_model"]

_TESTBED = Path(__file__).parent / "testbed"


@dataclass(frozen=True)
class SampleQuestion:
    """A question about a sample video, with the right answer."""

    video: Path
    question: str
    answer: str
    skill: str


def shipped_model() -> Path:
    """The test model: a tiny LLaVA-OneVision, trained on generated scenes only, as a ``from_pretrained`` folder."""
    return _TESTBED / "checkpoint"


def sample_videos() -> list[Path]:
    """The generated sample videos (H.264 mp4)."""
    return sorted((_TESTBED / "samples").glob("*.mp4"))


def sample_questions() -> list[SampleQuestion]:
    """Questions about the sample videos, from the generator's truth. Raises `EarlyTomError` where they are missing."""
    folder = _TESTBED / "samples"
    if not (folder / "questions.json").is_file():
        raise EarlyTomError(f"the sample videos are missing from this installation: {folder}")
    entries = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    return [
        SampleQuestion(folder / Path(entry["video"]).name, entry["question"], entry["answer"], entry["skill"])
        for entry in entries
    ]
