"""Which frames of a video are looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from earlytom.errors import VideoError, shown

__all__ = ["Sampling", "Spacing"]

_DEFAULT_FRAMES = 32
# Container clocks round (Matroska to 1 ms), and without this a moment would fall just before the very frame that was
# stored for it.
_SLACK = 5e-4
# Of more moments the numbers are no longer exact, and some fall into every frame's time.
_MOST_MOMENTS = 2.0**50
# The second moment never comes; below, products with times underflow.
_LEAST_FPS = 1e-12

Spacing: TypeAlias = Literal["index", "time"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Choice of frames: ``frames`` spread evenly (the paper's), or ``fps`` a second, or all of them.

    Attributes:
        frames: number of frames, spread evenly from the first to the last. A clip with fewer frames gives each frame
            once: frames are never repeated. None, without ``fps``, takes every frame.
        fps: frames per second of video, picked by timestamp. It replaces ``frames``, which becomes None; giving both
            is an error (except ``frames=32``, which cannot be told from the default).
        max_frames: upper limit on the number of frames; beyond it the choice is thinned evenly.
        spacing: what "evenly" means for ``frames`` and ``max_frames``. ``"index"``, the paper's: as many frames of the
            file between one and the next, whenever they are shown. ``"time"``: as many seconds; the frame on screen at
            each of so many moments from the first frame to the last, a frame that is on screen at several of them once
            only, so that fewer may come out. It makes a difference where frames do not come evenly: of a screen
            recording that stands still for 9 of its 10 seconds, nearly all frames by index are of the last second.
        near: how far off a frame may be, as a share (0 to 0.5) of the seconds to the next one chosen on that side.
            Above 0, `read_video` may take frames that cost less to decode: keyframes, and those shortly behind them.
            What it took stands in `Video.indices`, what was chosen in `Video.asked`. Where all frames cost the same
            (pictures, files that have to be decoded whole), the chosen ones are taken.

    Raises:
        VideoError: a field is out of range, or ``frames`` and ``fps`` are both given.
    """

    frames: int | None = _DEFAULT_FRAMES
    fps: float | None = None
    max_frames: int | None = None
    spacing: Spacing = "index"
    near: float = 0.0

    def __post_init__(self) -> None:
        for name in ("frames", "max_frames"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise VideoError(f"Sampling.{name} is {shown(value)}; allowed: None or an integer of at least 1")
        if self.spacing not in get_args(Spacing):
            raise VideoError(f"Sampling.spacing is {shown(self.spacing)}; allowed: 'index', 'time'")
        if isinstance(self.near, bool) or not isinstance(self.near, (int, float)) or not 0 <= self.near <= 0.5:
            raise VideoError(f"Sampling.near is {shown(self.near)}; allowed: a number from 0 to 0.5")
        if self.fps is None:
            return
        if not _is_rate(self.fps):
            raise VideoError(f"Sampling.fps is {shown(self.fps)}; allowed: None or a finite number above 0")
        if self.frames not in (None, _DEFAULT_FRAMES):
            raise VideoError(
                f"Sampling.frames is {shown(self.frames)} and Sampling.fps is {self.fps!r}; allowed: one of them"
            )
        object.__setattr__(self, "frames", None)

    def indices(
        self, count: int, source_fps: float | None = None, *, timestamps: Sequence[float] | None = None
    ) -> list[int]:
        """Frame numbers to take from a video of ``count`` frames.

        Args:
            count: number of frames in the video, at least 1.
            source_fps: frames per second, for choices by time when ``timestamps`` is not given.
            timestamps: ``count`` ascending presentation times in seconds; makes choices by time right for variable
                frame rate.

        Returns:
            Strictly ascending numbers in ``[0, count)``, the first always 0. With ``fps``: for every moment
            ``timestamps[0] + k / fps`` up to the last timestamp the frame on screen then, each frame at most once.

        Raises:
            VideoError: ``count`` is below 1, or ``fps`` or a spacing in time is asked of a video without a clock.
        """
        if count < 1:
            raise VideoError(f"count is {count!r}; allowed: at least 1 frame")
        if self.spacing == "time":
            times = self._times(count, source_fps, timestamps, f"spacing is {self.spacing!r}")
            chosen = list(range(count)) if self.fps is None else _at_rate(times, float(self.fps))
            return _spread_in_time(_spread_in_time(chosen, times, self.frames), times, self.max_frames)
        if self.fps is not None:
            times = self._times(count, source_fps, timestamps, f"fps is {self.fps!r}")
            return _spread(_at_rate(times, float(self.fps)), self.max_frames)
        return _spread(_spread(list(range(count)), self.frames), self.max_frames)

    @staticmethod
    def _times(
        count: int, source_fps: float | None, timestamps: Sequence[float] | None, asked: str
    ) -> npt.NDArray[np.float64]:
        """[count] seconds since the first frame, strictly ascending."""
        if timestamps is None:
            if source_fps is None or not 0 < source_fps < math.inf:
                raise VideoError(
                    f"Sampling.{asked}, but the source has no frame rate and no timestamps; "
                    "allowed here: Sampling(frames=...)"
                )
            times = np.arange(count) / source_fps
        elif len(timestamps) != count:
            raise VideoError(f"timestamps has {len(timestamps)} entries; allowed: one for each of the {count} frames")
        else:
            times = np.asarray(timestamps, dtype=np.float64) - timestamps[0]
        if not np.all(np.diff(times) > 0):
            raise VideoError("timestamps do not ascend; allowed: strictly ascending seconds")
        return times


def _is_rate(value: object) -> bool:
    """Whether a value is a finite number above 0; integers may be too large to be one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return 0 < float(value) < math.inf
    except OverflowError:
        return False


def _slack(times: npt.NDArray[np.float64], period: float) -> float:
    """How much later than a moment a frame may be stored and still count as on screen then."""
    return min(_SLACK, 0.05 * period, 0.4 * float(np.diff(times).min(initial=math.inf)))


def _at_rate(times: npt.NDArray[np.float64], fps: float) -> list[int]:
    """The frames on screen at the moments ``k / fps``."""
    if fps * float(times[-1]) > _MOST_MOMENTS:
        return list(range(len(times)))
    fps = max(fps, _LEAST_FPS)
    slack = _slack(times, 1 / fps)
    # A frame is taken when a moment falls into its time on screen; one pass over frames, however high fps is.
    first_moment = np.ceil((times - slack) * fps) / fps
    gone = np.append(times[1:] - slack, times[-1] + slack)
    return [int(i) for i in np.flatnonzero(first_moment < gone)]


def _spread(items: list[int], limit: int | None) -> list[int]:
    """At most ``limit`` of ``items``, evenly spread, with the rounding of the paper's code (down)."""
    if limit is None or len(items) <= limit:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit, dtype=int)]


def _spread_in_time(items: list[int], times: npt.NDArray[np.float64], limit: int | None) -> list[int]:
    """Of ``items`` those on screen at ``limit`` moments, evenly spread from the first to the last."""
    if limit is None or len(items) <= limit:
        return items
    starts = times[items]
    moments = np.linspace(starts[0], starts[-1], limit)
    slack = _slack(starts, (starts[-1] - starts[0]) / max(1, limit - 1))
    on_screen = np.searchsorted(starts - slack, moments, side="right") - 1
    return [items[i] for i in np.unique(on_screen)]
