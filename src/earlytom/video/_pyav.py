"""Decoding with PyAV: frame table from packets, seeks to the keyframes needed, plain decoding where that fails."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError

from earlytom.errors import VideoError
from earlytom.video._colour import look_of
from earlytom.video._h264 import is_reference
from earlytom.video._integrity import missing_bytes
from earlytom.video._near import take_near, told
from earlytom.video._opening import open_stream, packets, plain
from earlytom.video._picking import Clock, Picker
from earlytom.video._source import Encoded
from earlytom.video._table import NO_TIME, Stretch, Table, scan, stretches
from earlytom.video._whole import Whole, decode_from_start, number_frames, settled
from earlytom.video.sampling import Sampling
from earlytom.video.types import Video

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["UnusableError", "clock", "decode_stretch", "examine_stream", "read_pyav"]

# What libav itself assumes for raw streams, which carry no times.
_RAW_FPS = 25.0


class UnusableError(Exception):
    """Seeking did not give the frames the table promises; the cause, if any, is chained."""


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
        whole = table.packets - len(table.corrupt)
        of = f" of {declared}" if declared else ""
        raise VideoError(f"{source.name}: truncated: {missing} bytes are missing, {whole}{of} frames are there")
    if table.absent:
        raise VideoError(f"{source.name}: corrupt: {table.packets} of {declared} frames are there")
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
    times = [(table.pts[position] - first) * unit for position in table.order]
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
    for key in table.keys_before(position, 3) or [0]:
        # Some demuxers seek by decode time, some by presentation time; the smaller one never lands too late for long.
        dts = table.dts[key]
        container.seek(table.pts[key] if dts == NO_TIME else min(dts, table.pts[key]), stream=stream, backward=True)
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
                            raise UnusableError
                        yield where[later.pts], later
                return
    raise UnusableError


@dataclass(kw_only=True)
class _Output:
    """What the decoder puts out for a stretch, held against the table.

    Attributes:
        wanted: frame numbers still to be picked, by presentation time.
        picker: takes their frames.
        expected: presentation times of frames that packets went in for and that have not come out yet.
        latest: presentation time of the last frame that came out.
    """

    wanted: dict[int, int]
    picker: Picker
    expected: set[int] = field(default_factory=set)
    latest: int = NO_TIME

    def take(self, frames: list[VideoFrame]) -> None:
        """Pick what is wanted of some frames. Raises `UnusableError` for one that is damaged or was not to come."""
        for frame in frames:
            self.picker.decoded += 1
            # Decoders put frames out in presentation order.
            if frame.is_corrupt or frame.pts is None or frame.pts <= self.latest or frame.pts not in self.expected:
                raise UnusableError
            self.latest = frame.pts
            self.expected.remove(frame.pts)
            if frame.pts in self.wanted:
                self.picker.put(self.wanted.pop(frame.pts), frame)


def decode_stretch(
    container: InputContainer, stream: VideoStream, table: Table, stretch: Stretch, picker: Picker
) -> None:
    """Decode some packets and pick the frames wanted of them.

    Args:
        container: open container, anywhere.
        stream: video stream of it.
        table: its table, without ``problem``.
        stretch: what to decode.
        picker: takes the frames.

    Raises:
        UnusableError: seeking or the frames decoded contradict the table, or a frame is damaged.
    """
    if bisect_left(table.corrupt, stretch.start) < bisect_right(table.corrupt, stretch.stop):
        raise UnusableError
    output = _Output(wanted={table.pts[table.order[index]]: index for index in stretch.targets}, picker=picker)
    positions = {table.order[index] for index in stretch.targets}
    starting = table.pts[stretch.start]
    # Where the times of the first group are in doubt, a frame shown before its keyframe is no proof of an open group.
    leading = min(output.wanted) >= starting and not (stretch.doubtful and stretch.start == 0)
    context = stream.codec_context
    # HEVC marks frames as non-reference per temporal layer, so a wanted frame may refer to one; H.264 does not. Where
    # the times are in doubt, every frame is a witness. Not left to the decoder (skip_frame): it then keeps silent about
    # packets without a picture, and whether a frame is left out or lost would be anyone's guess.
    can_skip = context.name == "h264" and not stretch.doubtful
    configuration = context.extradata or b""
    try:
        for at, packet in _seek(container, stream, table, stretch.start):
            # Where an index does not belong to its packets (AVI), seeking gives others, under the same times.
            if packet.size != table.size[at]:
                raise UnusableError
            # Open GOP: frames shown before the starting keyframe refer to frames that were jumped over.
            jumped = leading and table.pts[at] < starting
            if not jumped and (at in positions or not can_skip or is_reference(bytes(packet), configuration)):
                if table.shown[at]:
                    output.expected.add(table.pts[at])
                output.take(context.decode(packet))
            if at >= stretch.stop:
                break
        output.take(settled(context, packet))
        output.take(context.decode(None))
    except FFmpegError as error:
        raise UnusableError from error
    # A codec found to reorder only now would not have raised doubts before.
    if output.wanted or output.expected or bool(context.has_b_frames) != table.reorders:
        raise UnusableError


def _read_by_decoding(
    source: Encoded, table: Table, sampling: Sampling, threads: int, decoded: int, tolerance: float
) -> Video:
    """Count by decoding everything, then decode again up to the last frame wanted (memory stays small)."""
    whole, times, strict = _numbered(source, table, threads)
    _check_damage(source, whole, table, tolerance)
    indices = sampling.indices(len(whole.order), times.fps, timestamps=times.timestamps)
    picker = Picker(
        name=source.name,
        limits=source.limits,
        indices=whole.nearest_whole(indices) if whole.damaged else indices,
        decoded=decoded + len(whole.given),
    )
    wanted = set(picker.indices)
    with open_stream(source, threads, strict=strict) as (container, stream):
        frames = decode_from_start(container, stream, table)
        for number, place, (at, frame) in zip(whole.numbers, whole.given, frames, strict=False):
            picker.decoded += 1
            if at != place:
                raise VideoError(f"{source.name}: corrupt: decoding it twice gives different frames")
            if number in wanted:
                picker.put(number, frame)
            if len(picker.filled) == len(wanted):
                break
    return picker.video(times, whole.ranges)


def _numbered(source: Encoded, table: Table, threads: int) -> tuple[Whole, Clock, bool]:
    """The frames, their times, and whether it took strict decoding to find them."""
    # Without a problem in the table, it may be damage that brought us here. Threads report errors late.
    strict = table.problem is None
    while True:
        with open_stream(source, threads, strict=strict) as (container, stream):
            whole = number_frames(container, stream, table)
            if strict or not (whole.damaged or whole.cause):
                return whole, _clock_of(whole, table, stream), strict
        strict = True


def _check_damage(source: Encoded, whole: Whole, table: Table, tolerance: float) -> None:
    total = len(whole.order) if whole.given else max(len(whole.order), table.packets)
    if not total:
        raise VideoError(f"{source.name}: the video stream holds no frames")
    good = len(whole.order) - len(whole.damaged)
    if good and len(whole.damaged) <= tolerance * total:
        return
    detail = f" ({plain(whole.cause)})" if whole.cause else ""
    share = f"; damage_tolerance is {tolerance:g}" if tolerance else ""
    raise VideoError(
        f"{source.name}: corrupt or truncated: {good if whole.given else 0} of {total} frames can be decoded"
        f"{detail}{share}"
    ) from whole.cause


def _clock_of(whole: Whole, table: Table, stream: VideoStream) -> Clock:
    """Times of frames that were numbered by decoding: their packets', where those can be; else by frame rate."""
    fps = _rate(stream)
    if whole.timed or table.problem is None:
        unit = float(stream.time_base or 0)
        # Times of decoding are those of presentation in another order, each as often as the other.
        pts = sorted(table.pts[at] for at in whole.order)
        times = [(time - pts[0]) * unit for time in pts]
    else:
        times = [number / (fps or _RAW_FPS) for number in range(len(whole.order))]
    duration = times[-1] + _last_frame(times, fps or _RAW_FPS) if times else None
    return Clock(start=0.0, timestamps=times, fps=fps, duration=duration)


def read_pyav(source: Encoded, sampling: Sampling, threads: int, tolerance: float = 0.0) -> Video:
    """Read frames with PyAV.

    Args:
        source: encoded video.
        sampling: which frames.
        threads: decoder threads, 0 for as many as there are cores.
        tolerance: share of the frames that may be damaged, 0 to 1.

    Returns:
        The frames.

    Raises:
        VideoError: no video in it, truncated, or more frames than allowed cannot be decoded cleanly.
    """
    decoded = 0
    with open_stream(source, threads) as (container, stream):
        table = examine_stream(source, container, stream)
        look = look_of(stream)
        if table.problem is None and table.order:
            times = clock(table, stream)
            asked = sampling.indices(len(table.order), times.fps, timestamps=times.timestamps)
            taken = take_near(table, times.timestamps, asked, sampling, stream.codec_context.name)
            picker = Picker(name=source.name, limits=source.limits, indices=taken)
            try:
                for stretch in stretches(table, picker.indices):
                    decode_stretch(container, stream, table, stretch, picker)
                return replace(picker.video(times), **look, **told(asked, taken, times.timestamps))
            except (UnusableError, FFmpegError):
                # Seeking is only a shortcut: plain decoding has the last word on what the file holds.
                decoded = picker.decoded
    return replace(_read_by_decoding(source, table, sampling, threads, decoded, tolerance), **look)
