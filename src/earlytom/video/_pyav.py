"""Decoding with PyAV: frame table from packets, seeks to the keyframes needed, plain decoding where that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from earlytom.errors import VideoError
from earlytom.video._colour import to_rgb
from earlytom.video._integrity import missing_bytes
from earlytom.video._opening import open_stream, packets, plain
from earlytom.video._orientation import upright
from earlytom.video._source import Encoded
from earlytom.video._table import Stretch, Table, scan, stretches
from earlytom.video.limits import Limits
from earlytom.video.sampling import Sampling
from earlytom.video.types import Video

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from typing_extensions import Buffer

__all__ = ["Clock", "clock", "examine_stream", "read_pyav"]

# What libav itself assumes for raw streams, which carry no times.
_RAW_FPS = 25.0


class _UnusableError(Exception):
    """Seeking did not give the frames the table promises; the cause, if any, is chained."""


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
    timestamps: tuple[float, ...]
    fps: float | None
    duration: float | None


@dataclass(kw_only=True, eq=False)
class _Picker:
    """Collects converted frames into one array and counts what was decoded."""

    name: str
    limits: Limits
    indices: list[int]
    frames: npt.NDArray[np.uint8] | None = None
    reformatter: VideoReformatter = field(default_factory=VideoReformatter)
    filled: set[int] = field(default_factory=set)
    decoded: int = 0
    scaled_from: tuple[int, int] | None = None

    def put(self, index: int, frame: VideoFrame) -> None:
        stored = (frame.width, frame.height)
        kept = self.limits.kept_size(*stored)
        self.limits.check_picture(self.name, *stored)
        self.limits.check_clip(self.name, *kept, len(self.indices))
        self.scaled_from = stored if kept != stored else None
        picture = upright(to_rgb(frame, self.reformatter, kept), _display_matrix(frame, self.name))
        if self.frames is None:
            self.frames = np.empty((len(self.indices), *picture.shape), dtype=np.uint8)
        if picture.shape != self.frames.shape[1:]:
            raise VideoError(
                f"{self.name}: the picture size changes from {self.frames.shape[2]}x{self.frames.shape[1]} to "
                f"{picture.shape[1]}x{picture.shape[0]} at frame {index}"
            )
        slot = self.indices.index(index)
        self.frames[slot] = picture
        self.filled.add(slot)


def _display_matrix(frame: VideoFrame, name: str) -> npt.NDArray[np.int32] | None:
    try:
        side = frame.side_data.get("DISPLAYMATRIX")
    except ValueError as error:
        # PyAV 18 has no word for some of what FFmpeg 8 attaches to pictures (EXIF), and then tells nothing at all.
        if frame.rotation:
            raise VideoError(f"{name}: is turned, and PyAV cannot tell how: {plain(error)}") from error
        return None
    return None if side is None else np.frombuffer(bytes(cast("Buffer", side)), dtype=np.int32)


def examine_stream(source: Encoded, container: InputContainer, stream: VideoStream) -> Table:
    """Build the frame table and refuse a file whose end is missing.

    Args:
        source: the source ``container`` was opened from.
        container: freshly opened container.
        stream: its video stream.

    Returns:
        The table of the stream.

    Raises:
        VideoError: the file is truncated, or its packets cannot be read.
    """
    table = scan(container, stream)
    missing = missing_bytes(source.file)
    declared = stream.frames
    # Complete video in a file cut off behind it (trailing audio, say) is no reason to refuse.
    if missing and (table.corrupt or table.packets < declared or not declared):
        whole = table.packets - table.corrupt
        of = f" of {declared}" if declared else ""
        raise VideoError(f"{source.name}: truncated: {missing} bytes are missing, {whole}{of} frames are there")
    if table.error is not None:
        raise VideoError(
            f"{source.name}: corrupt: reading stops after {table.packets} frames: {plain(table.error)}"
        ) from table.error
    return table


def _rate(stream: VideoStream) -> float | None:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def clock(table: Table, stream: VideoStream) -> Clock:
    """Compute the times of all frames of a table without ``problem``, from pts."""
    unit = float(stream.time_base or 0)
    first = table.pts[table.order[0]]
    times = tuple((table.pts[position] - first) * unit for position in table.order)
    fps = _rate(stream)
    duration = (table.end - first) * unit
    if duration <= times[-1]:
        duration = times[-1] + _last_frame(times, fps)
    return Clock(start=first * unit, timestamps=times, fps=fps, duration=duration or None)


def _last_frame(times: Sequence[float], fps: float | None) -> float:
    """Seconds that the last frame is shown where the file does not say: as long as the one before, or the average."""
    spans = [times[-1] - times[-2]] if len(times) > 1 else []
    # An average that a container claims may be far off (screen recordings), and so may one pause before the end.
    return min([*spans, *([1 / fps] if fps else [])], default=0.0)


def _seek(
    container: InputContainer, stream: VideoStream, table: Table, position: int
) -> Iterator[tuple[int, av.Packet]]:
    """Packets from ``position`` (decode order) on, with their positions."""
    where = table.where
    keys = [at for at in range(position + 1) if table.key[at]][::-1][:3] or [0]
    for key in keys:
        # Some demuxers seek by decode time, some by presentation time; the smaller one never lands too late for long.
        dts = table.dts[key]
        container.seek(table.pts[key] if dts is None else min(dts, table.pts[key]), stream=stream, backward=True)
        following = packets(container, stream)
        for packet in following:
            if packet.size == 0:
                continue
            at = where.get(packet.pts) if packet.pts is not None else None
            if at is None or at > position:
                break
            if at == position:
                yield at, packet
                for later in following:
                    if later.size:
                        if later.pts is None or later.pts not in where:
                            raise _UnusableError
                        yield where[later.pts], later
                return
    raise _UnusableError


def _decode_stretch(
    container: InputContainer, stream: VideoStream, table: Table, stretch: Stretch, picker: _Picker
) -> None:
    wanted = {table.pts[table.order[index]]: index for index in stretch.targets}
    positions = {table.order[index] for index in stretch.targets}
    starting = table.pts[stretch.start]
    leading = min(wanted) >= starting
    context = stream.codec_context
    # HEVC marks frames as non-reference per temporal layer, so a wanted frame may refer to one; H.264 does not.
    can_skip = context.name == "h264"

    def take(frames: list[VideoFrame]) -> None:
        for frame in frames:
            picker.decoded += 1
            if frame.is_corrupt:
                raise _UnusableError
            if frame.pts in wanted:
                picker.put(wanted.pop(frame.pts), frame)

    try:
        for at, packet in _seek(container, stream, table, stretch.start):
            # Open GOP: frames shown before the starting keyframe refer to frames that were jumped over.
            if not (leading and table.pts[at] < starting):
                if can_skip:
                    context.skip_frame = "DEFAULT" if at in positions else "NONREF"
                take(context.decode(packet))
            if at >= stretch.stop:
                break
        take(context.decode(None))
    except FFmpegError as error:
        raise _UnusableError from error
    if wanted:
        raise _UnusableError


def _all_frames(
    container: InputContainer, stream: VideoStream, has_keys: bool, damage: list[FFmpegError | None]
) -> Iterator[VideoFrame]:
    """Decode from the start; what fails after the first good frame is added to ``damage``."""
    seen = started = False
    for packet in packets(container, stream):
        # A recording may start between keyframes; what comes before the first cannot be decoded and is not counted.
        started = started or packet.is_keyframe or not has_keys
        if not started:
            continue
        try:
            frames = stream.codec_context.decode(packet)
        except FFmpegError as error:
            if seen:
                damage.append(error)
            continue
        for frame in frames:
            if frame.is_corrupt:
                if seen:
                    damage.append(None)
                continue
            seen = True
            yield frame


def _read_by_decoding(source: Encoded, table: Table, sampling: Sampling, threads: int, decoded: int) -> Video:
    """Count by decoding everything, then decode again up to the last frame wanted (memory stays small)."""
    has_keys = any(table.key)
    damage: list[FFmpegError | None] = []
    # Without a problem in the table, it is damage that brought us here.
    strict = table.problem is None
    with open_stream(source, threads, strict=strict) as (container, stream):
        pts = [frame.pts for frame in _all_frames(container, stream, has_keys, damage)]
        unit = float(stream.time_base or 0)
        fps = _rate(stream)
        timed = container.format.name != "avi"
    total = len(pts)
    decoded += total
    if damage or not total:
        cause = next((error for error in damage if error is not None), None)
        count = max(table.packets, total + len(damage))
        detail = f" ({plain(cause)})" if cause else ""
        if not count:
            raise VideoError(f"{source.name}: the video stream holds no frames")
        raise VideoError(
            f"{source.name}: corrupt or truncated: {total} of {count} frames can be decoded{detail}"
        ) from cause
    known = [p for p in pts if p is not None]
    if timed and len(known) == total and all(a < b for a, b in pairwise(known)):
        times = tuple((p - known[0]) * unit for p in known)
    else:
        times = tuple(i / (fps or _RAW_FPS) for i in range(total))
    indices = sampling.indices(total, fps, timestamps=times)
    picker = _Picker(name=source.name, limits=source.limits, indices=indices, decoded=decoded)
    wanted = set(picker.indices)
    with open_stream(source, threads, strict=strict) as (container, stream):
        for index, frame in enumerate(_all_frames(container, stream, has_keys, damage)):
            picker.decoded += 1
            if index in wanted:
                picker.put(index, frame)
            if index == picker.indices[-1]:
                break
    duration = times[-1] + _last_frame(times, fps or _RAW_FPS)
    return _video(source, picker, Clock(start=0.0, timestamps=times, fps=fps, duration=duration))


def _video(source: Encoded, picker: _Picker, times: Clock) -> Video:
    if picker.frames is None or len(picker.filled) != len(picker.indices):
        raise VideoError(
            f"{source.name}: {len(picker.filled)} of {len(picker.indices)} frames asked for can be decoded"
        )
    return Video(
        frames=picker.frames,
        indices=tuple(picker.indices),
        timestamps=tuple(times.timestamps[i] for i in picker.indices),
        source_frames=len(times.timestamps),
        source_fps=times.fps,
        duration=times.duration,
        decoder="pyav",
        source=source.name,
        decoded=picker.decoded,
        scaled_from=picker.scaled_from,
    )


def read_pyav(source: Encoded, sampling: Sampling, threads: int) -> Video:
    """Read frames with PyAV.

    Args:
        source: encoded video.
        sampling: which frames.
        threads: decoder threads, 0 for as many as there are cores.

    Returns:
        The frames.

    Raises:
        VideoError: no video in it, truncated, or a frame that is needed cannot be decoded cleanly.
    """
    decoded = 0
    with open_stream(source, threads) as (container, stream):
        table = examine_stream(source, container, stream)
        if table.problem is None and table.order:
            times = clock(table, stream)
            picker = _Picker(
                name=source.name,
                limits=source.limits,
                indices=sampling.indices(len(table.order), times.fps, timestamps=times.timestamps),
            )
            try:
                for stretch in stretches(table, picker.indices):
                    _decode_stretch(container, stream, table, stretch, picker)
                return _video(source, picker, times)
            except (_UnusableError, FFmpegError):
                # Seeking is only a shortcut: plain decoding has the last word on what the file holds.
                decoded = picker.decoded
    return _read_by_decoding(source, table, sampling, threads, decoded)
