"""Which frames of a video are looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earlytom.errors import VideoError

__all__ = ["Sampling"]

_DEFAULT_FRAMES = 32


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Choice of frames: ``frames`` spread evenly (the paper's), or ``fps`` a second, or all of them.

    Attributes:
        frames: number of frames, spread evenly from the first to the last. A clip with fewer frames gives each frame
            once: frames are never repeated. None, without ``fps``, takes every frame.
        fps: frames per second of video, picked by timestamp. It replaces ``frames``, which becomes None; giving both
            is an error (except ``frames=32``, which cannot be told from the default).
        max_frames: upper limit on the number of frames; beyond it the choice is thinned evenly.

    Raises:
        VideoError: a field is out of range, or ``frames`` and ``fps`` are both given.
    """

    frames: int | None = _DEFAULT_FRAMES
    fps: float | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "max_frames"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise VideoError(f"Sampling.{name} is {value!r}; allowed: None or an integer of at least 1")
        if self.fps is None:
            return
        if isinstance(self.fps, bool) or not isinstance(self.fps, (int, float)) or not 0 < self.fps < math.inf:
            raise VideoError(f"Sampling.fps is {self.fps!r}; allowed: None or a finite number above 0")
        if self.frames not in (None, _DEFAULT_FRAMES):
            raise VideoError(
                f"Sampling.frames is {self.frames!r} and Sampling.fps is {self.fps!r}; allowed: one of them"
            )
        object.__setattr__(self, "frames", None)

    def indices(
        self, count: int, source_fps: float | None = None, *, timestamps: Sequence[float] | None = None
    ) -> list[int]:
        """Frame numbers to take from a video of ``count`` frames.

        Args:
            count: number of frames in the video, at least 1.
            source_fps: frames per second, used with ``fps`` when ``timestamps`` is not given.
            timestamps: ``count`` ascending presentation times in seconds; makes ``fps`` right for variable frame rate.

        Returns:
            Strictly ascending numbers in ``[0, count)``, the first always 0. With ``fps``: for every moment
            ``timestamps[0] + k / fps`` up to the last timestamp the frame on screen then, each frame at most once.

        Raises:
            VideoError: ``count`` is below 1, or ``fps`` is asked of a video without a clock.
        """
        if count < 1:
            raise VideoError(f"count is {count!r}; allowed: at least 1 frame")
        if self.fps is not None:
            return _spread(self._by_time(count, self.fps, source_fps, timestamps), self.max_frames)
        return _spread(_spread(list(range(count)), self.frames), self.max_frames)

    @staticmethod
    def _by_time(count: int, fps: float, source_fps: float | None, timestamps: Sequence[float] | None) -> list[int]:
        if timestamps is None:
            if source_fps is None or not 0 < source_fps < math.inf:
                raise VideoError(
                    f"Sampling.fps is {fps!r}, but the source has no frame rate and no timestamps; "
                    "allowed here: Sampling(frames=...)"
                )
            times = np.arange(count) / source_fps
        elif len(timestamps) != count:
            raise VideoError(f"timestamps has {len(timestamps)} entries; allowed: one for each of the {count} frames")
        else:
            times = np.asarray(timestamps, dtype=np.float64) - timestamps[0]
        gaps = np.diff(times)
        if not np.all(gaps > 0):
            raise VideoError("timestamps do not ascend; allowed: strictly ascending seconds")
        # Half a millisecond of slack at most: container clocks round (Matroska to 1 ms), and without it a moment would
        # fall just before the very frame that was stored for it.
        slack = min(5e-4, 0.05 / fps, 0.4 * float(gaps.min(initial=math.inf)))
        # A frame is taken when a moment falls into its time on screen; one pass over frames, however high fps is.
        first_moment = np.ceil((times - slack) * fps) / fps
        gone = np.append(times[1:] - slack, times[-1] + slack)
        return [int(i) for i in np.flatnonzero(first_moment < gone)]


def _spread(items: list[int], limit: int | None) -> list[int]:
    """At most ``limit`` of ``items``, evenly spread, with the rounding of the paper's code (down)."""
    if limit is None or len(items) <= limit:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit, dtype=int)]
