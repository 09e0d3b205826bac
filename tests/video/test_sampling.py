"""Sampling: which frame numbers are chosen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earlytom.errors import VideoError
from earlytom.video import Sampling

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
        ({"frames": 8, "fps": 2.0}, "frames is 8 and Sampling.fps is 2.0"),
    ],
)
def test_bad_fields_are_named(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(VideoError, match=rf"Sampling\.{field}.*allowed") as caught:
        Sampling(**arguments)
    assert isinstance(caught.value, ValueError)


def test_bad_calls() -> None:
    with pytest.raises(VideoError, match="count is 0"):
        Sampling().indices(0)
    with pytest.raises(VideoError, match="no frame rate"):
        Sampling(fps=1).indices(5)
    with pytest.raises(VideoError, match="has 2 entries"):
        Sampling(fps=1).indices(5, timestamps=[0.0, 1.0])
    with pytest.raises(VideoError, match="do not ascend"):
        Sampling(fps=1).indices(3, timestamps=[0.0, 1.0, 1.0])
