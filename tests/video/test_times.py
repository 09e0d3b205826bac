"""Times of packets that cannot be those of frames, found without decoding."""

from __future__ import annotations

import numpy as np
import pytest

from earlytom.video._times import crosses_keyframes, doubtful, goes_back

# Three groups of seven frames, 100 ticks apart, in the order of decoding: a keyframe and anchors with two frames before
# each that are stored behind it.
GROUP = (0, 3, 1, 2, 6, 4, 5)
PTS = np.array([100 * (7 * group + shown) for group in range(3) for shown in GROUP])
KEY = [at % 7 == 0 for at in range(21)]
# An encoder that holds back one frame: each is decoded when another is shown.
DTS = np.sort(PTS) - 100


def groups(pts: np.ndarray, dts: np.ndarray | None = None) -> list[int]:
    """The numbers of the doubtful groups."""
    found = doubtful(pts, KEY, dts)
    assert found.dtype == np.bool_
    assert found.tolist() == np.repeat(found[::7], 7).tolist()
    return np.flatnonzero(found[::7]).tolist()


def changed(pts: np.ndarray, at: int, to: int) -> np.ndarray:
    pts = pts.copy()
    pts[at] = to
    return pts


def test_even_times_are_not_doubtful() -> None:
    assert groups(PTS) == groups(PTS, DTS) == []
    assert groups(np.round(PTS / 30).astype(np.int64)) == []
    assert doubtful(PTS[:0], [], None).tolist() == []
    assert doubtful(PTS[:1], [True], DTS[:1]).tolist() == [False]


def test_times_that_only_ascend_are_doubtful() -> None:
    ascending = np.sort(PTS)
    ascending[7:14] = PTS[7:14]
    assert groups(ascending) == [0, 2]


@pytest.mark.parametrize("dts", [None, DTS])
@pytest.mark.parametrize("to", [880, 1190, 1350])
def test_a_frame_that_left_its_place_makes_its_group_doubtful(to: int, dts: np.ndarray | None) -> None:
    pts = changed(PTS, 9, to) + 1
    assert 1 in groups(pts, None if dts is None else dts + 1)


def test_missing_frames_make_their_group_doubtful() -> None:
    def found(missing: tuple[int, ...], dts: np.ndarray | None) -> list[bool]:
        kept = [at for at in range(21) if at not in missing]
        return doubtful(PTS[kept], [KEY[at] for at in kept], None if dts is None else dts[kept]).tolist()

    assert found((12, 13), None) == [False] * 7 + [True] * 5 + [False] * 7
    assert found((11, 12, 13), DTS)[7:11] == [True] * 4
    # Without frames that no other refers to, the rest stays in order.
    assert found((12, 13), DTS) == [False] * 19


def test_uneven_times_that_agree_with_those_of_decoding_are_not_doubtful() -> None:
    gaps = np.random.default_rng(0).integers(1, 900, 21)
    gaps[-4:] = 100
    shown = np.cumsum(gaps)
    pts = shown[PTS // 100]
    dts = np.append(shown[0] - 50, shown[:-1])
    assert groups(pts, dts) == []
    assert groups(pts) == [0, 1, 2]
    assert 1 in groups(changed(pts, 9, int(pts[9]) + 1), dts)
    # Nothing is decoded any more when the last frames are shown.
    assert groups(changed(pts, 18, int(pts[18]) + 250), dts) == [2]


def test_frames_on_the_wrong_side_of_a_keyframe() -> None:
    assert not crosses_keyframes(PTS, KEY)
    assert not crosses_keyframes(PTS, [False] * 21)
    assert crosses_keyframes(changed(PTS, 9, 10_000), KEY)
    assert crosses_keyframes(changed(PTS, 9, 1450), KEY)
    # Shown before its keyframe as in an open group, but not before the keyframe before.
    assert not crosses_keyframes(changed(PTS, 9, 650), KEY)
    assert crosses_keyframes(changed(PTS, 16, 650), KEY)


def test_times_that_go_back() -> None:
    assert goes_back([1, 3, 2])
    assert not goes_back([1, 2, 2])
    assert not goes_back([])
