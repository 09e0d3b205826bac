"""Damaged frames: an error that counts them, wherever they are, or, where it is allowed, the whole frames around."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import earlytom
from earlytom.errors import VideoError
from earlytom.video import Limits, Sampling, Video, read_video
from earlytom.video._whole import _missing

from .clips import decode_all, make_clip, packet_places, slice_damaged
from .conftest import Factory
from .test_long import packets, table_of

LONG: dict[str, Any] = {"count": 120, "noise": True, "options": {"g": "10", "bf": "2", "sc_threshold": "0"}}


def error_of(data: bytes, sampling: Sampling, **options: Any) -> str:
    with pytest.raises(VideoError) as caught:
        read_video(data, sampling, **options)
    return str(caught.value)


@pytest.mark.parametrize("offset", [4, 5, 6])
@pytest.mark.parametrize("sample", [0, 1, 2, 50, 95])
def test_damage_anywhere_in_a_shipped_clip_is_counted(sample: int, offset: int) -> None:
    data = slice_damaged(Path(earlytom.sample_videos()[0]).read_bytes(), sample, offset)
    text = error_of(data, Sampling(frames=None))
    assert text.startswith("<bytes>: corrupt or truncated: ")
    assert " of 96 frames can be decoded" in text
    assert int(text.split(": ")[2].split()[0]) < 96


def test_a_few_frames_of_a_damaged_file_are_right_or_refused() -> None:
    data = Path(earlytom.sample_videos()[0]).read_bytes()
    frames, _ = decode_all(data)
    for sample in range(0, 96, 5):
        for count in (1, 2, 8):
            try:
                video = read_video(slice_damaged(data, sample), Sampling(frames=count))
            except VideoError as error:
                assert " of 96 frames can be decoded" in str(error)  # noqa: PT017
            else:
                assert video.source_frames == 96
                assert np.array_equal(video.frames, np.stack([frames[i] for i in video.indices]))
                assert video.damaged == ()


def right_or_refused(data: bytes, frames: list[Any], sampling: Sampling, threads: int) -> bool:
    """Read a damaged file: True where it is refused, else the pictures have to be those before the damage."""
    try:
        video = read_video(data, sampling, threads=threads)
    except VideoError as error:
        assert re.search(r": \d+ of \d+ frames can be decoded", str(error))  # noqa: PT017
        return True
    assert video.source_frames == len(frames)
    assert np.array_equal(video.frames, np.stack([frames[i] for i in video.indices]))
    return False


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bframes", [0, 2, 4])
@pytest.mark.parametrize("sampling", [Sampling(frames=6), Sampling(frames=3), Sampling(frames=6, near=0.5)])
def test_a_lost_picture_is_not_taken_for_one_left_out(
    clip: Factory, bframes: int, sampling: Sampling, threads: int
) -> None:
    """With a keyframe lost, all goes on from the group before, up to a picture that looks nothing like it was."""
    options = {"g": "12", "bf": str(bframes), "sc_threshold": "0"}
    data = clip("no_b", noise=True, options=options).read_bytes()
    frames, _ = decode_all(data)
    asked = read_video(data, sampling).indices
    refused = {at for at in range(60) if right_or_refused(slice_damaged(data, at), frames, sampling, threads)}
    # Keyframes on the way to a frame asked for, in the middle of the stretch and at its ends.
    assert {at for at in range(0, 60, 12) if any(at <= index < at + 12 for index in asked)} <= refused


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "mpeg2video", "libvpx-vp9"])
def test_a_few_frames_of_other_codecs_are_right_or_refused(tmp_path: Path, codec: str, threads: int) -> None:
    extra = {"options": {"x265-params": "log-level=none:keyint=10"}} if codec == "libx265" else {}
    path = make_clip(tmp_path / "clip.mkv", **({"codec": codec} | LONG | extra | {"count": 30}))
    data = path.read_bytes()
    frames, _ = decode_all(data)
    for sampling in (Sampling(frames=2), Sampling(frames=5), Sampling(frames=5, near=0.5)):
        refused = [right_or_refused(gone(data, at, 12), frames, sampling, threads) for at in range(30)]
        assert any(refused)
        assert refused[0]


# Bytes of a packet's place that belong to the container: what is left of a picture that is overwritten otherwise.
HEADERS = {"mp4": 0, "avi": 8, "mkv": 12}


def gone(data: bytes, at: int, header: int) -> bytes:
    """Overwrite the picture of packet ``at`` with zeros."""
    begin, size = packet_places(data)[at]
    return data[: begin + header] + bytes(size - header) + data[begin + size :]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "mpeg2video"])
@pytest.mark.parametrize("suffix", HEADERS)
def test_a_picture_that_is_gone_is_missed(tmp_path: Path, codec: str, suffix: str) -> None:
    if (codec, suffix) == ("libx265", "avi"):
        pytest.skip("HEVC does not belong into AVI")
    extra = {"options": {"x265-params": "log-level=none:keyint=10"}} if codec == "libx265" else {}
    path = make_clip(tmp_path / f"clip.{suffix}", **({"codec": codec} | LONG | extra | {"count": 30}))
    for at in (0, 1, 2, 15):
        text = error_of(gone(path.read_bytes(), at, HEADERS[suffix]), Sampling(frames=None))
        assert " of 30 frames can be decoded" in text


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 1, 11, 29])
def test_a_row_of_an_mpeg_2_picture_that_is_gone_is_missed(tmp_path: Path, at: int, row: int, threads: int) -> None:
    """Each row is a slice, three a picture: of an odd number libav takes the last for one that need not be there."""
    path = make_clip(tmp_path / "clip.mpg", codec="mpeg2video", count=30, width=64, height=48)
    data = bytearray(path.read_bytes())
    slices = [found.start() for found in re.finditer(rb"\x00\x00\x01[\x01-\x03]", data)]
    assert len(slices) == 90
    data[slices[3 * at + row] : slices[3 * at + row] + 4] = b"\xaa" * 4
    error = error_of(bytes(data), Sampling(frames=None), threads=threads)
    assert re.search(r": \d+ of 30 frames can be decoded", error)


@pytest.mark.parametrize("flags", ["+bitexact", "+ildct+ilme"])
@pytest.mark.parametrize("height", [48, 50, 64, 720])
def test_whole_pictures_of_any_number_of_rows_have_all(tmp_path: Path, height: int, flags: str) -> None:
    options = {"g": "8", "bf": "2", "flags": flags}
    path = make_clip(tmp_path / "clip.ts", codec="mpeg2video", count=10, width=32, height=height, options=options)
    assert read_video(path, Sampling(frames=None)).source_frames == 10


@pytest.mark.parametrize(("suffix", "offset"), [("ts", 4), ("ts", 12), ("flv", 4), ("flv", 11)])
def test_h264_pictures_that_the_decoder_drops_in_silence_are_counted(tmp_path: Path, suffix: str, offset: int) -> None:
    """Behind a keyframe that the container lost, libav gives nothing for a while, and reports nothing."""
    options = {"g": "12", "bf": "0", "sc_threshold": "0"}
    data = make_clip(tmp_path / f"clip.{suffix}", noise=True, options=options).read_bytes()
    place = packet_places(data)[24][0] + offset
    data = data[:place] + b"\xa5" * 8 + data[place + 8 :]
    assert len(decode_all(data)[0]) == 49
    for sampling in (Sampling(frames=None), Sampling(frames=6)):
        assert re.search(r": \d+ of 59 frames can be decoded", error_of(data, sampling))


@pytest.mark.parametrize("settings", ["intra-refresh=1:bframes=0", "intra-refresh=1:bframes=3", "open-gop=1", "tff=1"])
def test_recordings_cut_anywhere_are_not_damaged(tmp_path: Path, settings: str) -> None:
    options = {"x264-params": f"keyint=12:scenecut=0:{settings}"}
    data = make_clip(tmp_path / "clip.ts", noise=True, options=options).read_bytes()
    for begin, _ in packet_places(data)[:36:3]:
        frames, _ = decode_all(data[begin:])
        assert read_video(data[begin:], Sampling(frames=None)).source_frames == len(frames)


@pytest.mark.parametrize(
    ("lost", "missing"),
    [(set(), set()), ({44}, {43, 44, 45}), ({40, 44}, {39, 40, 41, 43, 44, 45}), ({4}, set()), ({58}, {57, 58, 59})],
)
def test_fields_that_are_packets_of_their_own_are_not_lost(lost: set[int], missing: set[int]) -> None:
    """Of each two packets of an interlaced recording, the second gives no frame."""
    stream: Any = SimpleNamespace(codec_context=SimpleNamespace(name="h264"), frames=0)
    given = [at for at in range(0, 60, 2) if at not in lost]
    assert _missing(stream, table_of(packets(60)), given) == missing


def test_matroska_whose_first_keyframe_is_gone_does_not_start_later(clip: Factory) -> None:
    data = bytearray(clip("matroska", noise=True).read_bytes())
    begin, _ = packet_places(bytes(data))[0]
    # The flags of the block, behind the number of its track and its time: no keyframe any more.
    data[data.index(b"\x81\0\0\x80", begin) + 3] = 0
    data[begin + 700 : begin + 1100] = bytes(400)
    error_of(bytes(data), Sampling(frames=None))


def test_index_that_points_behind_the_end(clip: Factory) -> None:
    data = bytearray(clip("short_gop", noise=True).read_bytes())
    sizes = data.index(b"stsz") + 16
    data[sizes + 4 * 30 : sizes + 4 * 30 + 4] = (1 << 24).to_bytes(4, "big")
    for frames in (1, 3, None):
        text = error_of(bytes(data), Sampling(frames=frames))
        assert text.startswith("<bytes>: corrupt: ")
        assert text.endswith(" of 60 frames are there")


def damaged_in_the_middle(clip: Factory) -> tuple[bytes, list[Any]]:
    data = clip("short_gop", **LONG).read_bytes()
    frames, _ = decode_all(data)
    return slice_damaged(data, 43), frames


def test_tolerance_gives_whole_frames_and_says_what_is_damaged(clip: Factory) -> None:
    data, frames = damaged_in_the_middle(clip)
    assert error_of(data, Sampling(frames=None)).startswith("<bytes>: corrupt or truncated: ")
    video = read_video(data, Sampling(frames=None), damage_tolerance=0.1)
    assert video.source_frames == 120
    # From the damaged frame on, all that is stored before the next keyframe may refer to it: 43 is stored before it.
    assert video.damaged == ((42, 42), (44, 49))
    assert list(video.indices) == [i for i in range(120) if i not in (42, *range(44, 50))]
    assert np.array_equal(video.frames, np.stack([frames[i] for i in video.indices]))
    assert video.timestamps == pytest.approx([i / 30 for i in video.indices])


def test_tolerance_gives_the_nearest_whole_frame_once(clip: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    data, frames = damaged_in_the_middle(clip)
    wanted = [0, 42, 44, 45, 48, 49, 100]
    monkeypatch.setattr(Sampling, "indices", lambda *arguments, **named: wanted)
    video = read_video(data, damage_tolerance=0.1)
    assert video.indices == (0, 41, 43, 50, 100)
    assert np.array_equal(video.frames, np.stack([frames[i] for i in video.indices]))


def test_the_trace_says_what_is_damaged(clip: Factory) -> None:
    data, _ = damaged_in_the_middle(clip)
    video = read_video(data, Sampling(frames=60), damage_tolerance=0.1)
    qa = earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")
    answer = qa.ask(video, "What colour is the circle?", method="none", max_new_tokens=1)
    source = json.loads(json.dumps(answer.trace.videos[0].source))
    assert source["damaged_frames"] == [[42, 42], [44, 49]]


def test_tolerance_is_a_limit(clip: Factory) -> None:
    data, _ = damaged_in_the_middle(clip)
    text = error_of(data, Sampling(frames=None), damage_tolerance=0.01)
    assert " of 120 frames can be decoded" in text
    assert text.endswith("; damage_tolerance is 0.01")


def test_tolerance_without_damage_changes_nothing(clip: Factory) -> None:
    for name in ("short_gop", "avi_h264_b", "raw"):
        usual = read_video(clip(name))
        tolerant = read_video(clip(name), damage_tolerance=0.5)
        assert (tolerant.indices, tolerant.timestamps, tolerant.damaged) == (usual.indices, usual.timestamps, ())
        assert np.array_equal(tolerant.frames, usual.frames)


@pytest.mark.parametrize("sample", [0, 1, 44])
@pytest.mark.parametrize("name", ["avi_h264_b", "avi", "matroska"])
def test_tolerance_in_other_containers(clip: Factory, name: str, sample: int) -> None:
    path = clip(name, **LONG)
    frames, _ = decode_all(path)
    data = gone(path.read_bytes(), sample, HEADERS[path.suffix[1:]])
    video = read_video(data, Sampling(frames=None), damage_tolerance=0.3)
    lost = [number for first, last in video.damaged for number in range(first, last + 1)]
    # AVI does not tell times, so that only keyframes tell what is lost between them.
    assert 1 <= len(lost) <= (10 if name == "matroska" else 30)
    assert any(abs(sample - number) <= 3 for number in lost)
    assert list(video.indices) == [number for number in range(120) if number not in lost]
    assert np.array_equal(video.frames, np.stack([frames[number] for number in video.indices]))


def test_everything_damaged_is_an_error_at_any_tolerance(clip: Factory) -> None:
    data = clip("short_gop", noise=True).read_bytes()
    end = data.index(b"moov")
    begin = packet_places(data)[0][0]
    text = error_of(data[:begin] + bytes(end - 4 - begin) + data[end - 4 :], Sampling(), damage_tolerance=1.0)
    assert "0 of 60 frames can be decoded" in text


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), True, "0.1", None, 10**400])
def test_tolerances_that_are_none(clip: Factory, value: object) -> None:
    with pytest.raises(VideoError, match=r"damage_tolerance is .*; allowed: a number from 0 to 1") as caught:
        read_video(clip("one_frame"), damage_tolerance=cast(Any, value))
    assert len(str(caught.value)) < 200


def test_tolerance_needs_the_default_decoder(clip: Factory) -> None:
    with pytest.raises(VideoError, match=r"damage_tolerance is 0\.1; allowed with decoder='torchcodec': 0"):
        read_video(clip("one_frame"), decoder="torchcodec", damage_tolerance=0.1)


def test_a_video_is_made_without_damage() -> None:
    assert Video.__dataclass_fields__["damaged"].default == ()


def test_limits_hold_and_frames_are_scaled_where_damage_is_let_pass(clip: Factory) -> None:
    data, _ = damaged_in_the_middle(clip)
    whole = read_video(data, Sampling(frames=None), damage_tolerance=0.1)
    small = read_video(data, Sampling(frames=None), damage_tolerance=0.1, limits=Limits(shrink_to=32))
    assert (small.frames.shape[1:3], small.scaled_from) == ((32, 48), (96, 64))
    assert (small.indices, small.damaged) == (whole.indices, whole.damaged)
    text = error_of(data, Sampling(frames=None), damage_tolerance=0.1, limits=Limits(max_pixels=96 * 64 - 1))
    assert text.endswith("(Limits.max_pixels)")
    text = error_of(data, Sampling(frames=None), damage_tolerance=0.1, limits=Limits(max_bytes=1000))
    assert "frames of 96x64 take" in text
