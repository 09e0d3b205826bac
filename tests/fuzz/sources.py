"""File objects that misbehave, addresses, texts and arrays of any shape, as sources of video."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import earlytom
from earlytom.video import Sampling, Video, read_video
from fuzz.outcomes import ANSWER, EQUAL, FindingError, Trial
from fuzz.videos import LIMITS, clips

_FAILURES = (OSError, ValueError, RuntimeError, KeyError, EOFError, TypeError, StopIteration, ZeroDivisionError)
_TEXTS = (
    *("#EXTM3U\n#EXTINF:1,\n{}\n", "\ufeff#EXTM3U\n{}", "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n{}"),
    *("ffconcat version 1.0\nfile {}\n", "<?xml version='1.0'?><MPD><BaseURL>{}</BaseURL></MPD>", "<svg>{}</svg>"),
    *("[playlist]\nFile1={}\n", "RIFF{}", "GIF89a{}", "<!DOCTYPE html>{}", "{}"),
)
_PLACES = (
    "/etc/passwd",
    "http://127.0.0.1:9/x.ts",
    "file:///etc/passwd",
    "concat:a|b",
    "subfile,,start,0,:a",
    "x" * 999,
)
_ADDRESSES = (
    *("file://{}", "file:{}", "http://{}", "https://{}", "rtsp://{}", "data:{}", "data:video/mp4;base64,{}", "pipe:0"),
    *("concat:{}", "-", "{}", "%03d.png", "a\0b{}", "\udcff{}", "~/{}", "[{}", "file://host/{}", "lavfi:{}", "{}.m3u8"),
)


class Odd(io.BytesIO):
    """A file that gives little at a time, fails from some byte on, cannot seek, or lies, by a seed."""

    def __init__(self, data: bytes, random: Random) -> None:
        super().__init__(data)
        self.random = random
        self.name = random.choice(("x.m3u8", "x.sdp", "%03d.png", "x.mp4", 3, None))
        self.short = random.random() < 0.6
        self.seeks = random.random() < 0.7
        self.fails_at = random.randrange(len(data) * 3) if random.random() < 0.4 else None
        self.failure = random.choice(_FAILURES)
        self.lie = random.choice((None, "text", b"x" * (1 << 22), 5)) if random.random() < 0.3 else b""
        self.lies = 0.02 if self.lie != b"" else 0.0

    @property
    def honest(self) -> bool:
        return self.fails_at is None and not self.lies

    def read(self, size: int | None = -1, /) -> Any:
        if self.fails_at is not None and self.tell() >= self.fails_at:
            raise self.failure("the wire is cut" * self.random.choice((1, 1000)))
        if self.random.random() < self.lies:
            return self.lie
        if self.short and (size is None or size < 0 or size > 1):
            size = self.random.randint(1, 5000 if size is None or size < 0 else size)
        return super().read(size)

    def seekable(self) -> bool:
        return self.seeks

    def seek(self, *arguments: Any) -> int:
        if not self.seeks:
            raise io.UnsupportedOperation("seek")
        return super().seek(*arguments)


def trial(random: Random, folder: Path) -> Trial:
    """A source of any kind."""
    return random.choice((_of_file, _of_file, _of_address, _of_text, _of_array))(random, folder)


def _of_file(random: Random, folder: Path) -> Trial:
    data = random.choice(clips(folder / "clips"))
    file = Odd(data, random)
    sampling = Sampling(frames=4)

    def run() -> str:
        video = read_video(file, sampling, limits=LIMITS)
        return _same(video, read_video(data, sampling, limits=LIMITS))

    return Trial(run, error=earlytom.VideoError)


def _same(video: Video, expected: Video) -> str:
    """A file object that answered gave its bytes; they hold what they hold, however they were read."""
    if video.indices != expected.indices or not np.array_equal(video.frames, expected.frames):
        raise FindingError(f"frames {video.indices} of a file object differ from those of its bytes")
    return EQUAL


def _of_address(random: Random, folder: Path) -> Trial:
    data = random.choice(clips(folder / "clips"))
    coded = base64.b64encode(data).decode()
    rest = random.choice(
        ("x.mp4", "", "\n", "é" * 300, "a" * 5000, coded, coded[: random.randrange(3000)], "../" * 2000)
    )
    address = random.choice(_ADDRESSES).format(rest)
    source: Any = random.choice((address, address, Path(address), [address], [address] * 3))
    return Trial(lambda: _read(source), given=address, error=earlytom.VideoError, one_line="\n" not in address)


def _of_text(random: Random, folder: Path) -> Trial:
    text = random.choice(_TEXTS).format(random.choice(_PLACES)) * random.choice((1, 1, 200))
    data = text.encode() + random.choice((b"", random.randbytes(random.randrange(3000))))
    file = io.BytesIO(data)
    file.name = random.choice(("x.m3u8", "x.mp4"))  # type: ignore[attr-defined]
    source = random.choice((data, file))
    return Trial(lambda: _read(source), given=text, error=earlytom.VideoError)


def _of_array(random: Random, folder: Path) -> Trial:
    usual = (random.randint(1, 9), random.choice((1, 8, 33)), random.choice((2, 16)), random.choice((1, 3, 4)))
    other = tuple(random.choice((0, 1, 2, 3, 4, 8, 33)) for _ in range(random.randint(0, 6)))
    kind = random.choice(("u1", "u1", "u1", "f4", "f8", "f2", "i4", "bool", "c8", "O", "U3", "M8[s]"))
    array = np.zeros(random.choice((usual, other)), kind)
    if array.dtype.kind in "uf" and random.random() < 0.3:
        array += array.dtype.type(random.choice((1, 255)))
    source: Any = random.choice((array, list(array) if array.ndim else [array], (array, None), {"a": array}, None, 5))
    return Trial(lambda: _read(source), error=earlytom.VideoError)


def _read(source: Any) -> str:
    video = read_video(source, Sampling(frames=4), limits=LIMITS)
    if video.frames.ndim != 4 or video.frames.dtype != np.uint8 or len(video.frames) != len(video.indices):
        raise FindingError(f"frames of shape {video.frames.shape} and type {video.frames.dtype}")
    return ANSWER
