"""The frame table of a stream, from its packets alone: reading packets is cheap, decoding them is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["Stretch", "Table", "scan", "stretches"]

# A seek flushes the decoder and starts at a keyframe, the dearest frame to decode: not worth it for a few packets.
_MIN_SKIP = 8


@dataclass(frozen=True, kw_only=True)
class Table:
    """What the packets of a video stream say.

    Attributes:
        pts: presentation time of every packet in stream time units, decode order.
        dts: decode time likewise, None where unknown.
        key: whether decoding can start at the packet.
        order: positions (in decode order) of the packets that are shown, in presentation order: entry ``i`` belongs
            to frame ``i`` of the video.
        end: pts at which the last frame ends.
        problem: why the table cannot be trusted to number frames, None when it can.
        packets: number of packets with a picture, also when ``problem`` is set.
        corrupt: number of packets cut short or marked corrupt by the demuxer.
        error: error that ended the reading of packets early.
    """

    pts: tuple[int, ...]
    dts: tuple[int | None, ...]
    key: tuple[bool, ...]
    order: tuple[int, ...]
    end: int
    problem: str | None
    packets: int
    corrupt: int
    error: Exception | None

    @cached_property
    def where(self) -> dict[int, int]:
        """Position in decode order by pts."""
        return {pts: at for at, pts in enumerate(self.pts)}


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Packets to decode in one go.

    Attributes:
        start: position of the first packet (decode order), a keyframe wherever there is one.
        stop: position of the last packet needed.
        targets: frame numbers wanted from it, ascending.
    """

    start: int
    stop: int
    targets: tuple[int, ...]


def _is_hidden(packet: Packet, codec: str) -> bool:
    """Whether a packet updates references only: VP8 stores such frames as packets of their own (show_frame bit)."""
    return codec == "vp8" and not bytes(packet)[0] & 0x10


def scan(container: InputContainer, stream: VideoStream) -> Table:
    """Read all packets of a stream, from the current position to the end, without decoding.

    Args:
        container: freshly opened container.
        stream: video stream of it.

    Returns:
        The table; its ``problem`` says when frames have to be counted by decoding instead.
    """
    from av.error import FFmpegError

    from earlytom.video._opening import packets as read_packets

    codec = stream.codec_context.name
    pts: list[int] = []
    dts: list[int | None] = []
    key: list[bool] = []
    shown: list[int] = []
    ends: list[int] = []
    packets = corrupt = 0
    problem: str | None = None
    error: Exception | None = None
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        problem = "AVI stores no presentation times, and this codec reorders frames"
    try:
        for packet in read_packets(container, stream):
            if packet.size == 0:
                continue
            packets += 1
            corrupt += packet.is_corrupt
            if packet.pts is None:
                problem = problem or "packets without presentation time"
                continue
            if not packet.is_discard and not _is_hidden(packet, codec):
                shown.append(len(pts))
                ends.append(packet.pts + (packet.duration or 0))
            pts.append(packet.pts)
            dts.append(packet.dts)
            key.append(packet.is_keyframe)
    except FFmpegError as caught:
        error = caught
    if len(set(pts)) != len(pts):
        problem = problem or "packets that share a presentation time"
    if any(key) and min(shown, default=0) < key.index(True):
        problem = problem or "frames before the first keyframe"
    return Table(
        pts=tuple(pts),
        dts=tuple(dts),
        key=tuple(key),
        order=tuple(sorted(shown, key=pts.__getitem__)),
        end=max(ends, default=0),
        problem=problem,
        packets=packets,
        corrupt=corrupt,
        error=error,
    )


def stretches(table: Table, indices: Sequence[int]) -> list[Stretch]:
    """Find the fewest packets to decode for some frames.

    Args:
        table: a table without ``problem``.
        indices: frame numbers, ascending.

    Returns:
        Stretches in order. Two are joined where going on costs no more than seeking.
    """
    keys = np.flatnonzero(table.key)
    found: list[Stretch] = []
    for index in indices:
        position = table.order[index]
        start = 0
        for candidate in keys[: np.searchsorted(keys, position, side="right")][::-1]:
            # A frame shown before its keyframe (open GOP) refers to frames before that keyframe.
            if table.pts[candidate] <= table.pts[position]:
                start = int(candidate)
                break
        last = found[-1] if found else None
        if last is not None and start - last.stop <= _MIN_SKIP:
            found[-1] = Stretch(
                start=min(last.start, start), stop=max(last.stop, position), targets=(*last.targets, index)
            )
        else:
            found.append(Stretch(start=start, stop=position, targets=(index,)))
    return found
