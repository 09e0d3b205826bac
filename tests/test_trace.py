"""What traces say about a call."""

from __future__ import annotations

import json
import time

import pytest
import torch

from earlytom import EarlyTomError, Reduction, Trace
from earlytom.trace import CallTrace, LanguageReduction, MergeRecord, Stopwatch, VideoTrace
from earlytom.types import FrameGrid


def video() -> VideoTrace:
    merged = Reduction.from_rows([[(0, 1.0)], [(1, 0.5), (2, 0.5)]], 3)
    record = MergeRecord(layer=6, grids_before=3, grids_after=2, details={"segments": [(0, 2)]})
    grid = FrameGrid(frames=3, rows=2, columns=2)
    return VideoTrace(grid=grid, budget=3, stepped_aside=None, origin=merged, merges=[record])


def test_a_grid_counts_its_tokens() -> None:
    grid = FrameGrid(frames=3, rows=2, columns=5)
    assert (grid.tokens_per_frame, grid.tokens) == (10, 30)


def test_a_trace_counts_temporal_grids_and_answers_to_the_former_names() -> None:
    trace = video()
    assert (trace.grid.temporal_grids, trace.temporal_grids_left) == (3, 2)
    assert (trace.grid.frames, trace.frames_left) == (3, 2)
    (record,) = trace.merges
    assert (record.grids_before, record.grids_after) == (record.frames_before, record.frames_after) == (3, 2)


def test_without_selection_every_token_of_the_frames_left_is_kept() -> None:
    trace = video()
    assert (trace.frames_left, trace.tokens) == (2, 8)
    assert trace.kept_tokens() == [(frame, token) for frame in range(2) for token in range(4)]
    assert trace.sources() == [[0], [1, 2]]


def test_selection_gives_frame_and_token_of_what_was_kept() -> None:
    trace = video()
    trace.selection = Reduction.keep(torch.tensor([1, 4, 7]), 8)
    assert trace.tokens == 3
    assert trace.kept_tokens() == [(0, 1), (1, 0), (1, 3)]


@pytest.mark.parametrize(
    ("frames", "grids"),
    [
        (3, [[0], [1], [2]]),
        (6, [[0, 1], [2, 3], [4, 5]]),
        (5, [[0, 1], [2, 3], [4, 4]]),
        (9, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        (7, [[0, 1, 2], [3, 4, 5], [6, 6, 6]]),
    ],
)
def test_grids_are_made_of_sampled_frames(frames, grids) -> None:
    trace = video()
    assert trace.frames_of_grids(frames) == grids
    assert trace.sampled_sources(frames) == [grids[0], sorted({*grids[1], *grids[2]})]


@pytest.mark.parametrize("frames", [0, 1, 2, 4])
def test_frames_that_do_not_make_the_grids_are_refused(frames) -> None:
    with pytest.raises(EarlyTomError, match=f"the trace is of 3 temporal grids, got {frames} sampled frames"):
        video().frames_of_grids(frames)


def test_a_trace_that_knows_its_frames_refuses_other_ones() -> None:
    trace = video()
    assert trace.sampled_frames is None
    trace.source = {"frame_indices": [0, 4, 8, 12, 16, 20]}
    assert trace.sampled_frames == 6
    assert trace.sampled_sources(6) == [[0, 1], [2, 3, 4, 5]]
    with pytest.raises(EarlyTomError, match="the trace is of 6 sampled frames, got 3"):
        trace.sampled_sources(3)


def test_an_empty_trace_says_so() -> None:
    with pytest.raises(LookupError, match="the trace is empty"):
        _ = Trace().last


def test_the_newest_call_is_plain_data() -> None:
    step = LanguageReduction(layer=18, tokens_before=(8,), tokens_after=(4,))
    call = CallTrace(videos=[video()], language=[step], prompt_tokens=20, prefill_tokens=11)
    data = json.loads(json.dumps(Trace(method="earlytom", calls=[CallTrace(), call]).to_dict()))
    assert (data["method"], data["prompt_tokens"], data["prefill_tokens"]) == ("earlytom", 20, 11)
    assert data["language"] == [{"layer": 18, "tokens_before": [8], "tokens_after": [4]}]
    (entry,) = data["videos"]
    assert (entry["frames"], entry["frames_left"], entry["tokens_uncompressed"], entry["tokens"]) == (3, 2, 12, 8)
    assert (entry["sampled_frames"], entry["temporal_grids"], entry["temporal_grids_left"]) == (None, 3, 2)
    former = {"frames_before": 3, "frames_after": 2}
    assert entry["merges"] == [{"layer": 6, "grids_before": 3, "grids_after": 2, **former, "segments": [[0, 2]]}]


def test_a_stopwatch_sums_the_spans_of_a_stage_even_when_one_raises() -> None:
    watch = Stopwatch(torch.device("cpu"))
    with watch.stage("merging"):
        time.sleep(0.002)

    def fail() -> None:
        with watch.stage("merging"):
            time.sleep(0.002)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with watch.stage("encoder"):
        pass
    times = watch.milliseconds()
    assert list(times) == ["merging", "encoder"]
    assert times["merging"] >= 4
    assert times["encoder"] >= 0
    assert CallTrace(stopwatch=watch).milliseconds == times
    assert CallTrace().milliseconds == {}


def test_a_stopwatch_tells_the_innermost_stage_that_it_times() -> None:
    clock = Stopwatch()
    assert clock.running is None
    clock.start("ttft")
    with clock.stage("encoder"):
        with clock.stage("merging"):
            assert clock.running == "merging"
        assert clock.running == "encoder"
    assert clock.running == "ttft"
    clock.stop("ttft")
    assert clock.running is None
