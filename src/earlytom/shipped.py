"""Where the files that come with the package lie: the test model and the sample videos."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from earlytom.errors import EarlyTomError

__all__ = ["SampleQuestion", "sample_questions", "sample_videos", "shipped_folders", "shipped_model"]

_TESTBED = Path(__file__).parent / "testbed"
_MODELS = {"llava_onevision": "checkpoint", "qwen2_5_vl": "checkpoint_qwen2_5_vl"}


@dataclass(frozen=True)
class SampleQuestion:
    """A question about a sample video, with the right answer."""

    video: Path
    question: str
    answer: str
    skill: str


def shipped_model(architecture: str = "llava_onevision") -> Path:
    """The test model, trained on generated scenes only, as a ``from_pretrained`` folder.

    Args:
        architecture: ``"llava_onevision"``, or ``"qwen2_5_vl"`` for its twin.

    Raises:
        EarlyTomError: there is no test model of this architecture, or the twin is not in this installation.
    """
    if architecture not in _MODELS:
        raise EarlyTomError(f"architecture must be one of {', '.join(_MODELS)}, got {architecture!r}")
    folder = shipped_folders()[architecture]
    if architecture != "llava_onevision" and not (folder / "config.json").is_file():
        raise EarlyTomError(
            f"the test model of the architecture {architecture!r} is not in this installation: {folder}; to make it: "
            f"python -m earlytom.testbed.train --architecture {architecture} --start {shipped_model()} --install "
            "--output DIR"
        )
    return folder


def shipped_folders() -> dict[str, Path]:
    """Where the test model of each architecture lies, whether it is there or not."""
    return {architecture: _TESTBED / name for architecture, name in _MODELS.items()}


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
