"""A generated clip with cuts, static stretches and motion, as a real video file; and how redundant a clip is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from earlytom.errors import EarlyTomError, shown

__all__ = ["ClipSettings", "redundant_share", "write_clip"]

Picture = npt.NDArray[np.uint8]

SAME = 2.0
"""Levels of 255: frames that differ by less on average, seen from afar, nearly repeat one another."""
_CELLS = 32
_SCENES = 4
_NOISES = 8
# A pan goes over the whole of a picture that is so many times as wide as a frame.
_WIDER = 2


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What a generated clip shows.

    Scenes of equal length follow one another with hard cuts. Each stands still, under faint noise, for the redundant
    share of its time, and pans over a wide picture for the rest.

    Attributes:
        redundant_share: of each scene's time, 0 to 1.
        width: pixels, even.
        height: pixels, even.
        seconds: length.
        frames_per_second: of the file.
        seed: of the pictures.

    Raises:
        EarlyTomError: a value is not allowed.
    """

    redundant_share: float = 0.5
    width: int = 1280
    height: int = 720
    seconds: float = 60.0
    frames_per_second: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.redundant_share <= 1:
            raise EarlyTomError(f"the redundant share is from 0 to 1, got {shown(self.redundant_share)}")
        for name in ("width", "height"):
            if getattr(self, name) < 16 or getattr(self, name) % 2:
                raise EarlyTomError(f"{name} is an even number of at least 16 pixels, got {shown(getattr(self, name))}")
        if self.frames < 1:
            raise EarlyTomError(
                f"a clip has at least one frame, got {shown(self.seconds)} s of {shown(self.frames_per_second)} each"
            )

    @property
    def frames(self) -> int:
        """Frames of the file."""
        return round(self.seconds * self.frames_per_second)

    @property
    def name(self) -> str:
        """In words."""
        return f"generated, {self.width}x{self.height}, {self.seconds:g} s"


def write_clip(path: Path, settings: ClipSettings) -> None:
    """Write the clip as an H.264 file (MPEG-4 where libav has no such encoder); the pictures come from the seed alone.

    Args:
        path: ending in ``.mp4``.
        settings: what it shows.
    """
    import av

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast"} if codec == "libx264" else {}
        stream: Any = container.add_stream(codec, rate=settings.frames_per_second, options=options)
        stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, "yuv420p"
        for picture in _pictures(settings):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def redundant_share(frames: Picture) -> float:
    """The share of frames that nearly repeat the one before, which the first never does.

    Args:
        frames: [T, H, W, 3] uint8, as a model is to see them.

    Returns:
        0 to 1. Two frames nearly repeat one another when their means over a grid of 32 x 32 cells differ by less than
        2 of 255 levels on average.
    """
    small = np.stack([_from_afar(frame) for frame in frames])
    differences = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3))
    return float((differences < SAME).sum()) / len(frames)


def _from_afar(frame: Picture) -> npt.NDArray[np.float64]:
    rows, columns = (np.linspace(0, side, min(_CELLS, side) + 1).astype(int)[:-1] for side in frame.shape[:2])
    summed = np.add.reduceat(np.add.reduceat(frame.astype(np.float64), rows, axis=0), columns, axis=1)
    return summed * (len(rows) * len(columns) / (frame.shape[0] * frame.shape[1]))


def _pictures(settings: ClipSettings) -> Iterator[Picture]:
    random = np.random.default_rng(settings.seed)
    # As bytes that wrap around, -2 to 2: pictures keep away from both ends.
    shape = (_NOISES, settings.height, settings.width, 3)
    noises = random.integers(-2, 3, shape, dtype=np.int8).view(np.uint8)
    edges = np.linspace(0, settings.frames, min(_SCENES, settings.frames) + 1).round().astype(int)
    for first, last in pairwise(edges):
        for number, picture in enumerate(_scene(_wide_picture(random, settings), int(last - first), settings)):
            yield picture + noises[number % _NOISES]


def _scene(wide: Picture, frames: int, settings: ClipSettings) -> Iterator[Picture]:
    """First it stands still, then it pans to the right end and, where there is time, back."""
    still = round(frames * settings.redundant_share)
    room = wide.shape[1] - settings.width
    step = max(1, round(_WIDER * settings.width / max(1, frames)))
    for number in range(frames):
        moved = max(0, number - still + 1) * step % (2 * room)
        left = moved if moved <= room else 2 * room - moved
        yield wide[:, left : left + settings.width]


def _wide_picture(random: np.random.Generator, settings: ClipSettings) -> Picture:
    """Coarse colours and fine texture, [height, wider, 3]."""
    height, width = settings.height, _WIDER * settings.width
    made = np.full((height, width, 3), 128.0)
    for cells, weight in ((4, 45.0), (16, 25.0), (64, 15.0), (256, 10.0)):
        coarse = random.standard_normal((cells, _WIDER * cells, 3))
        made += weight * _enlarged(coarse, height, width)
    return made.clip(2, 253).astype(np.uint8)


def _enlarged(coarse: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """[h, w, 3] to [height, width, 3], linear between the values."""
    for axis, size in ((0, height), (1, width)):
        places = np.linspace(0, coarse.shape[axis] - 1, size)
        below = places.astype(int)
        above = np.minimum(below + 1, coarse.shape[axis] - 1)
        share = (places - below).reshape([-1 if number == axis else 1 for number in range(3)])
        coarse = coarse.take(below, axis) * (1 - share) + coarse.take(above, axis) * share
    return coarse
