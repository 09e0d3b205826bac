"""Frames near those asked for: within what is allowed, the pictures of plain decoding, at the least cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from earlytom.errors import VideoError
from earlytom.video import Sampling, Video, read_video
from earlytom.video._near import _NEARNESS, _costs, nearby
from earlytom.video._table import Table

from .clips import decode_all, numbers_of, slice_damaged
from .conftest import CLIPS, Factory
from .test_long import packets, table_of

SHARES = (0.1, 0.3, 0.5)


def rooms(video: Video, share: float) -> list[tuple[float, float]]:
    """How many seconds before and behind each frame asked for are allowed, from what the result says."""
    moments = [time - off for time, off in zip(video.timestamps, video.deviations, strict=True)]
    gaps = [0.0, *np.diff(moments), 0.0]
    return [(share * before, share * behind) for before, behind in pairwise(gaps)]


@pytest.mark.parametrize("name", CLIPS)
def test_pictures_are_those_of_plain_decoding_within_what_is_allowed(clip: Factory, name: str) -> None:
    path = clip(name)
    plain, _ = decode_all(path)
    for frames, share in product((2, 4, 7), SHARES):
        exact = read_video(path, Sampling(frames=frames))
        video = read_video(path, Sampling(frames=frames, near=share))
        assert np.array_equal(video.frames, np.stack([plain[i] for i in video.indices]))
        assert len(video.indices) == len(exact.indices)
        assert list(video.indices) == sorted(set(video.indices))
        assert video.asked in ((), exact.indices)
        assert len(video.deviations) == len(video.asked)
        if not video.asked:
            assert video.indices == exact.indices
            continue
        times = read_video(path, Sampling(frames=None)).timestamps
        assert video.deviations == pytest.approx(
            [times[b] - times[a] for a, b in zip(video.asked, video.indices, strict=True)]
        )
        for off, (before, behind) in zip(video.deviations, rooms(video, share), strict=True):
            assert -before - 1e-9 <= off <= behind + 1e-9


def test_keyframes_are_taken_where_they_are_allowed(clip: Factory) -> None:
    path = clip("no_b", options={"g": "12", "bf": "0", "sc_threshold": "0"})
    exact, video = (read_video(path, Sampling(frames=3, near=near)) for near in (0.0, 0.5))
    assert exact.indices == video.asked == (0, 29, 59)
    assert video.indices == (0, 24, 48)
    assert numbers_of(video.frames) == [0, 24, 48]
    assert video.deviations == pytest.approx((0, -5 / 30, -11 / 30))
    assert (exact.decoded, video.decoded) == (1 + 6 + 12, 3)


def test_a_keyframe_out_of_reach_is_not_taken(clip: Factory) -> None:
    video = read_video(clip("no_b", options={"g": "60", "bf": "0", "sc_threshold": "0"}), Sampling(frames=3, near=0.25))
    assert video.asked == (0, 29, 59)
    # What is decoded in any case is not given away: 29 is on the way to the last, which costs 7 frames less.
    assert video.indices == (0, 29, 52)


def test_nothing_is_said_where_nothing_else_was_taken(clip: Factory) -> None:
    for sampling in (Sampling(frames=5), Sampling(frames=1, near=0.5), Sampling(frames=None, near=0.5)):
        video = read_video(clip("no_b"), sampling)
        assert (video.asked, video.deviations) == ((), ())


@pytest.mark.parametrize("name", ["avi_h264_b", "raw"])
def test_files_that_are_decoded_whole_give_what_was_asked_for(clip: Factory, name: str) -> None:
    video = read_video(clip(name), Sampling(frames=5, near=0.5))
    assert numbers_of(video.frames) == [0, 14, 29, 44, 59]
    assert video.asked == ()


def test_damage_is_told_as_without(clip: Factory) -> None:
    options = {"g": "12", "bf": "0", "sc_threshold": "0"}
    data = slice_damaged(clip("no_b", noise=True, options=options).read_bytes(), 0)
    told = []
    for near in (0.0, 0.5):
        with pytest.raises(VideoError) as caught:
            read_video(data, Sampling(frames=5, near=near))
        told.append(str(caught.value))
        allowed = read_video(data, Sampling(frames=5, near=near), damage_tolerance=0.5)
        assert (allowed.damaged, allowed.asked) == (((0, 11),), ())
    assert told[0] == told[1]


def test_time_is_what_counts_where_frames_do_not_come_evenly(clip: Factory) -> None:
    video = read_video(clip("variable", options={"g": "6", "bf": "0"}), Sampling(frames=6, near=0.4))
    assert video.asked == (0, 11, 23, 35, 47, 59)
    for off, (before, behind) in zip(video.deviations, rooms(video, 0.4), strict=True):
        assert -before - 1e-9 <= off <= behind + 1e-9
    assert any(video.deviations)


def test_pictures_in_memory_cost_nothing_to_decode() -> None:
    frames = np.zeros((20, 8, 8, 3), dtype=np.uint8)
    video = read_video(frames, Sampling(frames=4, near=0.5))
    assert (video.indices, video.asked) == ((0, 6, 12, 19), ())


@pytest.mark.parametrize("near", [-0.1, 0.51, float("nan"), True, "0.1", None, 10**400])
def test_shares_out_of_range(near: Any) -> None:
    with pytest.raises(VideoError, match=r"Sampling\.near is .*; allowed: a number from 0 to 0\.5"):
        Sampling(near=near)


def cost(table: Table, chosen: Sequence[int], skips: bool) -> float:
    """What a choice costs, frame by frame."""
    costs = _costs(table, skips)
    total = float(costs.first(chosen[0]))
    return total + sum(costs.step(before, number) for before, number in pairwise(chosen))


def away(times: npt.NDArray[np.float64], asked: Sequence[int], chosen: Sequence[int]) -> float:
    """How far off a choice is, in distances of frames asked for."""
    total = 0.0
    for at, (want, take) in enumerate(zip(asked, chosen, strict=True)):
        if want != take:
            beside = asked[at + 1] if take > want else asked[at - 1]
            total += float(abs(times[take] - times[want]) / abs(times[beside] - times[want]))
    return total


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    """Against every choice that is allowed, of streams with and without B-frames and keyframes anywhere."""
    random = np.random.default_rng(seed)
    count, skips = 60, bool(seed % 2)
    made = packets(count, group=int(random.integers(4, 40)))
    if seed % 3 == 0:
        made = made[:1] + [packet for packet in made[1:] if packet.is_keyframe or random.random() < 0.8]
    table = table_of(made)
    times = np.asarray([table.pts[at] for at in table.order], dtype=np.float64) / 15360
    asked = Sampling(frames=4).indices(len(times))
    share = float(random.uniform(0.1, 0.4))
    allowed = [
        [
            number
            for number in range(len(times))
            if number == want
            or (at > 0 and 0 < times[want] - times[number] <= share * (times[want] - times[asked[at - 1]]))
            or (at < 3 and 0 < times[number] - times[want] <= share * (times[asked[at + 1]] - times[want]))
        ]
        for at, want in enumerate(asked)
    ]
    chosen = nearby(table, times.tolist(), asked, share, skips=skips)
    assert all(number in numbers for number, numbers in zip(chosen, allowed, strict=True))
    best = min(cost(table, some, skips) + _NEARNESS * away(times, asked, some) for some in product(*allowed))
    assert cost(table, chosen, skips) + _NEARNESS * away(times, asked, chosen) == pytest.approx(best)


def test_of_keyframes_alone_those_asked_for_are_taken() -> None:
    """Of two hours: a window is of thousands of keyframes, none cheaper than another."""
    table = table_of(packets(216_000, group=1))
    times = (np.arange(216_000) / 30).tolist()
    asked = Sampling().indices(216_000)
    assert nearby(table, times, asked, 0.5, skips=True) == asked
