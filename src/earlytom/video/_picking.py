"""Frames that were asked for, collected into one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from earlytom.errors import VideoError
from earlytom.video._colour import to_rgb
from earlytom.video._opening import plain
from earlytom.video._orientation import upright
from earlytom.video.limits import Limits
from earlytom.video.types import Video

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from typing_extensions import Buffer

__all__ = ["Clock", "Picker"]


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Frame times of a stream.

    Attributes:
        start: stream time of the first frame in seconds.
        timestamps: time of every frame in seconds since the first.
        fps: average frames per second, None when unknown.
        duration: seconds, None when unknown.
    """

    start: float
    timestamps: Sequence[float]
    fps: float | None
    duration: float | None


@dataclass(kw_only=True, eq=False)
class Picker:
    """Collects converted frames into one array and counts what was decoded."""

    name: str
    limits: Limits
    indices: list[int]
    frames: npt.NDArray[np.uint8] | None = None
    reformatter: VideoReformatter = field(default_factory=VideoReformatter)
    filled: set[int] = field(default_factory=set)
    decoded: int = 0
    scaled_from: tuple[int, int] | None = None

    @cached_property
    def _slots(self) -> dict[int, int]:
        return {index: slot for slot, index in enumerate(self.indices)}

    def put(self, index: int, frame: VideoFrame) -> None:
        """Take a decoded frame as frame ``index``, one of ``indices``.

        Raises:
            VideoError: the size changes, or is above the limits.
        """
        kept = self._kept_size(frame)
        picture = upright(to_rgb(frame, self.reformatter, kept), _display_matrix(frame, self.name))
        if self.frames is None:
            self.frames = np.empty((len(self.indices), *picture.shape), dtype=np.uint8)
        if picture.shape != self.frames.shape[1:]:
            raise VideoError(
                f"{self.name}: the picture size changes from {self.frames.shape[2]}x{self.frames.shape[1]} to "
                f"{picture.shape[1]}x{picture.shape[0]} at frame {index}"
            )
        slot = self._slots[index]
        self.frames[slot] = picture
        self.filled.add(slot)

    def _kept_size(self, frame: VideoFrame) -> tuple[int, int]:
        stored = (frame.width, frame.height)
        kept = self.limits.kept_size(*stored)
        self.limits.check_picture(self.name, *stored)
        self.limits.check_clip(self.name, *kept, len(self.indices))
        self.scaled_from = stored if kept != stored else None
        return kept

    def video(self, times: Clock, damaged: tuple[tuple[int, int], ...] = ()) -> Video:
        """The frames as a video. Raises `VideoError` where some did not come."""
        if self.frames is None or len(self.filled) != len(self.indices):
            raise VideoError(f"{self.name}: {len(self.filled)} of {len(self.indices)} frames asked for can be decoded")
        return Video(
            frames=self.frames,
            indices=tuple(self.indices),
            timestamps=tuple(times.timestamps[i] for i in self.indices),
            source_frames=len(times.timestamps),
            source_fps=times.fps,
            duration=times.duration,
            decoder="pyav",
            source=self.name,
            decoded=self.decoded,
            scaled_from=self.scaled_from,
            damaged=damaged,
        )


def _display_matrix(frame: VideoFrame, name: str) -> npt.NDArray[np.int32] | None:
    try:
        side = frame.side_data.get("DISPLAYMATRIX")
    except ValueError as error:
        # PyAV 18 has no word for some of what FFmpeg 8 attaches to pictures (EXIF), and then tells nothing at all.
        if frame.rotation:
            raise VideoError(f"{name}: is turned, and PyAV cannot tell how: {plain(error)}") from error
        return None
    return None if side is None else np.frombuffer(bytes(cast("Buffer", side)), dtype=np.int32)
