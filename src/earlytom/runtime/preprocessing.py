"""From a prompt and frames to a model's inputs: what the processor tells the model about time, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from earlytom.errors import EarlyTomError, VideoError, shown_cause
from earlytom.runtime.devices import input_device
from earlytom.video.address import source_name

if TYPE_CHECKING:
    from torch import nn

    from earlytom.video import Video

__all__ = ["frames_per_grid", "preprocess", "to_model", "told_as_refusal"]


def preprocess(
    processor: Any, prompt: str, *videos: Video, options: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """What a processor makes of a prompt about one video or several.

    Args:
        processor: the model's processor.
        prompt: as the chat template wrote it.
        videos: their frames go in as they are. A clip that is shorter than one temporal grid is filled up with its last
            frame, as processors fill up the last grid of a longer one (Qwen3-VL's refuses to fill up the first).
        options: of the video processor, besides its own.

    Returns:
        The processor's output, on the host. What it tells the model about time comes from ``timestamps``; of frames
        without a clock a processor assumes a rate (24 a second in the Qwen families).

    Raises:
        VideoError: the processor refuses the frames or fails on them, or ``timestamps`` are no times of theirs.
    """
    missing = [max(0, frames_per_grid(processor) - len(video.frames)) for video in videos]
    with told_as_refusal(*videos):
        made: Mapping[str, Any] = processor(
            text=[prompt],
            videos=[_filled_up(video, count) for video, count in zip(videos, missing, strict=True)],
            video_metadata=[_metadata(video, count) for video, count in zip(videos, missing, strict=True)],
            do_sample_frames=False,
            return_tensors="pt",
            **({"videos_kwargs": dict(options)} if options else {}),
        )
    return made


def _filled_up(video: Video, missing: int) -> np.ndarray:
    return np.concatenate([video.frames, *[video.frames[-1:]] * missing]) if missing else video.frames


def frames_per_grid(processor: Any) -> int:
    """How many frames a processor makes one temporal grid of."""
    return getattr(getattr(processor, "video_processor", None), "temporal_patch_size", None) or 1


@contextmanager
def told_as_refusal(*videos: Video) -> Iterator[None]:
    """Turn whatever a processor raises over the frames of videos into a `VideoError` that names these."""
    try:
        yield
    except EarlyTomError:
        raise
    except Exception as error:  # processors refuse frames by errors of all kinds, and none of them names the file
        sources = ", ".join(source_name(video.source) for video in videos)
        shapes = ", ".join(str(video.frames.shape) for video in videos)
        raise VideoError(
            f"{sources}: the model's processor refuses frames of the shape {shapes}: {shown_cause(error)}"
        ) from error


def to_model(made: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """A processor's output on the device of a model, pixels in its dtype."""
    device, dtype = input_device(model), next(model.parameters()).dtype
    return {
        # Only pixels are in the model's dtype: seconds between frames would lose their digits.
        key: value.to(device, dtype if key.startswith("pixel_values") else None)
        for key, value in made.items()
    }


def _metadata(video: Video, missing: int) -> dict[str, object]:
    """When the frames were taken, as transformers wants to be told; the last one stands ``missing`` times more.

    Transformers takes a frame's number over the average rate for its time, which is wrong wherever frames do not come
    evenly (screen recordings) or the container claims another rate. So the clip is told as one of a clock that ticks
    once a second, on which numbers and times are the same.
    """
    if not video.timestamps:
        return {
            "total_num_frames": video.source_frames,
            "fps": video.source_fps,
            "duration": video.duration,
            "frames_indices": [*video.indices, *video.indices[-1:] * missing],
        }
    _check_times(video)
    times = [*video.timestamps, *video.timestamps[-1:] * missing]
    return {
        "total_num_frames": len(times) * _seconds_between_frames(video),
        "fps": 1.0,
        "duration": video.duration,
        "frames_indices": times,
    }


def _check_times(video: Video) -> None:
    times = np.asarray(video.timestamps, dtype=np.float64)
    if len(times) != len(video.frames) or not np.isfinite(times).all() or not (np.diff(times) > 0).all():
        raise VideoError(
            f"{source_name(video.source)}: its timestamps must be ascending seconds, one for each of its "
            f"{len(video.frames)} frames (or none at all), got {len(times)}"
        )


def _seconds_between_frames(video: Video) -> float:
    """The time from one sampled frame to the next, on average.

    Where frames come evenly it is the length of the clip over the sampled frames, as transformers has it; models were
    trained with that, and the time between the frames is that or up to one part in ``len(frames)`` more.
    """
    count = len(video.frames)
    usual = video.source_frames / video.source_fps / count if video.source_fps else None
    if count == 1:
        return usual or video.duration or 1.0
    step = (video.timestamps[-1] - video.timestamps[0]) / (count - 1)
    if usual is not None and _comes_evenly(video) and 0.99 * (count - 1) / count <= usual / step <= 1.01:
        return usual
    return step


def _comes_evenly(video: Video) -> bool:
    """Whether no sampled frame lies off the average rate by half a frame."""
    if not video.source_fps or len(video.indices) != len(video.timestamps):
        return False
    expected = np.asarray(video.indices) / video.source_fps
    times = np.asarray(video.timestamps)
    return bool((np.abs((times - times[0]) - (expected - expected[0])) < 0.5 / video.source_fps).all())
