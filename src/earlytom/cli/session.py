"""A loaded model and a read video, with the honest words that go with them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from earlytom.cli.background import in_background, without_collection
from earlytom.cli.display import on_terminal, status
from earlytom.errors import ModelError, VideoError, shortened, shown
from earlytom.shipped import sample_videos, shipped_folders, shipped_model

if TYPE_CHECKING:
    from earlytom.cli.choices import Clip, ModelChoice
    from earlytom.runtime.pipeline import VideoQA
    from earlytom.video import Sampling, Video

__all__ = ["TTFT_SCOPE", "Session", "describe_device", "load_model", "open_session", "read_clip", "shipped_model_note"]

TTFT_SCOPE = (
    "TTFT runs from generate() with everything on the device to the first token on the host: vision encoder, "
    "compression and prefill are in it, video decoding and preprocessing are not."
)


# Of a hub's owner and name, with room to spare.
_LONGEST_ID = 256
# Where a checkpoint's folder may say how many frames the model likes, newest first.
_PROCESSOR_FILES = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")
_LARGEST_SETTINGS = 1 << 20
# What is sampled where it does not say.
_USUAL_FRAMES = 32


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a command works with."""

    qa: VideoQA
    video: Video
    notes: tuple[str, ...]


def open_session(choice: ModelChoice, clip: Clip) -> Session:
    """Load the model and read the video, side by side, once for all runs.

    Raises:
        ModelError: the model cannot be loaded.
        VideoError: the video cannot be read, and the model can be loaded.
    """
    # Loading takes up to minutes, so the most frequent slips are told first.
    source = _source(clip)
    qa, video = _load_and_read(choice, clip, source)
    remarks = (shipped_model_note(choice.path, clip.path), _damage_note(video))
    return Session(qa=qa, video=video, notes=tuple(remark for remark in remarks if remark))


def _load_and_read(choice: ModelChoice, clip: Clip, source: str | bytes | BinaryIO) -> tuple[VideoQA, Video]:
    """The model, and the video, which is read while torch is imported and the model loaded."""
    likely = clip.sampling_for(_likely_frames(choice))
    ahead = in_background(lambda: _read(clip, source, likely)) if _can_be_read_twice(source) else None
    qa = load_model(choice)
    wanted = clip.sampling_for(qa.default_frames)
    with status(f"reading {shortened(clip.path.name)}"):
        return qa, ahead.result() if ahead is not None and wanted == likely else _read(clip, source, wanted)


def read_clip(qa: VideoQA, clip: Clip) -> Video:
    """Read a video for a model that has been loaded. Raises `VideoError`: it cannot be read."""
    source, sampling = _source(clip), clip.sampling_for(qa.default_frames)
    with status(f"reading {shortened(clip.path.name)}"):
        return _read(clip, source, sampling)


def _read(clip: Clip, source: str | bytes | BinaryIO, sampling: Sampling) -> Video:
    from earlytom.video import read_video

    return read_video(
        source, sampling, decoder=clip.decoder, limits=clip.limits, damage_tolerance=clip.damage_tolerance
    )


def _can_be_read_twice(source: str | bytes | BinaryIO) -> bool:
    """Whether a reading that comes to nothing harms nobody; a pipe has its bytes once."""
    return isinstance(source, bytes) or (isinstance(source, str) and (os.path.isfile(source) or os.path.isdir(source)))


def _likely_frames(choice: ModelChoice) -> int:
    """How many frames the model probably likes, told without loading anything; the loaded model has the last word."""
    folder = shipped_model() if choice.path is None else Path(choice.path)
    for name in _PROCESSOR_FILES:
        path = folder / name
        try:
            if not path.is_file() or path.stat().st_size > _LARGEST_SETTINGS:
                continue  # a pipe would wait for its writer
            settings = json.loads(path.read_text(encoding="utf-8"))
            frames = settings.get("video_processor", settings)["num_frames"]
        except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
            continue  # whatever is wrong with it is told when the model is loaded
        if isinstance(frames, int) and frames > 0:
            return frames
    return _USUAL_FRAMES


def _damage_note(video: Video) -> str | None:
    """What has to be said when damage was let pass."""
    if not video.damaged:
        return None
    count = sum(last - first + 1 for first, last in video.damaged)
    return f"{count} of the video's {video.source_frames} frames are damaged; only whole ones were taken."


def _source(clip: Clip) -> str | bytes | BinaryIO:
    """What VIDEO names: a file that is there, or standard input for ``-``."""
    from earlytom.video.address import resolve, source_name

    if clip.source == "-":
        if sys.stdin.isatty():
            raise VideoError("-: standard input is a terminal; pipe a video into it, or name a file")
        return sys.stdin.buffer
    source = resolve(clip.source, clip.limits.max_bytes)
    if isinstance(source, str) and not os.path.exists(source):
        raise VideoError(f"{source_name(source)}: no such file")
    return source


def load_model(choice: ModelChoice) -> VideoQA:
    """Load a model without a word, except where a download is to be watched.

    Raises:
        ModelError: it cannot be loaded.
    """
    path = str(shipped_model()) if choice.path is None else choice.path
    local = os.path.exists(path)  # False, too, for what is too long for a path
    if not local and len(path) > _LONGEST_ID:
        raise ModelError(f"cannot load a model from {shown(path)}: there is no such folder, and no hub id is so long")
    with without_collection():
        with status(f"loading {Path(path).name}") if local else status(f"starting torch to load {path}"):
            from transformers.utils import logging

            from earlytom.runtime.pipeline import VideoQA

            if local or not on_terminal():
                logging.disable_progress_bar()
                return VideoQA.load(path, device=choice.device, dtype=choice.dtype.value, attention=choice.attention)
        # The hub's own bars show a download better than a spinner.
        return VideoQA.load(path, device=choice.device, dtype=choice.dtype.value, attention=choice.attention)


def describe_device(qa: VideoQA) -> str:
    """Device, number type and attention of the model, such as ``cpu, float32, sdpa``."""
    first = next(qa.model.parameters())
    attention = getattr(qa.model.config, "_attn_implementation", None) or "unknown attention"
    return f"{first.device}, {str(first.dtype).removeprefix('torch.')}, {attention}"


def shipped_model_note(model: str | None, video: Path) -> str | None:
    """What has to be said when a shipped model looks at a video that was not made for it."""
    if model is not None and Path(model).resolve() not in {folder.resolve() for folder in shipped_folders().values()}:
        return None
    if video.resolve() in {sample.resolve() for sample in sample_videos()}:
        return None
    return (
        "the model that comes with earlytom is a tiny test model. It only knows generated scenes with moving shapes; "
        "its answers about other videos mean nothing. For a real answer: earlytom ask VIDEO QUESTION --model "
        "llava-hf/llava-onevision-qwen2-7b-ov-hf (or another LLaVA-OneVision checkpoint)."
    )
