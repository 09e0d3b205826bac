"""Bookkeeping stays linear, and small beside decoding, however many frames there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest

from earlytom.video import Sampling, read_video
from earlytom.video._pyav import clock
from earlytom.video._table import Table, scan, stretches


def packets(count: int, group: int = 30) -> list[SimpleNamespace]:
    """Packets of I and P frames with two B-frames each, in the order of decoding."""
    shown = [0, *(3 * (at // 3) + (3, 1, 2)[at % 3] for at in range(count - 1))]
    return [
        SimpleNamespace(
            size=100, is_corrupt=False, is_discard=False, is_keyframe=at % group == 0, duration=512,
            pts=512 * shown[at], dts=512 * (at - 1),
        )
        for at in range(count)
    ]  # fmt: skip


def stream(count: int) -> Any:
    context = SimpleNamespace(name="h264", has_b_frames=True)
    return SimpleNamespace(
        codec_context=context, frames=count, time_base=Fraction(1, 15360), average_rate=Fraction(30), guessed_rate=None
    )


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def table_of(made: list[SimpleNamespace]) -> Table:
    container = SimpleNamespace(demux=lambda stream: iter(made), format=SimpleNamespace(name="mov"))
    return scan(cast(Any, container), stream(len(made)))


def test_table_of_a_million_frames() -> None:
    made = packets(1_000_000)
    begin = time.perf_counter()
    table = table_of(made)
    assert table.problem is None
    assert list(table.order[:5]) == [0, 2, 3, 1, 5]
    times = clock(table, stream(len(made)))
    for sampling, count in ((Sampling(), 32), (Sampling(fps=1.0), 1), (Sampling(frames=200_000), 1)):
        indices = sampling.indices(len(table.order), times.fps, timestamps=times.timestamps)
        found = stretches(table, indices)
        assert [index for stretch in found for index in stretch.targets] == indices
        assert len(found) == count
    # Measured: 2 s; over a minute where each frame is added to a copy of the ones before.
    assert time.perf_counter() - begin < 20


def test_all_frames_of_a_dense_clip_cost_little_beside_decoding(tmp_path: Path) -> None:
    path, count = tmp_path / "dense.mp4", 12_000
    with av.open(str(path), "w") as container:
        written: Any = container.add_stream("libx264", rate=30, options={"g": "30", "bf": "2", "preset": "ultrafast"})
        written.width = written.height = 16
        written.pix_fmt = "yuv420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), number % 200, dtype=np.uint8), format="rgb24")
            frame.pts = number
            container.mux(written.encode(frame))
        container.mux(written.encode())

    def decode() -> None:
        with av.open(str(path)) as source:
            for frame in source.decode(video=0):
                frame.to_ndarray(format="rgb24")

    plain = seconds(decode)
    ours = seconds(lambda: read_video(path, Sampling(frames=None)))
    # Measured: 1.2 times as long; 4 times and more where each frame is looked for among all.
    assert ours < 2.5 * plain + 0.5


@pytest.mark.parametrize("count", [1, 2, 7])
def test_short_tables(count: int) -> None:
    assert sorted(table_of(packets(count)).order) == list(range(count))
