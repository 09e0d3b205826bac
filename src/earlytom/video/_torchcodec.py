"""Decoding with torchcodec, where it is installed and chosen."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import numpy as np
from av.error import FFmpegError

from earlytom.errors import VideoError
from earlytom.video._colour import look_of
from earlytom.video._near import take_near, told
from earlytom.video._opening import open_stream, plain
from earlytom.video._picking import Picker
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
    try:
        # By name: a plain import would not type-check the same with and without torchcodec installed.
        decoders = importlib.import_module("torchcodec.decoders")
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
    if source.limits.shrink_to is not None:
        raise VideoError(f"{source.name}: Limits.shrink_to is not for torchcodec; use decoder='pyav'")
    with open_stream(source, threads) as (container, stream):
        table = examine_stream(source, container, stream)
        if table.problem is not None:
            raise VideoError(f"{source.name}: torchcodec cannot number its frames: {table.problem}; use decoder='pyav'")
        if not table.order:
            raise VideoError(f"{source.name}: the video stream holds no frames")
        times, number, look = clock(table, stream), stream.index, look_of(stream)
        count = len(table.order)
        asked = sampling.indices(count, times.fps, timestamps=times.timestamps)
        indices = take_near(table, times.timestamps, asked, sampling, stream.codec_context.name)
        source.limits.check_clip(source.name, stream.codec_context.width, stream.codec_context.height, len(indices))
        _check_times(source, container, stream, table, indices)
    source.file.seek(0)
    try:
        decoder = decoders.VideoDecoder(
            source.file,
            stream_index=number,
            dimension_order="NHWC",
            num_ffmpeg_threads=threads,
        )
        seen = decoder.metadata.num_frames
        if seen != count:
            raise VideoError(f"{source.name}: torchcodec counts {seen} frames, PyAV {count}; use decoder='pyav'")
        batch = decoder.get_frames_at(indices)
        frames = np.ascontiguousarray(batch.data.numpy())
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{source.name}: torchcodec cannot decode it: {plain(error)}; use decoder='pyav'") from error
    # Seen with torchcodec 0.17 on transport streams with B-frames: other frames than asked for, without an error.
    for index, given in zip(indices, batch.pts_seconds.tolist(), strict=True):
        wanted = times.start + times.timestamps[index]
        if abs(given - wanted) > _SAME_TIME:
            raise VideoError(
                f"{source.name}: torchcodec gave the frame at {given:.3f} s for frame {index} at {wanted:.3f} s; "
                "use decoder='pyav'"
            )
    return Video(
        frames=frames,
        indices=tuple(indices),
        timestamps=tuple(times.timestamps[i] for i in indices),
        source_frames=count,
        source_fps=times.fps,
        duration=times.duration,
        decoder="torchcodec",
        source=source.name,
        decoded=None,
        **look,
        **told(asked, indices, times.timestamps),
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
