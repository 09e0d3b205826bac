"""Damaged videos: refused, or read as plain decoding reads them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import av
import av.logging
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

import earlytom
from earlytom.video import Limits, Sampling, Video, read_video
from fuzz.mutations import mutated
from fuzz.outcomes import EQUAL, MARKED, FindingError, Trial
from video.clips import make_clip

Picture = npt.NDArray[np.uint8]

# Small enough for the memory that a child may take.
LIMITS = Limits(max_pixels=1 << 24, max_bytes=1 << 29)
_H264 = {"g": "12", "bf": "2", "preset": "ultrafast", "threads": "1"}
_CLIPS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": _H264 | {"preset": "fast"}},
    "start.mp4": {"options": _H264, "format_options": {"movflags": "faststart"}, "ticks": range(3, 90, 3)},
    "fragments.mp4": {"options": _H264, "format_options": {"movflags": "frag_keyframe+empty_moov"}},
    "noise.mkv": {"options": _H264, "noise": True},
    "sound.mov": {"options": _H264, "sound": True},
    "h264.ts": {"options": _H264},
    "h264.flv": {"options": _H264},
    "h264.avi": {"options": {"g": "12", "bf": "0", "threads": "1"}},
    "raw.h264": {"options": _H264, "format": "h264"},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "10", "threads": "1"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "10", "bf": "2", "threads": "1"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "10", "bf": "2", "threads": "1"}},
    "motion.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "10", "deadline": "realtime"}},
    "moving.gif": {"codec": "gif", "pixels": "rgb8"},
}
_SAMPLINGS = (Sampling(frames=1), Sampling(frames=4), Sampling(frames=4), Sampling(frames=None), Sampling(fps=2))
_MATRICES = frozenset({1, 4, 5, 6, 7, 9, 10})
_FULL = 2


def make_clips(folder: Path) -> None:
    """The clips to damage: those shipped, and one of each container and codec."""
    folder.mkdir()
    for path in earlytom.sample_videos():
        shutil.copy(path, folder)
    for name, settings in _CLIPS.items():
        if settings.get("codec", "libx264") in av.codecs_available:
            count = len(settings.get("ticks", range(30)))
            make_clip(folder / name, **{"count": count, "width": 64, "height": 48, **settings})


@cache
def clips(folder: Path) -> list[bytes]:
    """The bytes of them all."""
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def trial(random: Random, folder: Path) -> Trial:
    """A damaged video."""
    held = clips(folder / "clips")
    data = mutated(random.choice(held), random)
    if random.random() < 0.05:
        other = random.choice(held)
        data = data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other)) :]
    sampling, threads = random.choice(_SAMPLINGS), random.choice((0, 1, 2))

    def run() -> str:
        return compared(read_video(data, sampling, threads=threads, limits=LIMITS), data)

    return Trial(run, error=earlytom.VideoError)


def compared(video: Video, data: bytes) -> str:
    """`EQUAL` where the frames are those of plain decoding, `MARKED` where that meets damage."""
    plain = _plain(data, set(video.indices))
    if plain is None:
        return MARKED
    count, frames = plain
    if count != video.source_frames:
        raise FindingError(f"{video.source_frames} frames are told, plain decoding gives {count} without an error")
    wrong = [i for i, frame in zip(video.indices, video.frames, strict=True) if not _equal(frame, frames[i])]
    if not wrong:
        return EQUAL
    if set(wrong) <= _unsettled(data):
        return MARKED
    raise FindingError(f"frames {wrong} of {count} are other than those of plain decoding")


def _unsettled(data: bytes) -> set[int]:
    """Frames that plain decoding itself gives other pictures for, as memory is new or was used before.

    Some of libav's decoders say nothing where coded values end before the picture does (VP8), and leave there what the
    memory held: parts of earlier pictures, and which ones depends on what was decoded and kept until then.
    """
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.best("video")
        stream.thread_count = 1
        packets = [*(packet for packet in container.demux(stream) if packet.size), None]
        kept = [frame for packet in packets for frame in stream.codec_context.decode(packet)]
        new = [_rgb(frame) for frame in kept]
        kept.clear()
        stream.codec_context.flush_buffers()
        used = [_rgb(frame) for packet in packets for frame in stream.codec_context.decode(packet)]
    return {number for number, (a, b) in enumerate(zip(new, used, strict=False)) if not np.array_equal(a, b)}


def _plain(data: bytes, wanted: set[int]) -> tuple[int, dict[int, Picture]] | None:
    """The number of frames, and the wanted ones; None as soon as something is damaged.

    Damage is an error, a mark of a packet or frame, an error in libav's log (which then shows what it can), or a packet
    without a frame, each of the clips' packets having one.
    """
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as logged:
            decoded = _decoded(data, wanted)
    finally:
        av.logging.set_level(None)
    return None if logged else decoded


def _decoded(data: bytes, wanted: set[int]) -> tuple[int, dict[int, Picture]] | None:
    frames: dict[int, Picture] = {}
    count = 0
    try:
        with av.open(io.BytesIO(data)) as container:
            for frame in _frames(container):
                if frame is None:
                    return None
                if count in wanted:
                    frames[count] = _rgb(frame)
                count += 1
    except IndexError:
        pass  # PyAV, at the end of files whose streams turn up late
    except (FFmpegError, ValueError):
        return None
    return count, frames


def _frames(container: Any) -> Iterator[Any]:
    """Every frame, None where something is marked as damaged, or dropped: there are fewer frames than packets."""
    stream = container.streams.best("video")
    stream.thread_count = 1
    started = False
    missing = 0
    for packet in container.demux(stream):
        # What stands before the first keyframe cannot be decoded.
        if packet.is_corrupt or not (started or packet.is_keyframe or not packet.size):
            yield None
        started = True
        missing += packet.size > 0 and not packet.is_discard
        for frame in packet.decode():
            missing -= 1
            yield None if frame.is_corrupt else frame
    if missing > 0:
        yield None


def _rgb(frame: Any) -> Picture:
    """The picture with the matrix and range that the frame declares."""
    matrix = frame.colorspace if frame.colorspace in _MATRICES else 5
    full = frame.color_range == _FULL or (not frame.color_range and frame.format.name.startswith("gray"))
    picture = frame.to_ndarray(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=5 if matrix != 5 else 6,
        src_color_range=_FULL if full else 1,
        dst_color_range=_FULL,
    )
    return np.asarray(picture, dtype=np.uint8)


def _equal(frame: Picture, plain: Picture) -> bool:
    """Equal, turned and mirrored as a display matrix may ask for."""
    mirrored = (plain, plain[:, ::-1])
    return any(np.array_equal(frame, np.rot90(picture, turn)) for picture in mirrored for turn in range(4))
