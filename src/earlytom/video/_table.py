"""The frame table of a stream, from its packets alone: reading packets is cheap, decoding them is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from earlytom.video._times import crosses_keyframes, doubtful, goes_back

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["MIN_SKIP", "NO_TIME", "Stretch", "Table", "scan", "stretches"]

# A seek flushes the decoder and starts at a keyframe, the dearest frame to decode: not worth it for a few packets.
MIN_SKIP = 8

# Where packet times may be wrong, so many packets more are decoded than the frame wanted and those that are said to be
# shown before it: pictures shown before one that is stored before them follow it closely (B-frames their reference, a
# second field the first).
_LOOKAHEAD = 4

# A frame is shown before its keyframe or the one before that; a table in which many are is no reason to look far.
_CANDIDATES = 8

# Bytes; "as before" takes 7 or 8 in MPEG-4.
_TINY = 16

# Broadcasts and raw streams are cut anywhere.
_STARTS_ANYWHERE = frozenset({"mpegts", "mpeg", "flv", "asf", "h264", "hevc", "mpegvideo", "m4v", "vc1"})

# Containers that store times of presentation and of decoding; for others libav guesses the one from the other.
_STORES_BOTH = frozenset({"mov", "flv", "mpegts", "mpeg"})

# Stands for an unknown time.
NO_TIME = -(1 << 63)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """What the packets of a video stream say.

    Attributes:
        pts: presentation time of every packet in stream time units, decode order; ``NO_TIME`` where unknown.
        dts: decode time likewise.
        key: whether decoding can start at the packet.
        shown: whether the packet makes a frame that is shown.
        doubtful: bool array, whether the pts of the packet may be wrong (:func:`earlytom.video._times.doubtful`).
        order: positions (in decode order) of the packets that are shown, in presentation order: entry ``i`` belongs
            to frame ``i`` of the video.
        end: pts at which the last frame ends.
        reorders: whether the codec was found to reorder frames.
        problem: why the table cannot be trusted to number frames, None when it can.
        corrupt: positions of packets cut short or marked corrupt by the demuxer.
        tiny: positions of packets too short for a picture: some codecs say so that the last one stays (MPEG-4).
        absent: number of frames that the container declares, but does not have.
        starts_anywhere: whether such recordings may begin between keyframes.
        error: error that ended the reading of packets early.
    """

    pts: list[int]
    dts: list[int]
    size: list[int]
    key: list[bool]
    shown: list[bool]
    doubtful: npt.NDArray[np.bool_]
    order: list[int]
    end: int
    reorders: bool
    problem: str | None
    corrupt: list[int]
    tiny: list[int]
    absent: int
    starts_anywhere: bool
    error: Exception | None

    @property
    def packets(self) -> int:
        """Number of packets with a picture, also when ``problem`` is set."""
        return len(self.pts)

    @cached_property
    def where(self) -> dict[int, int]:
        """Position in decode order by pts."""
        return {pts: at for at, pts in enumerate(self.pts)}

    @cached_property
    def reach(self) -> npt.NDArray[np.intp]:
        """For each frame, the last position (decode order) of it and those shown before it."""
        return np.maximum.accumulate(self.order)

    @cached_property
    def opens(self) -> npt.NDArray[np.bool_]:
        """For each packet, whether in its group (a keyframe to the next) frames are shown before the keyframe."""
        starts = np.unique(np.append(0, self._keys))
        pts = np.asarray(self.pts, dtype=np.int64)
        lengths = np.diff(np.append(starts, len(pts)))
        return np.repeat(np.minimum.reduceat(pts, starts) < pts[starts], lengths)

    @cached_property
    def _keys(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self.key)

    @cached_property
    def starts(self) -> npt.NDArray[np.intp]:
        """For every packet, the keyframe from which it can be decoded; 0 where none is found."""
        pts = np.asarray(self.pts, dtype=np.int64)
        found = np.zeros(len(pts), dtype=np.intp)
        left = np.arange(len(pts))
        last = np.searchsorted(self._keys, left, side="right") - 1
        for back in range(_CANDIDATES):
            left = left[last[left] >= back]
            candidate = self._keys[last[left] - back]
            # A frame shown before its keyframe (open GOP) refers to frames before that keyframe.
            reached = pts[candidate] <= pts[left]
            found[left[reached]] = candidate[reached]
            left = left[~reached]
        return found

    def keys_before(self, position: int, count: int) -> list[int]:
        """The last ``count`` keyframes up to and with ``position``, the last first."""
        end = int(np.searchsorted(self._keys, position, side="right"))
        return [int(at) for at in self._keys[max(0, end - count) : end][::-1]]

    def next_key(self, position: int) -> int:
        """The first keyframe behind ``position``, or the number of packets where none follows."""
        following = int(np.searchsorted(self._keys, position, side="right"))
        return int(self._keys[following]) if following < len(self._keys) else self.packets


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Packets to decode in one go.

    Attributes:
        start: position of the first packet (decode order), a keyframe wherever there is one.
        stop: position of the last packet needed.
        doubtful: whether the times of its packets may be wrong.
        targets: frame numbers wanted from it, ascending.
    """

    start: int
    stop: int
    doubtful: bool
    targets: Sequence[int]


@dataclass(kw_only=True, eq=False)
class _Packets:
    """Columns of a table while packets are read."""

    pts: list[int] = field(default_factory=list)
    dts: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    corrupt: list[int] = field(default_factory=list)
    tiny: list[int] = field(default_factory=list)
    empty: int = 0
    latest: int = NO_TIME
    end: int = 0

    def add(self, packet: Packet, hidden: bool) -> None:
        pts, dts = packet.pts, packet.dts
        shown = not (hidden or packet.is_discard)
        if packet.is_corrupt:
            self.corrupt.append(len(self.pts))
        if packet.size < _TINY:
            self.tiny.append(len(self.pts))
        if shown and pts is not None and pts > self.latest:
            # Of the last frame alone: MP4 stores the time until the next one is decoded, which goes beyond the end
            # where a frame that is shown long is followed by one that is shown before it.
            self.latest, self.end = pts, pts + (packet.duration or 0)
        self.pts.append(NO_TIME if pts is None else pts)
        self.dts.append(NO_TIME if dts is None else dts)
        self.size.append(packet.size)
        self.key.append(packet.is_keyframe)
        self.shown.append(shown)


def _is_hidden(packet: Packet) -> bool:
    """Whether a packet updates references only: VP8 stores such frames as packets of their own (show_frame bit)."""
    return not bytes(packet)[0] & 0x10


def scan(container: InputContainer, stream: VideoStream) -> Table:
    """Read all packets of a stream, from the current position to the end, without decoding.

    Args:
        container: freshly opened container.
        stream: video stream of it.

    Returns:
        The table; its ``problem`` says when frames have to be counted by decoding instead.
    """
    from av.error import FFmpegError

    from earlytom.video._opening import packets

    may_hide = stream.codec_context.name == "vp8"
    found = _Packets()
    error: Exception | None = None
    try:
        for packet in packets(container, stream):
            if packet.size:
                found.add(packet, may_hide and _is_hidden(packet))
            elif packet.dts is not None:
                found.empty += 1
    except FFmpegError as caught:
        error = caught
    reorders = bool(stream.codec_context.has_b_frames)
    name = container.format.name
    pts, shown = np.asarray(found.pts, dtype=np.int64), np.flatnonzero(found.shown)
    dts = np.asarray(found.dts, dtype=np.int64) if set(name.split(",")) & _STORES_BOTH else None
    doubt = doubtful(pts, found.key, dts) if reorders else np.zeros(len(pts), dtype=np.bool_)
    return Table(
        pts=found.pts,
        dts=found.dts,
        size=found.size,
        key=found.key,
        shown=found.shown,
        doubtful=doubt,
        order=shown[np.argsort(pts[shown], kind="stable")].tolist(),
        end=found.end,
        reorders=reorders,
        problem=_problem(found, pts, reorders, name == "avi", bool(doubt.any())),
        corrupt=found.corrupt,
        tiny=found.tiny,
        # An edit list may leave frames out, but then reading them does not fail.
        absent=max(0, stream.frames - len(found.pts) - found.empty) if name == "avi" or found.corrupt else 0,
        starts_anywhere=name in _STARTS_ANYWHERE,
        error=error,
    )


def _problem(found: _Packets, pts: npt.NDArray[np.int64], reorders: bool, untimed: bool, doubts: bool) -> str | None:
    """Why packets cannot number frames."""
    if reorders and untimed:
        return "AVI stores no presentation times, and this codec reorders frames"
    if NO_TIME in found.pts:
        return "packets without presentation time"
    if len(set(found.pts)) != len(found.pts):
        return "packets that share a presentation time"
    if True in found.key and True in found.shown and found.shown.index(True) < found.key.index(True):
        return "frames before the first keyframe"
    if goes_back(pts) and goes_back([time for time in found.dts if time != NO_TIME]):
        # Recordings joined without a new clock: sorting would shuffle their frames.
        return "the clock jumps back"
    if goes_back(pts) and not reorders:
        return "presentation times go back, and this codec does not reorder frames"
    if doubts and crosses_keyframes(pts, found.key):
        return "presentation times contradict keyframes"
    return None


def stretches(table: Table, indices: Sequence[int]) -> list[Stretch]:
    """Find the fewest packets to decode for some frames.

    Args:
        table: a table without ``problem``.
        indices: frame numbers, ascending.

    Returns:
        Stretches in order. Two are joined where going on costs no more than seeking.
    """
    found: list[Stretch] = []
    # Of the stretch under way; its targets are collected apart, as copying them for each one more takes ages.
    start = stop = 0
    doubtful = False
    targets: list[int] = []
    for index in indices:
        position = table.order[index]
        doubt = bool(table.doubtful[position])
        first = int(table.starts[position])
        if doubt and table.opens[first]:
            # Are they, or is the time of the keyframe wrong? From the one before, decoding shows.
            first = next(iter(table.keys_before(first - 1, 1)), first)
        last = min(int(table.reach[index]) + _LOOKAHEAD, table.packets - 1) if doubt else position
        if targets and first - stop <= MIN_SKIP:
            start, stop, doubtful = min(start, first), max(stop, last), doubtful or doubt
        else:
            if targets:
                found.append(Stretch(start=start, stop=stop, doubtful=doubtful, targets=targets))
            start, stop, doubtful, targets = first, last, doubt, []
        targets.append(index)
    if targets:
        found.append(Stretch(start=start, stop=stop, doubtful=doubtful, targets=targets))
    return found
