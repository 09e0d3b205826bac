"""A short run of every fuzzer, and that the long one would tell what it finds."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from dataclasses import replace
from random import Random

import av
import pytest

from earlytom import EarlyTomError, VideoError
from earlytom.video import Sampling, read_video
from fuzz import campaign, child, pool, videos
from fuzz.campaign import Report, run
from fuzz.mutations import mutated
from fuzz.outcomes import ANSWER, EQUAL, ERROR, OUTCOMES, FindingError, Trial, judged

# About 15 s on two cores.
COUNTS = {"video": 500, "source": 250, "method": 1000, "checkpoint": 40}


def test_nothing_is_found() -> None:
    report = run(1, COUNTS)
    assert not report.findings, str(report)
    assert {kind: sum(found.values()) for kind, found in report.counts.items()} == COUNTS
    # Each kind has inputs that are refused and some that are not: the mutators neither break everything nor nothing.
    assert all(
        found[ERROR] and set(found) - {ERROR} <= set(OUTCOMES) and len(found) > 1 for found in report.counts.values()
    )
    assert len(json.dumps(report.as_json())) < 5000


def test_plain_decoding_finds_no_damage_in_whole_clips(tmp_path) -> None:
    videos.make_clips(tmp_path / "clips")
    for data in videos.clips(tmp_path / "clips"):
        assert videos.compared(read_video(data, Sampling(frames=3)), data) == EQUAL


def test_other_pictures_are_a_finding(tmp_path) -> None:
    videos.make_clips(tmp_path / "clips")
    data = (tmp_path / "clips" / "h264.mp4").read_bytes()
    video = read_video(data, Sampling(frames=3))
    with pytest.raises(FindingError, match="frames \\[14\\] of 30 are other"):
        videos.compared(replace(video, frames=video.frames[[0, 0, 2]]), data)
    with pytest.raises(FindingError, match="31 frames are told, plain decoding gives 30"):
        videos.compared(replace(video, source_frames=31), data)


def test_plain_decoding_agrees_with_itself_but_for_pictures_that_end_too_soon(tmp_path) -> None:
    videos.make_clips(tmp_path / "clips")
    for data in videos.clips(tmp_path / "clips"):
        assert videos._unsettled(data) == set()
    path = tmp_path / "clips" / "vp8.webm"
    if path.exists():
        ended = bytearray(path.read_bytes())
        with av.open(io.BytesIO(ended)) as container:
            packet = [packet for packet in container.demux(video=0) if packet.size][13]
        at = ended.index(bytes(packet))
        found = set()
        for seed in range(200):
            ended[at + 10 : at + packet.size] = Random(seed).randbytes(packet.size - 10)
            found |= videos._unsettled(bytes(ended))
        assert 13 in found
        assert found <= set(range(13, 20))


def test_the_same_seed_gives_the_same_input() -> None:
    data = bytes(range(256)) * 40
    made = [mutated(data, Random(f"3/video/{number}")) for number in range(200)]
    assert made == [mutated(data, Random(f"3/video/{number}")) for number in range(200)]
    assert sum(changed != data for changed in made) > 150
    assert mutated(b"", Random(0)) == b""


def _raising(error: BaseException):
    def run() -> str:
        raise error

    return run


def test_what_is_a_finding() -> None:
    long = "ab" * 101
    assert judged(Trial(lambda: ANSWER)) == (ANSWER, "")
    assert judged(Trial(_raising(VideoError("x.mp4: is empty")), error=VideoError)) == (ERROR, "x.mp4: is empty")
    assert judged(Trial(_raising(VideoError(long[:200])), given=long))[0] == ERROR
    for trial, told in (
        (Trial(_raising(VideoError(long[:201])), given=long), "quotes more than 200"),
        (Trial(_raising(VideoError("x" * 2001))), "has 2001 characters"),
        (Trial(_raising(VideoError("a\nb"))), "has 2 lines"),
    ):
        with pytest.raises(FindingError, match=told):
            judged(trial)
    with pytest.raises(KeyError):
        judged(Trial(_raising(KeyError("x"))))
    with pytest.raises(EarlyTomError):
        judged(Trial(_raising(EarlyTomError("x")), error=VideoError))


def test_a_child_that_dies_or_hangs_is_a_finding_and_replaced(tmp_path, monkeypatch) -> None:
    """The children are those that are used; a signal does to them what libav would."""
    monkeypatch.setattr(pool, "SECONDS", 2.0)
    monkeypatch.setattr(pool, "_STARTING", 60.0)
    used = pool.Child(0, tmp_path, 0)
    try:
        assert used.try_case("method/0")["outcome"] in OUTCOMES
        os.kill(used._process.pid, signal.SIGSEGV)
        used._process.wait()
        found = used.try_case("method/1")
        assert found["outcome"] == child.FINDING
        assert "dies: exit status -11" in found["detail"]
        assert used.try_case("method/1")["outcome"] in OUTCOMES
        os.kill(used._process.pid, signal.SIGSTOP)
        start = time.monotonic()
        found = used.try_case("method/2")
        assert found["outcome"] == child.FINDING
        assert "hangs: no answer in 2 s" in found["detail"]
        assert time.monotonic() - start < 30
    finally:
        used.stop()


def test_findings_are_told_with_the_command_that_repeats_them() -> None:
    report = Report(seed=7)
    report.add("video/3", {"outcome": ERROR, "detail": ""})
    report.add("video/4", {"outcome": child.FINDING, "detail": "KeyError: 'x'"})
    assert 'make fuzz FUZZ="--seed 7 --case video/4"' in str(report)
    assert report.as_json()["kinds"] == {"video": {"inputs": 2, ERROR: 1, child.FINDING: 1}}
    assert report.as_json()["findings"][0]["detail"] == "KeyError: 'x'"


def test_rounds_go_on_until_the_time_is_over() -> None:
    names = list(campaign._names({"video": 2, "method": 1}, None))
    assert names == ["video/0", "video/1", "method/0"]
    endless = campaign._names({"video": 2, "method": 1}, 1000.0)
    assert [next(endless) for _ in range(5)] == [*names, "video/2", "video/3"]
    assert list(campaign._names({"video": 2}, 0.0)) == []
