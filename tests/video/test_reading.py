"""The right frames, exactly, and no more decoding than needed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import numpy as np
import pytest

from earlytom.errors import VideoError
from earlytom.video import Sampling, Video, read_video
from earlytom.video import _pyav as reader

from .clips import decode_all, numbers_of, picture, with_edit, with_matrix
from .conftest import CLIPS, Factory

SAMPLINGS = [Sampling(frames=1), Sampling(frames=3), Sampling(frames=7), Sampling(), Sampling(frames=None)]
# Formats whose packets do not tell times: read by decoding everything.
WITHOUT_TABLE = {"avi_h264_b", "raw"}


def same(first: Video, second: Video) -> bool:
    return first.indices == second.indices and np.array_equal(first.frames, second.frames)


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_of_plain_decoding(clip: Factory, name: str) -> None:
    path = clip(name)
    frames, pts = decode_all(path)
    for sampling in SAMPLINGS:
        video = read_video(path, sampling, threads=2)
        assert video.indices == tuple(sampling.indices(len(frames)))
        assert numbers_of(video.frames) == list(video.indices)
        # The plain reference asks for limited range, which is not what a gray picture is.
        if name != "gray":
            assert np.array_equal(video.frames, np.stack([frames[i] for i in video.indices]))
        assert video.source_frames == len(frames) == CLIPS[name][1].get("count", 60)
        assert (video.decoder, video.source) == ("pyav", str(path))
        assert video.frames.flags.c_contiguous
        assert video.frames.dtype == np.uint8
    if name not in WITHOUT_TABLE:
        with av.open(str(path)) as container:
            unit = float(container.streams.video[0].time_base or 0)
        times = [(cast(int, p) - cast(int, pts[0])) * unit for p in pts]
        assert video.timestamps == pytest.approx(times)
    assert video.timestamps[0] == 0


@pytest.mark.parametrize("name", sorted(set(CLIPS) - WITHOUT_TABLE - {"avi"}))
def test_seeking_serves_every_format_with_times(clip: Factory, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> Video:
        raise RuntimeError("decoded everything instead of seeking")

    monkeypatch.setattr(reader, "_read_by_decoding", refuse)
    count = CLIPS[name][1].get("count", 60)
    for index in range(0, count, 7):
        # Two frames: the first, and one anywhere, each found by its own seek.
        monkeypatch.setattr(Sampling, "indices", lambda *a, index=index, **k: sorted({0, index}))
        assert numbers_of(read_video(clip(name)).frames) == sorted({0, index})


def test_only_needed_stretches_are_decoded(clip: Factory) -> None:
    video = read_video(clip("short_gop"), Sampling(frames=2), threads=2)
    # Frame 0 is a keyframe, frame 59 is the last of a group of 10.
    assert video.indices == (0, 59)
    assert video.decoded is not None
    assert 2 <= video.decoded <= 11
    assert read_video(clip("no_b"), Sampling(frames=1)).decoded == 1
    # One group of 60: everything up to the last frame, except B-frames nothing refers to.
    long = read_video(clip("long_gop"), Sampling(frames=2))
    assert long.decoded is not None
    assert long.decoded < 60
    everything = read_video(clip("short_gop"), Sampling(frames=None))
    assert everything.decoded == 60
    # Counted once, then decoded up to the last frame wanted.
    assert read_video(clip("raw"), Sampling(frames=1)).decoded == 61


def test_real_recordings(real_clips: Path) -> None:
    for name, count in (("talk_portrait.mp4", 524), ("clip_b.mp4", 96)):
        video = read_video(real_clips / name, Sampling(frames=8))
        assert video.source_frames == count
        assert video.source_fps == pytest.approx(30)
        assert video.duration == pytest.approx(count / 30, abs=0.02)
        assert video.decoded is not None
        assert video.decoded < 0.6 * count
        frames, pts = decode_all(real_clips / name, only=set(video.indices))
        assert len(pts) == count
        assert np.array_equal(video.frames, np.stack(frames))


def test_fps_follows_a_variable_clock(clip: Factory) -> None:
    path = clip("variable")
    _, pts = decode_all(path)
    with av.open(str(path)) as container:
        unit = float(container.streams.video[0].time_base or 0)
    times = [cast(int, p) * unit for p in pts]
    video = read_video(path, Sampling(fps=2.0))
    moments = np.arange(0, times[-1] + 1e-4, 0.5)
    wanted = sorted({max(i for i, t in enumerate(times) if t <= m + 1e-4) for m in moments})
    assert list(video.indices) == wanted == numbers_of(video.frames)
    assert video.timestamps == pytest.approx([times[i] for i in wanted])
    assert len(read_video(path, Sampling(fps=2.0, max_frames=3)).indices) == 3


def test_path_bytes_and_file_objects_agree(clip: Factory) -> None:
    path = clip("short_gop")
    data = path.read_bytes()
    expected = read_video(path, Sampling(frames=5))
    for source in (str(path), data, bytearray(data), memoryview(data), io.BytesIO(data)):
        assert same(read_video(cast(Any, source), Sampling(frames=5)), expected)
    assert read_video(data).source == "<bytes>"
    with path.open("rb") as file:
        file.seek(100)
        video = read_video(file, Sampling(frames=5))
        assert same(video, expected)
        assert video.source == "<file object>"
        assert file.tell() == 100
        assert not file.closed


def test_file_object_that_cannot_seek(clip: Factory) -> None:
    path = clip("short_gop")
    inward, outward = os.pipe()
    with subprocess.Popen([sys.executable, "-c", f"print(end=open({str(path)!r},'rb').read().hex())"], stdout=outward):
        os.close(outward)
        with os.fdopen(inward, "rb") as hexadecimal:

            class Pipe(io.RawIOBase):
                def readall(self) -> bytes:
                    return bytes.fromhex(hexadecimal.read().decode())

                def read(self, size: int = -1) -> bytes:
                    return self.readall()

            assert same(read_video(cast(BinaryIO, Pipe())), read_video(path))


def test_path_that_looks_like_a_protocol(clip: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "concat:a%03d.mp4").write_bytes(clip("no_b").read_bytes())
    assert numbers_of(read_video("concat:a%03d.mp4", Sampling(frames=2)).frames) == [0, 59]


TURNS: dict[str, tuple[tuple[int, int, int, int], Callable[[Any], Any]]] = {
    "upright": ((1, 0, 0, 1), lambda p: p),
    "clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "counter-clockwise": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "upside-down": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", TURNS)
def test_rotation_is_applied(clip: Factory, name: str) -> None:
    matrix, turned = TURNS[name]
    data = clip("short_gop").read_bytes()
    plain = read_video(data, Sampling(frames=4))
    video = read_video(with_matrix(data, *matrix), Sampling(frames=4))
    for before, after in zip(plain.frames, video.frames, strict=True):
        assert np.array_equal(after, turned(before))


def test_edit_list_hides_the_frames_before_it(clip: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the fallback, which would set right a table that counts hidden frames.
    monkeypatch.delattr(reader, "_read_by_decoding")
    data = clip("short_gop").read_bytes()
    with av.open(io.BytesIO(data)) as container:
        frame = round(1 / 30 / (container.streams.video[0].time_base or 1))
    # Two frames of delay for B-frames, then 25 trimmed off: in the middle of the third group.
    trimmed = with_edit(data, (2 + 25) * frame)
    expected, _ = decode_all(trimmed)
    video = read_video(trimmed, Sampling(frames=6))
    assert video.source_frames == len(expected) == 35
    assert numbers_of(video.frames) == [25 + i for i in video.indices]
    assert video.timestamps[0] == 0


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_recording_that_starts_between_keyframes(clip: Factory, codec: str) -> None:
    data = clip("transport", noise=True, codec=codec).read_bytes()
    cut = data[188 * (len(data) // 188 // 6) :]
    video = read_video(cut, Sampling(frames=None))
    # Nothing but whole frames, from the first keyframe on.
    assert numbers_of(video.frames) == list(range(60 - video.source_frames, 60))
    assert 30 < video.source_frames < 60
    assert video.timestamps == pytest.approx([i / 30 for i in video.indices], abs=1e-4)
    assert numbers_of(read_video(cut, Sampling(frames=2)).frames) == [60 - video.source_frames, 59]


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (1, True), (5, False), (6, True)])
def test_declared_colours(tmp_path: Path, matrix: int, full: bool) -> None:
    red, green, blue = 200, 40, 90
    kr, kb = (0.2126, 0.0722) if matrix == 1 else (0.299, 0.114)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    scale, offset = (1.0, 0) if full else (219 / 255, 16)
    chroma = 1.0 if full else 224 / 255
    levels = (
        round(luma * scale + offset),
        round((blue - luma) / (2 - 2 * kb) * chroma + 128),
        round((red - luma) / (2 - 2 * kr) * chroma + 128),
    )
    path = tmp_path / "colour.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"qp": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        frame = av.VideoFrame(64, 64, "yuv420p")
        for plane, level in zip(frame.planes, levels, strict=True):
            plane.update(bytes([level]) * plane.buffer_size)
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert read_video(path).frames[0].reshape(-1, 3).mean(axis=0) == pytest.approx([red, green, blue], abs=3)


def test_size_change_within_a_stream_is_an_error(clip: Factory) -> None:
    joined = clip("raw").read_bytes() + clip("raw", width=128, height=80).read_bytes()
    with pytest.raises(VideoError, match=r"<bytes>: the picture size changes from 96x64 to 128x80 at frame \d+"):
        read_video(joined)


def test_importing_stays_cheap() -> None:
    code = (
        "import sys, earlytom.video;"
        "print(sorted({'av', 'torch', 'PIL', 'torchcodec', 'earlytom.video._pyav'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert (done.stdout.strip(), done.stderr.strip()) == ("[]", "")


def test_a_picture_carries_its_number() -> None:
    assert [numbers_of(picture(i, 97, 55)[None])[0] for i in (0, 37, 255)] == [0, 37, 255]


@pytest.mark.parametrize("threads", [-1, 257, 10**6, 10**400, True, 1.0])
def test_threads_out_of_range(threads: Any) -> None:
    with pytest.raises(VideoError, match=r"^threads is .*; allowed: an integer from 0 \(automatic\) to 256$"):
        read_video("x.mp4", threads=threads)


def test_as_many_threads_as_allowed(clip: Factory) -> None:
    path = clip("no_b")
    assert np.array_equal(read_video(path, threads=256).frames, read_video(path, threads=1).frames)
