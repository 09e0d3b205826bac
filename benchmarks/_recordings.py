"""Recordings to read: long videos with cuts, pans, things that move and grain, made from a seed by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]
_SHOT_SECONDS = (3.0, 9.0)
_GRAIN_PLANES = 6


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is made: size in pixels, seconds, frames a second, seconds between keyframes, megabits a second.

    ``grain`` is the standard deviation of the noise in each picture, of 255.
    """

    name: str
    width: int
    height: int
    seconds: int
    keyframe_seconds: float
    megabits: float
    grain: float
    rate: int = 30

    @property
    def frames(self) -> int:
        return self.seconds * self.rate

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.seconds}s.mp4"


RECORDINGS = (
    Recording(name="1080p", width=1920, height=1080, seconds=60, keyframe_seconds=8, megabits=33, grain=6.0),
    Recording(name="720p", width=1280, height=720, seconds=600, keyframe_seconds=2, megabits=3, grain=1.0),
)


def make(recording: Recording, folder: Path, seed: int) -> Path:
    """Write a recording (H.264 in MP4, B-frames, keyframes at even distances) and give its path."""
    path = folder / recording.file_name
    unfinished = path.with_suffix(".part.mp4")
    distance = round(recording.keyframe_seconds * recording.rate)
    options = {"preset": "veryfast", "x264-params": f"keyint={distance}:min-keyint={distance}:scenecut=0:bframes=3"}
    with av.open(str(unfinished), "w") as container:
        stream: Any = container.add_stream("libx264", rate=recording.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = recording.width, recording.height, "yuv420p"
        stream.bit_rate = round(recording.megabits * 1e6)
        for number, picture in enumerate(_pictures(recording, np.random.default_rng(seed))):
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, recording.rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return unfinished.rename(path)


def _pictures(recording: Recording, random: np.random.Generator) -> Iterator[Plane]:
    """Every picture, planes Y, U and V of yuv420p below one another: uint8 ``[H * 3 / 2, W]``."""
    width, height = recording.width, recording.height
    grain = [np.rint(random.normal(0, recording.grain, (height, width))).astype(np.int16) for _ in range(_GRAIN_PLANES)]
    left = recording.frames
    while left:
        length = min(left, round(random.uniform(*_SHOT_SECONDS) * recording.rate))
        for luma, chroma in _shot(width, height, length, random):
            noisy = np.clip(luma + grain[random.integers(_GRAIN_PLANES)], 16, 235).astype(np.uint8)
            yield np.concatenate([noisy, chroma.reshape(2, height // 2 * width // 2).reshape(-1, width)])
        left -= length


def _shot(
    width: int, height: int, length: int, random: np.random.Generator
) -> Iterator[tuple[npt.NDArray[np.int16], Plane]]:
    """The pictures between two cuts: a scene under a moving window, and a patch that moves across it."""
    scene = _texture(width + 256, height + 256, random)
    patch = _texture(width // 5, height // 4, random)
    colours = np.repeat(random.integers(90, 166, 2, dtype=np.uint8), height // 2 * (width // 2))
    chroma = colours.reshape(2, height // 2, width // 2)
    way = random.uniform(0, 256, (2, 2)) if random.random() < 0.7 else np.repeat(random.uniform(0, 256, (1, 2)), 2, 0)
    ends = random.uniform(0, 1, (2, 2)) * (height - patch.shape[0], width - patch.shape[1])
    for step in np.linspace(0, 1, length):
        row, column = (way[0] + (way[1] - way[0]) * step).astype(int)
        luma = scene[row : row + height, column : column + width].copy()
        top, left = (ends[0] + (ends[1] - ends[0]) * step).astype(int)
        luma[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
        yield luma, chroma


def _texture(width: int, height: int, random: np.random.Generator) -> npt.NDArray[np.int16]:
    """A picture with structure at every scale: noise of many sizes, the coarser the stronger."""
    total = np.full((height, width), 126.0, dtype=np.float32)
    for size in (4, 8, 16, 32, 64, 128):
        coarse = random.normal(0, 1, (height // size + 2, width // size + 2)).astype(np.float32)
        rough = np.kron(coarse, np.ones((size, size), dtype=np.float32))[:height, :width]
        total += rough * size**0.5 * 2.5
    return np.clip(total, 16, 235).astype(np.int16)
