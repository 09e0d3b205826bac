"""The wait before the model: opening a video, decoding its frames, the processor, and the way to the device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earlytom.runtime.devices import computing_devices, synchronize
from earlytom.runtime.preprocessing import to_model
from earlytom.video import Limits, Sampling
from earlytom.video._opening import open_stream
from earlytom.video._pyav import examine_stream
from earlytom.video._source import open_source

if TYPE_CHECKING:
    from earlytom.runtime.pipeline import VideoQA
    from earlytom.video import Video

__all__ = ["ReadingTimes", "forget_file", "measure_reading"]


@dataclass(frozen=True, kw_only=True)
class ReadingTimes:
    """Milliseconds before the model.

    Attributes:
        open: to open the file, whose bytes have left the system's cache where it lets them go, and read its table of
            frames.
        decode: to seek, decode and convert the frames, once the file is open.
        preprocess: in the processor: resizing, normalising, the prompt.
        to_device: to bring its output to the model, pixels in the model's dtype.
    """

    open: float
    decode: float
    preprocess: float
    to_device: float

    @property
    def opened(self) -> float:
        """All but opening the file."""
        return self.decode + self.preprocess + self.to_device

    @property
    def all(self) -> float:
        """All of it."""
        return self.open + self.opened


def measure_reading(
    qa: VideoQA, path: Path, question: str, sampling: Sampling, max_tokens: int | None = None
) -> tuple[ReadingTimes, Video, dict[str, Any]]:
    """Read a video as `VideoQA.ask` does, and time the parts.

    The file is opened by itself once cold and once warm; decoding is what reading takes beyond the latter.

    Returns:
        The times, the frames that the model takes (a budget of tokens may leave fewer), and the model's inputs.

    Raises:
        VideoError: the video cannot be read.
    """
    forget_file(path)
    cold, _ = _timed(lambda: _open(path))
    warm, _ = _timed(lambda: _open(path))
    reading, video = _timed(lambda: qa.read(str(path), sampling))
    preprocess, (fitted, made) = _timed(lambda: _preprocess(qa, video, question, max_tokens))
    devices = computing_devices(qa.model)

    def move() -> dict[str, Any]:
        inputs = to_model(made, qa.model)
        synchronize(devices)
        return inputs

    to_device, inputs = _timed(move)
    times = ReadingTimes(open=cold, decode=max(0.0, reading - warm), preprocess=preprocess, to_device=to_device)
    return times, fitted, inputs


def forget_file(path: Path) -> None:
    """Ask the system to drop a file's bytes from its cache; nothing happens where it cannot be asked."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)  # what has not been written yet stays
        advise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def _preprocess(qa: VideoQA, video: Video, question: str, max_tokens: int | None) -> tuple[Video, Mapping[str, Any]]:
    """What `VideoQA.host_inputs` does, and the frames that it leaves."""
    fitted = qa._fit(video, question, max_tokens)
    return fitted.video, qa._host_inputs(fitted, question, max_tokens)


def _open(path: Path) -> None:
    """What `earlytom.read_video` does with a video file before it decodes."""
    with open_source(str(path), Limits()) as encoded, open_stream(encoded, 0) as (container, stream):
        examine_stream(encoded, container, stream)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return (time.perf_counter() - start) * 1000, result
