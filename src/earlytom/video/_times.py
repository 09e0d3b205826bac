"""Whether the times of packets can be those of frames, as far as the packets tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["crosses_keyframes", "doubtful", "goes_back"]

# Frames come evenly as long as no two are so many times farther apart than others: a frame that lost its place leaves a
# gap of two and stands beside one that has less than its own; times that are rounded to milliseconds stay below.
_EVEN = 1.6

# Decoders hold back no more frames than this to put them in order (H.264, HEVC).
_MOST_DELAYED = 16


def goes_back(times: Sequence[int] | npt.NDArray[np.int64]) -> bool:
    """Whether a time is smaller than the one before."""
    return bool(np.any(np.diff(np.asarray(times, dtype=np.int64)) < 0))


def crosses_keyframes(pts: npt.NDArray[np.int64], key: Sequence[bool]) -> bool:
    """Whether a frame is shown after a keyframe that is stored behind it, or before the keyframe before its own.

    No codec allows that, so that such a time is wrong, and the numbers of all frames from there on are.
    """
    starts = np.flatnonzero(key)
    if len(starts) < 2:
        return False
    shown_before = np.maximum.accumulate(pts)[starts[1:] - 1]
    shown_after = np.minimum.accumulate(pts[::-1])[::-1][starts[1:]]
    return bool(np.any(shown_before > pts[starts[1:]]) or np.any(shown_after < pts[starts[:-1]]))


def doubtful(
    pts: npt.NDArray[np.int64], key: Sequence[bool], dts: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.bool_]:
    """Tell packets of groups (a keyframe to the next) whose times may be wrong, where frames are stored out of order.

    Times that only ascend may be times of decoding. Times that come unevenly may be damaged or lack frames, unless the
    container stores times of decoding too and these agree: encoders give frames, in the order of decoding, the times
    that others are shown at.

    Args:
        pts: presentation times, decode order, all known.
        key: whether decoding can start at the packet.
        dts: decode times, where the container stores them.

    Returns:
        For every packet, whether its group is doubtful.
    """
    count = len(pts)
    if not count:
        return np.zeros(0, dtype=np.bool_)
    starts = np.unique(np.append(0, np.flatnonzero(key)))
    lengths = np.diff(np.append(starts, count))
    back = np.append(False, pts[1:] < pts[:-1])
    back[starts] = False
    # A group of one packet has nothing that could be shown before it.
    ascending = (np.add.reduceat(back, starts, dtype=np.intp) == 0) & (lengths > 1)
    group = np.repeat(np.arange(len(starts)), lengths)
    order = np.argsort(pts, kind="stable")
    suspect = _uneven(pts[order], group[order], len(starts))
    if dts is not None:
        suspect &= _disagree(pts[order], dts, group[order], len(starts))
    return np.repeat(ascending | suspect, lengths)


def _uneven(times: npt.NDArray[np.int64], group: npt.NDArray[np.intp], groups: int) -> npt.NDArray[np.bool_]:
    """For every group, whether its frames, and the first of the next, come at uneven times (``times`` ascend)."""
    gaps = np.diff(times)
    least, most = np.full(groups, np.iinfo(np.int64).max), np.zeros(groups, dtype=np.int64)
    for side in (group[:-1], group[1:]):
        np.minimum.at(least, side, gaps)
        np.maximum.at(most, side, gaps)
    return np.asarray(most > _EVEN * least + 1)


def _disagree(
    times: npt.NDArray[np.int64], dts: npt.NDArray[np.int64], group: npt.NDArray[np.intp], groups: int
) -> npt.NDArray[np.bool_]:
    """For every group, whether a frame is shown when, by the times of decoding, none is (``times`` ascend)."""
    delays = np.flatnonzero(dts[: _MOST_DELAYED + 1] == times[0])
    if not len(delays):
        return np.ones(groups, dtype=np.bool_)
    delay = int(delays[0])
    vouched = len(times) - delay
    disagree = np.zeros(groups, dtype=np.bool_)
    disagree[group[:vouched][times[:vouched] != dts[delay:]]] = True
    # The last are shown when nothing is decoded any more.
    tail = slice(max(0, vouched - 2), None)
    disagree |= _uneven(times[tail], group[tail], groups)
    return disagree
