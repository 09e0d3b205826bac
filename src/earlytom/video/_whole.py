"""Frames numbered by decoding a stream from start to end, with what of it is damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from av.error import FFmpegError

from earlytom.video._opening import packets
from earlytom.video._table import NO_TIME, Table

if TYPE_CHECKING:
    import numpy.typing as npt
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["Whole", "decode_from_start", "number_frames", "settled"]

# Where the container does not declare a number of frames, it is that of packets with these codecs.
_ONE_FRAME_A_PACKET = frozenset({"mpeg1video", "mpeg2video", "mpeg4", "hevc", "vp8", "vp9", "av1"})

# A packet that the demuxer marks because packets before it are missing may only be the end of a recording to which
# another was joined. The mark comes up to so many packets before the keyframe of the other.
_SEAM = 3


@dataclass(kw_only=True, eq=False)
class Whole:
    """The frames of a stream.

    Attributes:
        order: positions (decode order) of the packets the frames come from, in presentation order.
        given: positions of the packets of the frames that the decoder puts out whole, in the order in which it does.
        numbers: their frame numbers.
        damaged: numbers of the frames that are lost or may show what they should not, ascending.
        cause: the first error of the decoder, where there was one.
        timed: whether the packet times ascend in the order of frames, so that they are theirs.
    """

    order: list[int]
    given: list[int]
    numbers: list[int]
    damaged: list[int]
    cause: FFmpegError | None
    timed: bool

    @cached_property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First and last number of each run of damaged frames."""
        runs = np.split(self.damaged, np.flatnonzero(np.diff(self.damaged) > 1) + 1)
        return tuple((int(run[0]), int(run[-1])) for run in runs if len(run))

    def nearest_whole(self, indices: Sequence[int]) -> list[int]:
        """The whole frame nearest to each of ``indices`` (the earlier of two), each once, ascending."""
        whole = np.setdiff1d(np.arange(len(self.order)), self.damaged, assume_unique=True)
        after = np.searchsorted(whole, indices).clip(max=len(whole) - 1)
        before = (after - 1).clip(min=0)
        nearer = np.abs(whole[before] - indices) <= np.abs(whole[after] - indices)
        exact = whole[after] == indices
        return [int(i) for i in np.unique(np.where(exact | ~nearer, whole[after], whole[before]))]


@dataclass(kw_only=True, eq=False)
class _Damage:
    """What goes wrong while a stream is decoded."""

    positions: list[int] = field(default_factory=list)
    cause: FFmpegError | None = None

    def note(self, position: int, error: FFmpegError | None = None) -> None:
        self.positions.append(position)
        self.cause = self.cause or error


def _first(table: Table) -> int:
    # A recording may start between keyframes; what comes before the first cannot be decoded and is not counted.
    return table.key.index(True) if table.starts_anywhere and True in table.key else 0


def settled(context: VideoCodecContext, packet: Packet) -> list[VideoFrame]:
    """Let all threads of a decoder finish, before it is drained.

    A decoder that reorders frames, drained while others still decode, gives out theirs before it is known that they
    are damaged.

    Args:
        context: the decoder.
        packet: any packet of the stream; nothing is decoded of it.

    Returns:
        Frames that come out meanwhile.
    """
    if context.thread_count == 1 or not context.has_b_frames:
        return []
    context.skip_frame = "ALL"
    try:
        return [frame for _ in range(context.thread_count) for frame in context.decode(packet)]
    finally:
        context.skip_frame = "DEFAULT"


def decode_from_start(
    container: InputContainer, stream: VideoStream, table: Table, damage: _Damage | None = None
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode a freshly opened stream.

    Args:
        container: freshly opened container.
        stream: video stream of it.
        table: its table.
        damage: takes what fails.

    Yields:
        The position of its packet (decode order) and each frame, in presentation order; not those marked corrupt.
    """
    damage = damage or _Damage()
    first, position, at = _first(table), -1, -1
    context, latest = stream.codec_context, None
    for packet in packets(container, stream):
        if packet.size:
            position += 1
            if position < first:
                continue
            # The decoder hands on to a frame whatever time its packet has: its place tells more than its time, which
            # may be absent, wrong or shared.
            packet.pts = packet.dts = position
            latest = packet
        try:
            frames = settled(context, latest) if latest and not packet.size else []
            frames += context.decode(packet)
        except FFmpegError as error:
            damage.note(max(position, 0), error)
            continue
        for frame in frames:
            at = min(at + 1 if frame.pts is None else frame.pts, table.packets - 1)
            if frame.is_corrupt:
                damage.note(at)
            else:
                yield at, frame


def number_frames(container: InputContainer, stream: VideoStream, table: Table) -> Whole:
    """Decode a whole stream to find which frames it has, without keeping any.

    Args:
        container: freshly opened container.
        stream: video stream of it.
        table: its table.

    Returns:
        The frames, with what is damaged.
    """
    damage = _Damage()
    given = [at for at, _ in decode_from_start(container, stream, table, damage)]
    timed = NO_TIME not in table.pts and container.format.name != "avi"
    timed = timed and all(table.pts[a] < table.pts[b] for a, b in pairwise(given))
    bad = _bad(table, damage, _missing(stream, table, given))
    tainted = _tainted(table, bad) if timed else _around(table, bad)
    there = set(given)
    lost = [at for at in np.flatnonzero(tainted).tolist() if table.shown[at] and at not in there]
    order = sorted(given + lost, key=table.pts.__getitem__) if timed else _merged(given, lost)
    ranks = {at: number for number, at in enumerate(order)}
    return Whole(
        order=order,
        given=given,
        numbers=[ranks[at] for at in given],
        damaged=np.flatnonzero(tainted[order]).tolist() if order else [],
        cause=damage.cause,
        timed=timed,
    )


def _merged(given: list[int], lost: list[int]) -> list[int]:
    """Lost frames among those that were decoded, each before the first that is stored behind it."""
    order: list[int] = []
    passed = 0
    for at in given:
        while passed < len(lost) and lost[passed] < at:
            order.append(lost[passed])
            passed += 1
        order.append(at)
    return order + lost[passed:]


def _missing(stream: VideoStream, table: Table, given: list[int]) -> set[int]:
    """Positions of packets that gave no frame and should have, as far as is known how many frames there are."""
    codec, timed = stream.codec_context.name, NO_TIME not in table.pts
    every = stream.frames == table.packets or (timed and codec in _ONE_FRAME_A_PACKET)
    if not every and not (timed and codec == "h264" and given):
        return set()
    # A recording of H.264 may be cut where the picture takes a whole group to build up (intra refresh).
    begin = _first(table) if every else table.next_key(min(given))
    missing = {at for at in range(begin, table.packets) if table.shown[at]} - set(given) - set(table.tiny)
    # And the two fields of a frame may be packets of their own, of which the second gives none.
    return missing if every else {at for at in missing if at - 1 in missing or at + 1 in missing}


def _bad(table: Table, damage: _Damage, missing: set[int]) -> list[int]:
    """Positions of packets whose frame is lost or damaged."""
    first = _first(table)
    bad = missing.union(damage.positions) - _leading(table, first)
    bad.update(at for at in table.corrupt if at >= first and table.next_key(at) - at > _SEAM)
    return sorted(bad)


def _tainted(table: Table, bad: list[int]) -> npt.NDArray[np.bool_]:
    """For every packet, whether its frame is bad, or may refer to one that is: all up to the next keyframe."""
    tainted = np.zeros(table.packets, dtype=np.bool_)
    for at, following in _first_of_groups(table, bad):
        tainted[at:following] = True
        tainted[sorted(_leading(table, following))] = True
    return tainted


def _around(table: Table, bad: list[int]) -> npt.NDArray[np.bool_]:
    """The same without times: from the keyframe before, as where a lost frame belongs can be told from keyframes only.

    And up to the second keyframe behind, as frames that are stored behind the first may be shown before it.
    """
    tainted = np.zeros(table.packets, dtype=np.bool_)
    for at, following in _first_of_groups(table, bad):
        begin = next(iter(table.keys_before(at, 1)), 0)
        tainted[begin : table.next_key(following)] = True
    return tainted


def _first_of_groups(table: Table, bad: list[int]) -> Iterator[tuple[int, int]]:
    """The first bad position between two keyframes, and the second of the two."""
    end = 0
    for at in bad:
        if at >= end:
            end = table.next_key(at)
            yield at, end


def _leading(table: Table, key: int) -> set[int]:
    """Packets behind a keyframe whose frames are shown before it (open GOP): they refer to frames before it."""
    if key >= table.packets or table.pts[key] == NO_TIME:
        return set()
    return {at for at in range(key + 1, table.next_key(key)) if NO_TIME < table.pts[at] < table.pts[key]}
