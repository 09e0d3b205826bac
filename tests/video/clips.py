"""Small clips in which every frame carries its own number, so that a test can tell which frame it was given."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

_BITS = 8
_COLUMNS = 4


def picture(number: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """``[H, W, 3]``: the number as 2 rows of 4 white (1) or dark (0) blocks."""
    image = np.full((height, width, 3), 16, dtype=np.uint8)
    rows, columns = _edges(width, height)
    for bit in range(_BITS):
        if number >> bit & 1:
            row, column = divmod(bit, _COLUMNS)
            image[rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = 235
    return image


def _edges(width: int, height: int) -> tuple[list[int], list[int]]:
    rows = [height * i // (_BITS // _COLUMNS) for i in range(_BITS // _COLUMNS + 1)]
    return rows, [width * i // _COLUMNS for i in range(_COLUMNS + 1)]


def number_of(image: npt.NDArray[np.uint8]) -> int:
    """Read the number back from ``[H, W, 3]``."""
    rows, columns = _edges(image.shape[1], image.shape[0])
    number = 0
    for bit in range(_BITS):
        row, column = divmod(bit, _COLUMNS)
        block = image[rows[row] + 2 : rows[row + 1] - 2, columns[column] + 2 : columns[column + 1] - 2]
        number |= int(block.mean() > 128) << bit
    return number


def numbers_of(frames: npt.NDArray[np.uint8]) -> list[int]:
    return [number_of(frame) for frame in frames]


def make_clip(
    path: Path,
    *,
    count: int = 60,
    width: int = 96,
    height: int = 64,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    format: str | None = None,
    format_options: dict[str, str] | None = None,
    rate: int = 30,
    ticks: Sequence[int] | None = None,
    noise: bool = False,
    sound: bool = False,
) -> Path:
    """Write a clip; ``ticks`` are presentation times in units of ``1 / rate`` (default: 0, 1, 2 ...)."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w", format=format, options=format_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        audio: Any = container.add_stream("aac", rate=16000) if sound else None
        # Without it, PyAV writes no header when no frame comes.
        container.start_encoding()
        for i in range(count):
            image = picture(i, width, height)
            if noise:
                # Incompressible, so that a file is big enough to be cut and damaged at will.
                image = image // 2 + random.integers(0, 64, image.shape, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = i if ticks is None else ticks[i]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            _add_sound(container, audio)
    return path


def without_order(source: Path, path: Path) -> Path:
    """Copy a clip to another container with times of decoding for times of presentation, as from an AVI."""
    if int(av.__version__.split(".")[0]) < 15:
        pytest.skip("PyAV 14 does not copy streams as they are")
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream: Any = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        first: int | None = None
        for packet in old.demux(stream):
            if packet.dts is None:
                continue
            first = packet.dts if first is None else first
            packet.dts -= first
            packet.pts = packet.dts
            packet.stream = copy
            new.mux(packet)
    return path


def packet_places(data: bytes) -> list[tuple[int, int]]:
    """Offset and size of every video packet in a file, in the order of decoding."""
    with av.open(io.BytesIO(data)) as container:
        packets = list(container.demux(container.streams.video[0]))
        return [(int(p.pos or 0), p.size) for p in packets if p.size]


def slice_damaged(data: bytes, at: int, offset: int = 5) -> bytes:
    """An MP4 of H.264 in which 8 bytes of the picture in sample ``at`` are overwritten, ``offset`` into its slice."""
    begin, size = packet_places(data)[at]
    place = begin
    while place < begin + size:
        if data[place + 4] & 31 in (1, 5):
            return data[: place + offset] + b"\xa5" * 8 + data[place + offset + 8 :]
        place += 4 + int.from_bytes(data[place : place + 4], "big")
    raise ValueError(f"sample {at} has no slice")


def _add_sound(container: Any, audio: Any) -> None:
    for i in range(48):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        frame.pts = 1024 * i
        container.mux(audio.encode(frame))
    container.mux(audio.encode())


def make_sound(path: Path, cover: bool = False) -> Path:
    """Write an audio-only file, with a cover picture (attached, not a video) if asked."""
    with av.open(str(path), "w") as container:
        audio: Any = container.add_stream("aac", rate=16000)
        if cover:
            image: Any = container.add_stream("mjpeg", rate=1)
            image.width, image.height, image.pix_fmt = 64, 64, "yuvj420p"
            image.disposition = av.stream.Disposition.attached_pic.value
        _add_sound(container, audio)
        if cover:
            frame = av.VideoFrame.from_ndarray(picture(3, 64, 64), format="rgb24")
            container.mux(image.encode(frame))
            container.mux(image.encode())
    return path


def with_matrix(data: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """Put a display matrix (whole numbers) into the video track header of an MP4."""
    at = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    return data[:at] + matrix + data[at + 36 :]


def with_edit(data: bytes, media_time: int) -> bytes:
    """Let the first edit of an MP4 start at ``media_time`` (media time units), as a trimming tool does."""
    at = data.index(b"elst") + 4 + 4 + 4
    return data[: at + 4] + struct.pack(">i", media_time) + data[at + 8 :]


def decode_all(
    source: bytes | Path, only: set[int] | None = None
) -> tuple[list[npt.NDArray[np.uint8]], list[int | None]]:
    """Every frame (or ``only`` some) and every pts, by plain decoding from start to end: the reference."""
    frames: list[npt.NDArray[np.uint8]] = []
    pts: list[int | None] = []
    with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), "r") as container:
        for index, frame in enumerate(container.decode(video=0)):
            pts.append(frame.pts)
            if only is not None and index not in only:
                continue
            # The declared colour matrix has to be asked for: see earlytom.video._colour.
            declared = frame.colorspace if frame.colorspace == 1 else 5
            converted = frame.to_ndarray(
                format="rgb24", src_colorspace=declared, dst_colorspace=6, dst_color_range=2, src_color_range=1
            )
            frames.append(np.asarray(converted, dtype=np.uint8))
    return frames, pts
