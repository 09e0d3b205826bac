"""Files that cannot be read: one line naming the file and the cause, with libav's error chained."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any, cast

import av
import pytest
from av.error import FFmpegError

from earlytom.errors import EarlyTomError, VideoError
from earlytom.video import Sampling, read_video
from earlytom.video._integrity import _boxes, missing_bytes

from .clips import make_sound, numbers_of
from .conftest import Factory

FASTSTART: dict[str, Any] = {"format_options": {"movflags": "+faststart"}, "noise": True}


def message(source: Any, sampling: Sampling | None = None, cause: type[Exception] | None = None) -> str:
    """The error of reading ``source``; ``cause`` is the type it must be chained from."""
    with pytest.raises(VideoError) as caught:
        read_video(source, sampling or Sampling())
    text = str(caught.value)
    assert isinstance(caught.value, EarlyTomError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in text
    if cause is not None:
        assert isinstance(caught.value.__cause__, cause)
    return text


def test_missing_directory_empty_and_text(tmp_path: Path) -> None:
    assert message(tmp_path / "no.mp4", cause=FileNotFoundError) == f"{tmp_path / 'no.mp4'}: no such file"
    assert message(str(tmp_path)) == f"{tmp_path}: is a directory, not a video file"
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert message(empty) == f"{empty}: is empty (0 bytes)"
    text = tmp_path / "text.mp4"
    text.write_text("This is no video.\n" * 100)
    assert message(text, cause=FFmpegError).startswith(f"{text}: not a video file, or corrupt: ")
    assert message("nul\0byte.mp4", cause=ValueError).startswith("nul\N{REPLACEMENT CHARACTER}byte.mp4: ")


def test_fifo_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is not a regular file" in message(tmp_path / "pipe.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    assert message(path, cause=PermissionError).startswith(f"{path}: cannot be opened: ")


def test_bytes_and_file_objects_are_named() -> None:
    assert message(b"") == "<bytes>: is empty (0 bytes)"
    assert message(b"no video" * 50).startswith("<bytes>: not a video file")
    assert message(io.BytesIO(b"no video" * 50)).startswith("<file object>: not a video file")
    assert message(io.StringIO("text")) == "<file object>: gives text, not bytes; open the file in binary mode"


def test_file_objects_that_fail() -> None:
    class Failing(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError("the wire is cut")

    assert message(Failing(), cause=OSError) == "<file object>: cannot be read: the wire is cut"


@pytest.mark.parametrize("source", [None, 5, {"a": 1}])
def test_things_that_are_no_source(source: object) -> None:
    assert f"{type(source).__name__} is not a video source" in message(source)


def test_audio_only(tmp_path: Path) -> None:
    sound = make_sound(tmp_path / "sound.mp4")
    assert message(sound) == f"{sound}: has only audio, no video to read"
    cover = make_sound(tmp_path / "cover.mp4", cover=True)
    assert message(cover) == f"{cover}: has only audio and a cover picture, no video to read"


def test_index_at_the_end_cut_off(clip: Factory, tmp_path: Path) -> None:
    data = clip("short_gop", noise=True).read_bytes()
    path = tmp_path / "cut.mp4"
    for size in (data.rindex(b"stsz") + 20, data.rindex(b"moov") - 4, len(data) // 2):
        path.write_bytes(data[:size])
        assert message(path, cause=FFmpegError) == (f"{path}: truncated or unfinished: the index (moov box) is missing")


def test_stream_cut_off_behind_its_index(clip: Factory) -> None:
    data = clip("short_gop", **FASTSTART).read_bytes()
    cut = data[: len(data) * 6 // 10]
    text = message(cut)
    assert text.startswith(f"<bytes>: truncated: {len(data) - len(cut)} bytes are missing, ")
    assert text.endswith("of 60 frames are there")
    # Even when every frame asked for is still there, the last one would silently be another.
    assert "truncated" in message(cut, Sampling(frames=1))


@pytest.mark.parametrize("name", ["matroska", "fragmented", "avi"])
def test_other_containers_cut_off(clip: Factory, name: str) -> None:
    data = clip(name, noise=True).read_bytes()
    assert missing_bytes(io.BytesIO(data)) == 0
    cut = data[: len(data) * 6 // 10]
    assert missing_bytes(io.BytesIO(cut)) > 0
    assert "<bytes>: truncated: " in message(cut)


@pytest.mark.parametrize("name", ["short_gop", "faststart", "matroska", "fragmented", "avi"])
def test_wherever_a_file_is_cut_it_is_refused_or_read_right(clip: Factory, name: str) -> None:
    data = (clip("short_gop", **FASTSTART) if name == "faststart" else clip(name, noise=True)).read_bytes()
    refused = 0
    # A file of fragments that ends right behind one of them is a shorter file, whole in itself.
    whole = {end for kind, end in _boxes(io.BytesIO(data)) if kind == b"mdat"} if name == "fragmented" else set()
    around = {end + offset for end in whole for offset in range(-9, 10)}
    sizes = {*range(1, 100, 7), *range(100, len(data), len(data) // 60), *range(len(data) - 60, len(data), 6)}
    for size in sorted((sizes | around) - whole - set(range(len(data), len(data) + 10))):
        try:
            video = read_video(data[:size], Sampling(frames=3))
        except VideoError as error:
            refused += 1
            assert str(error).startswith("<bytes>: ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert numbers_of(video.frames) == [0, 29, 59]
    assert refused > 60


def test_transport_stream_cut_within_a_frame(clip: Factory) -> None:
    data = clip("transport", noise=True).read_bytes()
    refused = 0
    for size in range(len(data) // 3, len(data), len(data) // 40):
        # The format does not tell its length: what is wholly missing is unknown, only a frame cut in two is noticed.
        try:
            video = read_video(data[:size], Sampling(frames=None))
        except VideoError as error:
            refused += 1
            assert re.fullmatch(r"<bytes>: corrupt or truncated: \d\d of \d\d frames can be decoded.*", str(error))  # noqa: PT017
        else:
            # Frames shown earlier may be stored behind the cut; none that is given out may be another one.
            numbers = numbers_of(video.frames)
            assert numbers == sorted(set(numbers))
            assert numbers[:-4] == list(range(len(numbers) - 4))
            assert numbers[-1] < len(numbers) + 3
    assert refused > 10


def test_missing_sound_behind_the_pictures_is_no_error(clip: Factory) -> None:
    data = clip("short_gop", sound=True, format_options={"movflags": "+faststart"}).read_bytes()
    cut = data[:-100]
    assert missing_bytes(io.BytesIO(cut)) == 100
    assert numbers_of(read_video(cut, Sampling(frames=2)).frames) == [0, 59]


def test_zeros_where_frames_should_be(clip: Factory) -> None:
    data = clip("short_gop", **FASTSTART).read_bytes()
    half = len(data) * 6 // 10
    zeroed = data[:half] + bytes(len(data) - half)
    text = message(zeroed, cause=FFmpegError)
    assert text.startswith("<bytes>: corrupt or truncated: ")
    assert "of 60 frames can be decoded (" in text
    kept = int(text.split(": ")[2].split()[0])
    assert 25 < kept < 45


def test_noise_where_frames_should_be(clip: Factory) -> None:
    data = bytearray(clip("short_gop", **FASTSTART).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(range(1, 251)) * 12
    text = message(bytes(data))
    assert text.startswith("<bytes>: corrupt or truncated: ")
    assert "of 60 frames can be decoded" in text
    # The damage is in the middle: what is not touched by it can still be read.
    assert numbers_of(read_video(bytes(data), Sampling(frames=1)).frames) == [0]


def test_stream_without_frames(clip: Factory) -> None:
    path = clip("fragmented", count=0)
    assert message(path) == f"{path}: the video stream holds no frames"
    path = clip("lossless", count=0)
    assert message(path, cause=EOFError) == f"{path}: truncated or without frames: ends before the first"


def test_text_and_playlists_are_no_videos(clip: Factory, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("words\n" * 500)
    # Not played as a film of a typing terminal, as libav would for this name.
    assert message(text) == f"{text}: not a video file, or corrupt: it holds text"
    playlist = tmp_path / "list.m3u8"
    (tmp_path / "part.ts").write_bytes(clip("transport").read_bytes())
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\npart.ts\n#EXT-X-ENDLIST\n")
    assert message(playlist) == f"{playlist}: is a playlist, not a video file"


def test_sound_that_begins_late(clip: Factory) -> None:
    # A stream that turns up behind what was read for opening.
    long = clip("transport", noise=True, count=250).read_bytes()
    joined = long + clip("transport", sound=True, count=3).read_bytes() + long
    with av.open(io.BytesIO(joined)) as container:
        assert len(container.streams) == 1
    try:
        video = read_video(joined, Sampling(frames=2))
    except VideoError as error:
        assert str(error).startswith("<bytes>: ")  # noqa: PT017
    else:
        assert numbers_of(video.frames) == [0, 249]
        # The clock jumps back twice, so that frames are counted by decoding, over the same packets.
        assert video.source_frames == 250 + 3 + 250


def test_bad_arguments(clip: Factory) -> None:
    path = clip("one_frame")
    for arguments, text in (
        ({"decoder": "opencv"}, "decoder is 'opencv'; allowed: 'pyav', 'torchcodec'"),
        ({"threads": -1}, "threads is -1; allowed"),
        ({"threads": True}, "threads is True; allowed"),
        ({"sampling": 8}, "sampling is a int; allowed"),
    ):
        with pytest.raises(VideoError) as caught:
            read_video(path, **cast(Any, arguments))
        assert text in str(caught.value)


def test_nothing_stays_open(clip: Factory, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(clip("short_gop", noise=True).read_bytes()[:5000])
    good = clip("short_gop")
    damaged = tmp_path / "damaged.mp4"
    data = clip("short_gop", **FASTSTART).read_bytes()
    damaged.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))

    def open_files() -> list[str]:
        found = []
        for number in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{number}"))
            except FileNotFoundError:
                continue
        return found

    read_video(good)
    for path in (bad, damaged):
        message(path)
    assert not {str(good), str(bad), str(damaged)} & set(open_files())
