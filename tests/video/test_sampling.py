"""Sampling: which frame numbers are chosen."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earlytom.errors import VideoError
from earlytom.video import Sampling, read_video

counts = st.integers(1, 5000)


@given(count=counts, n=st.integers(1, 300))
def test_uniform_is_the_papers_linspace_without_repeats(count: int, n: int) -> None:
    picked = Sampling(frames=n).indices(count)
    if n <= count:
        assert picked == np.linspace(0, count - 1, n, dtype=int).tolist()
    assert len(picked) == min(n, count)
    assert picked == sorted(set(picked))
    assert picked[0] == 0
    assert n == 1 or picked[-1] == count - 1


@given(
    gaps=st.lists(st.floats(0.002, 3.0), max_size=200),
    start=st.floats(-10, 10),
    fps=st.floats(0.05, 240),
    limit=st.none() | st.integers(1, 40),
)
def test_fps_takes_the_frame_on_screen_at_each_moment(
    gaps: list[float], start: float, fps: float, limit: int | None
) -> None:
    times = (start + np.concatenate([[0.0], np.cumsum(gaps)])).tolist()
    picked = Sampling(fps=fps, max_frames=limit).indices(len(times), timestamps=times)
    assert picked[0] == 0
    assert picked == sorted(set(picked))
    assert all(0 <= i < len(times) for i in picked)
    if limit is not None:
        assert len(picked) <= limit
        return
    # Naive reference. Within the stated slack of a frame's start either neighbour is right.
    slack = 6e-4
    sure: set[int] = set()
    possible: set[int] = set()
    for k in range(math.floor((times[-1] - times[0] + slack) * fps) + 2):
        moment = times[0] + k / fps
        on_screen = [
            max(i for i, t in enumerate(times) if t <= moment + d) for d in (-slack, 0.0, slack) if k or d >= 0
        ]
        if moment <= times[-1] + slack:
            possible.update(on_screen)
            if len(set(on_screen)) == 1 and moment <= times[-1] - slack:
                sure.update(on_screen)
    assert sure <= set(picked) <= possible


@given(count=counts, source_fps=st.sampled_from([5.0, 23.976, 24.0, 25.0, 29.97, 30.0, 60.0]))
def test_fps_of_the_source_takes_every_frame(count: int, source_fps: float) -> None:
    assert Sampling(fps=source_fps).indices(count, source_fps) == list(range(count))
    assert Sampling(fps=10 * source_fps).indices(count, source_fps) == list(range(count))


def test_fps_on_an_even_clock_and_its_cap() -> None:
    assert Sampling(fps=2).indices(60, 30.0) == [0, 15, 30, 45]
    assert Sampling(fps=2, max_frames=3).indices(60, 30.0) == [0, 15, 45]
    assert Sampling(frames=None, max_frames=3).indices(60) == [0, 29, 59]
    assert Sampling(frames=None).indices(4) == [0, 1, 2, 3]


def test_fps_reads_clocks_rounded_to_milliseconds() -> None:
    times = [round(i / 60, 3) for i in range(120)]
    assert Sampling(fps=60).indices(120, timestamps=times) == list(range(120))
    assert Sampling(fps=6).indices(120, timestamps=times) == list(range(0, 120, 10))


def test_fps_across_a_pause_holds_the_frame_on_screen() -> None:
    assert Sampling(fps=1).indices(4, timestamps=[0.0, 0.5, 5.2, 6.0]) == [0, 1, 3]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"frames": 0}, "frames is 0"),
        ({"frames": True}, "frames is True"),
        ({"frames": 2.5}, "frames is 2.5"),
        ({"max_frames": -1}, "max_frames is -1"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": math.nan}, "fps is nan"),
        ({"fps": math.inf}, "fps is inf"),
        ({"fps": "2"}, "fps is '2'"),
        ({"fps": 10**400}, "fps is 1000"),
        ({"fps": 10**5000}, "fps is <int that cannot be written>"),
        ({"fps": -(10**400)}, "fps is -1000"),
        ({"fps": "2" * 10**6}, "fps is '2222"),
        ({"frames": -(10**5000)}, "frames is <int that cannot be written>"),
        ({"max_frames": "9" * 10**6}, "max_frames is '9999"),
        ({"frames": 8, "fps": 2.0}, "frames is 8 and Sampling.fps is 2.0"),
        ({"spacing": "seconds"}, "spacing is 'seconds'"),
        ({"spacing": None}, "spacing is None"),
        ({"spacing": ["time"]}, r"spacing is \['time'\]"),
    ],
)
def test_bad_fields_are_named(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(VideoError, match=rf"Sampling\.{field}.*allowed") as caught:
        Sampling(**arguments)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("fps", [1e15, 1e300, 1.7e308, pytest.param(10**308, id="integer")])
def test_any_rate_that_is_a_number_works(fps: float) -> None:
    times = [0.0, 0.04, 5.0, 3600.0]
    assert Sampling(fps=fps).indices(4, timestamps=times) == [0, 1, 2, 3]
    assert Sampling(fps=5e-324).indices(4, timestamps=times) == [0]


@given(
    gaps=st.lists(st.floats(0.002, 3.0), max_size=200),
    start=st.floats(-10, 10),
    n=st.integers(1, 60),
)
def test_evenly_in_time_takes_the_frame_on_screen_at_each_moment(gaps: list[float], start: float, n: int) -> None:
    times = (start + np.concatenate([[0.0], np.cumsum(gaps)])).tolist()
    picked = Sampling(frames=n, spacing="time").indices(len(times), timestamps=times)
    if n >= len(times):
        assert picked == list(range(len(times)))
        return
    assert picked == sorted(set(picked))
    assert len(picked) <= n
    assert picked[0] == 0
    assert n == 1 or picked[-1] == len(times) - 1
    slack = 6e-4
    moments = [times[0] + (times[-1] - times[0]) * k / max(1, n - 1) for k in range(n)]
    on_screen = [
        {max(i for i, t in enumerate(times) if t <= moment + d or i == 0) for d in (-slack, 0.0, slack)}
        for moment in moments
    ]
    assert all(any(i in found for found in on_screen) for i in picked)
    assert all(found & set(picked) for found in on_screen)


@given(count=counts, n=st.integers(2, 300), source_fps=st.sampled_from([5.0, 24.0, 25.0, 30.0, 60.0]))
def test_on_an_even_clock_index_and_time_are_one(count: int, n: int, source_fps: float) -> None:
    by_time = Sampling(frames=n, spacing="time").indices(count, source_fps)
    exact = [Fraction((count - 1) * k, n - 1) for k in range(n)] if count > n else list(range(count))
    # Half a millisecond before a frame's time counts as its time: 3% of a frame at 60 a second.
    assert len(by_time) == len(exact)
    assert all(math.floor(place) <= i <= math.floor(place + 0.031) for i, place in zip(by_time, exact, strict=True))


def test_evenly_in_time_a_frame_that_stands_still_comes_once() -> None:
    times = [0.0, 3.0, 6.0, *(9 + i / 30 for i in range(31))]
    assert Sampling(frames=5).indices(34, timestamps=times) == [0, 8, 16, 24, 33]
    picked = Sampling(frames=5, spacing="time").indices(34, timestamps=times)
    assert picked == [0, 1, 2, 33]
    assert [round(times[i], 1) for i in picked] == [0.0, 3.0, 6.0, 10.0]
    assert Sampling(frames=11, spacing="time").indices(34, timestamps=times) == [0, 1, 2, 3, 33]
    assert Sampling(frames=1, spacing="time").indices(34, timestamps=times) == [0]


def test_a_limit_is_kept_in_time_too() -> None:
    times = [0.0, 3.0, 6.0, *(9 + i / 30 for i in range(31))]
    everything = Sampling(frames=None, max_frames=5, spacing="time")
    assert everything.indices(34, timestamps=times) == [0, 1, 2, 33]
    by_rate = Sampling(fps=30, max_frames=5, spacing="time")
    assert by_rate.indices(34, timestamps=times) == [0, 1, 2, 33]
    assert Sampling(fps=30, max_frames=5).indices(34, timestamps=times) == [0, 8, 16, 24, 33]
    assert Sampling(frames=9, max_frames=4, spacing="time").indices(34, timestamps=times)[0] == 0


def test_evenly_in_time_needs_a_clock() -> None:
    with pytest.raises(VideoError, match="spacing is 'time', but the source has no frame rate and no timestamps"):
        Sampling(frames=2, spacing="time").indices(5)
    with pytest.raises(VideoError, match=r"<array>: has no clock, so Sampling.spacing cannot be 'time'"):
        read_video(np.zeros((4, 8, 8, 3), dtype=np.uint8), Sampling(frames=2, spacing="time"))


def test_bad_calls() -> None:
    with pytest.raises(VideoError, match="count is 0"):
        Sampling().indices(0)
    with pytest.raises(VideoError, match="no frame rate"):
        Sampling(fps=1).indices(5)
    with pytest.raises(VideoError, match="has 2 entries"):
        Sampling(fps=1).indices(5, timestamps=[0.0, 1.0])
    with pytest.raises(VideoError, match="do not ascend"):
        Sampling(fps=1).indices(3, timestamps=[0.0, 1.0, 1.0])
