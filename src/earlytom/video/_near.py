"""Frames that cost little to decode, near those that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from earlytom.video._table import MIN_SKIP, Table
from earlytom.video.sampling import Sampling

__all__ = ["Off", "nearby", "take_near", "told"]

# What a seek costs beside decoding, in frames: the decoder is emptied, and a keyframe is dearer than other frames.
# Measured: 4 at 720p and 3 Mbit/s, 1 to 2 at 1080p and 33 Mbit/s.
_SEEK = 3

# Decoding so many frames more is worth it to be nearer by the distance of two frames asked for. Without it, half a
# distance would be given away to save one frame.
_NEARNESS = 8.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Costs:
    """What frames cost, by their number in presentation order.

    Attributes:
        position: of its packet, in decode order.
        start: position of the keyframe from which it can be decoded.
        before: frames that are decoded in any case of all packets up to and with its own, from the first on.
        before_start: the same, without its keyframe, up to that.
        alone: 1 where the frame is decoded only if it is wanted, else 0.
    """

    position: npt.NDArray[np.intp]
    start: npt.NDArray[np.intp]
    before: npt.NDArray[np.intp]
    before_start: npt.NDArray[np.intp]
    alone: npt.NDArray[np.intp]

    def first(self, numbers: npt.NDArray[np.intp] | int) -> Any:
        """Cost of each frame where decoding begins at its keyframe."""
        return _SEEK + self.before[numbers] - self.before_start[numbers] + self.alone[numbers]

    def step(self, previous: int, number: int) -> int:
        """Cost of a frame when ``previous``, an earlier one, has been decoded."""
        if self.start[number] - self.position[previous] <= MIN_SKIP:
            reached = max(0, self.before[number] - self.before[previous])
        else:
            reached = _SEEK + self.before[number] - self.before_start[number]
        return int(reached + self.alone[number])


class _Way(NamedTuple):
    """The best choice of frames up to ``number``: what it costs, and the way before."""

    cost: float
    number: int
    before: _Way | None

    @property
    def numbers(self) -> list[int]:
        found: list[int] = []
        way: _Way | None = self
        while way is not None:
            found.append(way.number)
            way = way.before
        return found[::-1]


class Off(TypedDict, total=False):
    """What was asked for, as fields of a `Video`; none where nothing else was taken."""

    asked: tuple[int, ...]
    deviations: tuple[float, ...]


def take_near(table: Table, timestamps: Sequence[float], asked: list[int], sampling: Sampling, codec: str) -> list[int]:
    """The frames to decode for those that a sampling asks for: themselves, unless it allows others (`nearby`)."""
    if not sampling.near:
        return asked
    # As the decoder does: see decode_stretch.
    return nearby(table, timestamps, asked, sampling.near, skips=codec == "h264")


def told(asked: Sequence[int], taken: Sequence[int], timestamps: Sequence[float]) -> Off:
    """What a `Video` says of frames taken for others; ``timestamps`` of all frames in seconds."""
    if list(asked) == list(taken):
        return {}
    deviations = tuple(timestamps[b] - timestamps[a] for a, b in zip(asked, taken, strict=True))
    return {"asked": tuple(asked), "deviations": deviations}


def nearby(table: Table, timestamps: Sequence[float], asked: Sequence[int], share: float, *, skips: bool) -> list[int]:
    """Choose a frame near each that is asked for, so that little is decoded and little given away.

    The choice is the best for all frames together: frames from one keyframe to the next are decoded once, up to the
    last that is taken of them.

    Args:
        table: a table without ``problem``.
        timestamps: seconds of every frame, ascending.
        asked: frame numbers, ascending.
        share: how far off a frame may be, as a share (0 to 0.5) of the seconds to the next one asked for on that side.
            Before the first and behind the last none is taken.
        skips: whether the decoder leaves out frames that no other refers to.

    Returns:
        As many frame numbers, strictly ascending.
    """
    times, numbers = np.asarray(timestamps, dtype=np.float64), np.asarray(asked, dtype=np.intp)
    costs = _costs(table, skips)
    rooms = np.diff(times[numbers], prepend=times[numbers[0]], append=times[numbers[-1]])
    ways: list[_Way] = []
    for at, (low, high) in enumerate(_windows(times, numbers, share * rooms)):
        window = np.arange(low, high + 1)
        off = _NEARNESS * _shares(times[window] - times[asked[at]], rooms[at], rooms[at + 1])
        found = _candidates(costs, window, off, asked[at] - low)
        ways = [_extended(ways, costs, int(window[i]), float(off[i])) for i in found]
    return min(ways).numbers


def _windows(
    times: npt.NDArray[np.float64], asked: npt.NDArray[np.intp], room: npt.NDArray[np.float64]
) -> list[tuple[int, int]]:
    """First and last frame that may stand for each, where so many seconds are allowed on each side; none for two."""
    moments = times[asked]
    low = np.minimum(np.searchsorted(times, moments - room[:-1], side="left"), asked)
    high = np.maximum(np.searchsorted(times, moments + room[1:], side="right") - 1, asked)
    # With a share of a half, a frame in the middle belongs to both.
    low[1:] = np.maximum(low[1:], high[:-1] + 1)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _shares(seconds: npt.NDArray[np.float64], before: float, behind: float) -> npt.NDArray[np.float64]:
    """How far off frames are, as shares of the distances to the frames asked for before and behind."""
    # There is no distance at the ends, and no frame on that side.
    return np.where(seconds < 0, -seconds / (before or 1.0), seconds / (behind or 1.0))


def _costs(table: Table, skips: bool) -> _Costs:
    order = np.asarray(table.order, dtype=np.intp)
    start = table.starts[order]
    left_out = _unreferenced(table) if skips else np.zeros(table.packets, dtype=np.bool_)
    total = np.cumsum(~left_out, dtype=np.intp)
    return _Costs(
        position=order,
        start=start,
        before=total[order],
        before_start=total[start] - 1,
        alone=left_out[order].astype(np.intp),
    )


def _unreferenced(table: Table) -> npt.NDArray[np.bool_]:
    """Packets whose frames probably no other refers to: shown before one stored earlier, and before all stored later.

    A guess, since packets do not tell: with B-frames that refer to one another, the outermost are meant.
    """
    pts = np.asarray(table.pts, dtype=np.int64)
    earlier = np.maximum.accumulate(pts)
    later = np.minimum.accumulate(pts[::-1])[::-1]
    unreferenced: npt.NDArray[np.bool_] = np.zeros(len(pts), dtype=np.bool_)
    unreferenced[1:-1] = (pts[1:-1] < earlier[:-2]) & (pts[1:-1] < later[2:])
    return unreferenced & ~table.doubtful & ~np.asarray(table.key, dtype=np.bool_)


def _candidates(costs: _Costs, window: npt.NDArray[np.intp], off: npt.NDArray[np.float64], asked: int) -> list[int]:
    """The places in a window of which one is the best, whatever is taken in the windows beside.

    Frames decoded from the first and from the last keyframe may share it with frames of the windows beside: the best is
    then the one reached at the least cost, or, where decoding goes on in any case, the nearest. All other frames are
    decoded for this window alone.
    """
    start, reached, alone = costs.start[window], costs.first(window) + off, costs.alone[window] + off
    ends = (start.min(), start.max())
    inner = (start != ends[0]) & (start != ends[1])
    found = {asked}
    for group, cost in (
        (start == ends[0], reached),
        (start == ends[0], alone),
        (start == ends[1], reached),
        (start == ends[1], alone),
        (inner, reached),
    ):
        if group.any():
            found.add(int(np.where(group, cost, np.inf).argmin()))
    return sorted(found)


def _extended(ways: list[_Way], costs: _Costs, number: int, off: float) -> _Way:
    """The best way to ``number`` over any of ``ways``, the ways to frames before."""
    if not ways:
        return _Way(float(costs.first(number)) + off, number, None)
    cost, way = min(((way.cost + costs.step(way.number, number), way) for way in ways), key=lambda step: step[0])
    return _Way(cost + off, number, way)
