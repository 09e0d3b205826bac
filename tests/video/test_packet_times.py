"""Files whose packet times are not times of presentation: frames are those of plain decoding, in its order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from conftest import shared
from earlytom.video import Sampling, Video, read_video
from earlytom.video import _pyav as reader

from .clips import decode_all, make_clip, numbers_of, without_order
from .conftest import CLIPS, Factory

SAMPLINGS = [*(Sampling(frames=count) for count in (1, 2, 3, 5, 8, 13)), Sampling(frames=None)]

CODECS: dict[str, dict[str, Any]] = {
    "h264": {"options": {"g": "20", "bf": "3"}},
    "h264_flat": {"options": {"x264-params": "keyint=20:bframes=2:b-pyramid=none:b-adapt=0"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=20:bframes=3:log-level=none"}},
    "mpeg4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg2": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
}


def assert_like_plain_decoding(path: Path) -> None:
    frames, _ = decode_all(path)
    for sampling in SAMPLINGS:
        video = read_video(path, sampling)
        assert video.indices == tuple(sampling.indices(len(frames)))
        assert np.array_equal(video.frames, np.stack([frames[i] for i in video.indices]))
        assert video.source_frames == len(frames)
        assert list(video.timestamps) == sorted(set(video.timestamps))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("codec", CODECS)
def test_decoding_times_for_presentation_times(tmp_path: Path, codec: str, suffix: str) -> None:
    if (codec, suffix) == ("mpeg4", "ts"):
        pytest.skip("MPEG-4 from MP4 cannot be put into a transport stream as it is")
    ordered = make_clip(tmp_path / f"ordered.{'ts' if codec == 'mpeg2' else 'mp4'}", **CODECS[codec])
    path = without_order(ordered, tmp_path / f"unordered.{suffix}")
    assert_like_plain_decoding(path)
    assert numbers_of(read_video(path, Sampling(frames=None)).frames) == list(range(60))
    assert read_video(path, Sampling(frames=2)).timestamps == pytest.approx((0, 59 / 30), abs=2e-3)


def with_times(source: Path, path: Path, change: Callable[[int], float | None]) -> Path:
    """Copy a clip; ``change`` tells by how many frames a packet's time is wrong, None for one that is missing."""
    if int(av.__version__.split(".")[0]) < 15:
        pytest.skip("PyAV 14 does not copy streams as they are")
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream: Any = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        held = [packet for packet in old.demux(stream) if packet.dts is not None]
        for at, packet in enumerate(held):
            late = change(at)
            if late is not None:
                packet.pts, packet.stream = max(packet.dts, packet.pts + int(late / 30 / packet.time_base)), copy
                new.mux(packet)
    return path


FAST = {"count": 30, "options": {"g": "12", "bf": "2", "preset": "ultrafast"}}
MPEG2: dict[str, Any] = {"count": 30, "codec": "mpeg2video", "options": {"g": "10", "bf": "2"}}
EVERY_12 = {"options": {"g": "12", "bf": "3", "sc_threshold": "0"}}
# How a clip is made, the container, and which packets have a wrong time or are missing.
WRONG: dict[str, tuple[dict[str, Any], str, dict[int, float | None]]] = {
    "a little": (CODECS["mpeg2"], "mp4", {29: 1.4}),
    "a little, of a keyframe": (EVERY_12, "ts", {24: 2.4}),
    "a little, before a keyframe": (EVERY_12, "ts", {25: -2.4}),
    "a little, further on": (EVERY_12, "mp4", {27: -1.4}),
    "a little, at the end": (EVERY_12, "mp4", {59: -1.4}),
    "far, before a keyframe": (CODECS["mpeg2"], "ts", {25: 2000.0}),
    "far, behind the last keyframe": (FAST, "ts", {25: 2000.0}),
    "far, with no times of decoding": (CODECS["h264"], "mkv", {25: 2000.0}),
    "missing behind a keyframe": (MPEG2, "ts", dict.fromkeys(range(12, 20))),
    "missing up to a keyframe": (MPEG2, "ts", dict.fromkeys(range(13, 18))),
    "missing and far": (FAST, "ts", {5: None, 17: 2000.0}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_times_of_some_frames_are_wrong(tmp_path: Path, wrong: str) -> None:
    settings, suffix, changes = WRONG[wrong]
    ordered = make_clip(tmp_path / f"ordered.{'ts' if 'codec' in settings else 'mp4'}", **settings)
    path = with_times(ordered, tmp_path / f"wrong.{suffix}", lambda at: changes.get(at, 0.0))
    frames, _ = decode_all(path)
    assert len(frames) == settings.get("count", 60) - list(changes.values()).count(None)
    for count in range(1, len(frames) + 1):
        video = read_video(path, Sampling(frames=count))
        assert np.array_equal(video.frames, np.stack([frames[i] for i in video.indices]))


def test_times_that_go_back_without_reordering(tmp_path: Path) -> None:
    ordered = make_clip(tmp_path / "ordered.mp4", options={"g": "12", "bf": "0"})
    path = with_times(ordered, tmp_path / "wrong.mp4", lambda at: 3.0 * (at == 30))
    assert_like_plain_decoding(path)
    assert numbers_of(read_video(path, Sampling(frames=None)).frames) == list(range(60))


def test_only_a_part_of_the_file_is_out_of_order(tmp_path: Path) -> None:
    """As when two files are joined without coding them anew: one with presentation times, one without."""
    first = make_clip(tmp_path / "first.mp4", **CODECS["h264"])
    second = without_order(first, tmp_path / "second.mp4")
    path = tmp_path / "joined.mp4"
    with av.open(str(path), "w") as new:
        copy: Any = None
        shift = 0
        for source in (first, second):
            with av.open(str(source)) as old:
                stream: Any = old.streams.video[0]
                copy = copy or new.add_stream_from_template(stream)
                packets = [packet for packet in old.demux(stream) if packet.dts is not None]
                shift -= packets[0].dts
                for packet in packets:
                    packet.dts, packet.pts, packet.stream = packet.dts + shift, packet.pts + shift, copy
                    last = packet.dts
                    new.mux(packet)
            shift = last + 512
    assert_like_plain_decoding(path)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_material_exchange_format(tmp_path: Path, codec: str) -> None:
    path = make_clip(tmp_path / "clip.mxf", codec=codec, options={"g": "12", "bf": "2"})
    assert_like_plain_decoding(path)
    assert numbers_of(read_video(path, Sampling(frames=None)).frames) == list(range(60))


@pytest.mark.parametrize("starts", [(0, 0), (100, 115), (115, 0), (100, 100)])
@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_recordings_joined_whose_clock_jumps_back(tmp_path: Path, suffix: str, starts: tuple[int, int]) -> None:
    codec: dict[str, Any] = (
        {"options": {"g": "20", "bf": "3"}}
        if suffix == "ts"
        else {"codec": "mpeg2video", "format": "mpeg", "options": {"g": "12", "bf": "2"}}
    )
    parts = [
        make_clip(tmp_path / f"{number}.{suffix}", count=30, ticks=[start + i for i in range(30)], **codec)
        for number, start in enumerate(starts)
    ]
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert_like_plain_decoding(path)
    assert numbers_of(read_video(path, Sampling(frames=None)).frames) == [*range(30), *range(30)]


def test_streams_without_reordering_are_not_decoded_whole(clip: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    """MPEG-2 says that it may reorder also where it does not: packet times that ascend are no proof against them."""

    def refuse(*arguments: Any) -> Video:
        raise RuntimeError("decoded everything instead of seeking")

    monkeypatch.setattr(reader, "_read_by_decoding", refuse)
    for name in ("no_b", "mpeg2"):
        path = clip(name, options={"g": "10", "bf": "0"})
        video = read_video(path, Sampling(frames=3))
        assert numbers_of(video.frames) == [0, 29, 59]
        assert video.decoded is not None
        assert video.decoded < 40


def test_uneven_times_of_open_groups_are_not_decoded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames before a keyframe are those of an open group; from the keyframe before, decoding bears the times out."""

    def refuse(*arguments: Any) -> Video:
        raise RuntimeError("decoded everything instead of seeking")

    monkeypatch.setattr(reader, "_read_by_decoding", refuse)
    ticks = [i + (i > 20) * 3 + (i > 40) * 5 for i in range(60)]
    for name in ("open_gop", "hevc_open_gop"):
        path = make_clip(tmp_path / f"{name}.mkv", **CLIPS[name][1], ticks=ticks)
        video = read_video(path, Sampling(frames=3))
        assert numbers_of(video.frames) == list(video.indices)
        assert video.decoded is not None
        assert video.decoded < 60


def test_recorded_faults() -> None:
    for name in ("xvid_remuxed.mp4", "joined_overlapping.ts", "ordered_reference.mp4"):
        assert_like_plain_decoding(shared(f"faults/{name}"))


@pytest.mark.parametrize("entry", [b"xx", b"01wb"])
def test_an_index_that_does_not_belong_to_its_packets_is_noticed(tmp_path, entry) -> None:
    path = make_clip(tmp_path / "clip.avi", count=30, codec="mjpeg", pixels="yuvj420p")
    raw = bytearray(path.read_bytes())
    first = raw.find(b"idx1") + 8
    raw[first : first + len(entry)] = entry
    path.write_bytes(raw)
    with av.open(str(path)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    video = read_video(path, Sampling(frames=3))
    assert all(np.array_equal(frame, plain[index]) for frame, index in zip(video.frames, video.indices, strict=True))
