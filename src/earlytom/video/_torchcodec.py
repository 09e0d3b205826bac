"""Decoding with torchcodec, where it is installed and chosen."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from earlytom.errors import VideoError
from earlytom.video._colour import Look, look_of
from earlytom.video._near import take_near, told
from earlytom.video._opening import open_stream, plain
from earlytom.video._picking import Clock, Picker
from earlytom.video._pyav import UnusableError, clock, decode_stretch, examine_stream
from earlytom.video._source import Encoded
from earlytom.video._table import Table, stretches
from earlytom.video.sampling import Sampling
from earlytom.video.types import Video

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["read_torchcodec"]

# Seconds; well below the time of one frame, well above rounding.
_SAME_TIME = 5e-4


def read_torchcodec(source: Encoded, sampling: Sampling, threads: int) -> Video:
    """Read frames with torchcodec.

    The frame table is PyAV's (packets only, nothing is decoded), so the choice of frames and the errors for unusable
    files are those of the default decoder; a file for which the two count differently is refused.

    Args:
        source: encoded video.
        sampling: which frames.
        threads: decoder threads, 0 for FFmpeg's own choice.

    Returns:
        The frames; ``decoded`` is None.

    Raises:
        VideoError: torchcodec is not installed or cannot load FFmpeg, or the video cannot be read.
    """
    decoders = _decoders(source)
    if source.limits.shrink_to is not None:
        raise VideoError(f"{source.name}: Limits.shrink_to is not for torchcodec; use decoder='pyav'")
    chosen = _choose(source, sampling, threads)
    times, indices = chosen.times, chosen.indices
    return Video(
        frames=_decode(decoders, source, chosen, threads),
        indices=tuple(indices),
        timestamps=tuple(times.timestamps[i] for i in indices),
        source_frames=len(times.timestamps),
        source_fps=times.fps,
        duration=times.duration,
        decoder="torchcodec",
        source=source.name,
        decoded=None,
        **chosen.look,
        **told(chosen.asked, indices, times.timestamps),
    )


def _decoders(source: Encoded) -> Any:
    """torchcodec's module of decoders. Raises `VideoError` where it cannot be had."""
    try:
        # By name: a plain import would not type-check the same with and without torchcodec installed.
        return importlib.import_module("torchcodec.decoders")
    except ImportError as error:
        raise VideoError(
            f"{source.name}: decoder 'torchcodec' is not installed: pip install torchcodec "
            "(the default decoder is 'pyav')"
        ) from error
    except (OSError, RuntimeError) as error:
        raise VideoError(
            f"{source.name}: torchcodec is installed but cannot load FFmpeg's shared libraries: install FFmpeg "
            f"(the default decoder is 'pyav'): {plain(error)}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What is to be decoded, by PyAV's frame table.

    Attributes:
        stream: number of the video stream in its container.
        times: of all frames.
        look: what the stream declares about its pictures.
        asked: frame numbers that the sampling chose.
        indices: those to decode.
    """

    stream: int
    times: Clock
    look: Look
    asked: list[int]
    indices: list[int]


def _choose(source: Encoded, sampling: Sampling, threads: int) -> _Choice:
    """Choose the frames; the source's file is left wherever PyAV left it. Raises like `read_torchcodec`."""
    with open_stream(source, threads) as (container, stream):
        table = examine_stream(source, container, stream)
        if table.problem is not None:
            raise VideoError(f"{source.name}: torchcodec cannot number its frames: {table.problem}; use decoder='pyav'")
        if not table.order:
            raise VideoError(f"{source.name}: the video stream holds no frames")
        times, number, look = clock(table, stream), stream.index, look_of(stream)
        asked = sampling.indices(len(table.order), times.fps, timestamps=times.timestamps)
        indices = take_near(table, times.timestamps, asked, sampling, stream.codec_context.name)
        source.limits.check_clip(source.name, stream.codec_context.width, stream.codec_context.height, len(indices))
        _check_times(source, container, stream, table, indices)
    return _Choice(stream=number, times=times, look=look, asked=asked, indices=indices)


def _decode(decoders: Any, source: Encoded, chosen: _Choice, threads: int) -> npt.NDArray[np.uint8]:
    """The chosen frames, [T, H, W, 3] uint8. Raises `VideoError` where torchcodec fails or gives other ones."""
    count = len(chosen.times.timestamps)
    source.file.seek(0)
    try:
        decoder = decoders.VideoDecoder(
            source.file,
            stream_index=chosen.stream,
            dimension_order="NHWC",
            num_ffmpeg_threads=threads,
        )
        seen = decoder.metadata.num_frames
        if seen != count:
            raise VideoError(f"{source.name}: torchcodec counts {seen} frames, PyAV {count}; use decoder='pyav'")
        batch = decoder.get_frames_at(chosen.indices)
        frames: npt.NDArray[np.uint8] = np.ascontiguousarray(batch.data.numpy())
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{source.name}: torchcodec cannot decode it: {plain(error)}; use decoder='pyav'") from error
    _check_given(source, chosen, batch.pts_seconds.tolist())
    return frames


def _check_given(source: Encoded, chosen: _Choice, given: Sequence[float]) -> None:
    """Raise `VideoError` where the frames that torchcodec gave, by their times, are not those chosen."""
    # Seen with torchcodec 0.17 on transport streams with B-frames: other frames than asked for, without an error.
    for index, time in zip(chosen.indices, given, strict=True):
        wanted = chosen.times.start + chosen.times.timestamps[index]
        if abs(time - wanted) > _SAME_TIME:
            raise VideoError(
                f"{source.name}: torchcodec gave the frame at {time:.3f} s for frame {index} at {wanted:.3f} s; "
                "use decoder='pyav'"
            )


class _Witness(Picker):
    """Takes no frames: decoding alone shows whether they agree with the table."""

    def put(self, index: int, frame: VideoFrame) -> None:
        """Leave a frame. Raises `VideoError` where its size is above the limit."""
        self.limits.check_picture(self.name, frame.width, frame.height)


def _check_times(
    source: Encoded, container: InputContainer, stream: VideoStream, table: Table, indices: list[int]
) -> None:
    """Refuse a file whose packet times are not those of its frames: torchcodec too would take them for it."""
    witness = _Witness(name=source.name, limits=source.limits, indices=indices)
    try:
        for stretch in stretches(table, indices):
            if stretch.doubtful:
                decode_stretch(container, stream, table, stretch, witness)
    except (UnusableError, FFmpegError) as error:
        raise VideoError(
            f"{source.name}: torchcodec cannot number its frames: packet times are not those of frames, or frames are "
            "damaged; use decoder='pyav'"
        ) from error
