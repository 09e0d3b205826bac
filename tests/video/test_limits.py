"""Pictures and clips above the limits are refused before memory is taken for them."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from struct import pack
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from earlytom.errors import VideoError
from earlytom.video import Limits, Sampling, read_video

from .clips import make_clip, numbers_of, with_matrix
from .conftest import Factory

SIDE = 16000


def message(source: Any, **arguments: Any) -> str:
    with pytest.raises(VideoError) as caught:
        read_video(source, **arguments)
    return str(caught.value)


def gif(side: int) -> bytes:
    """A valid GIF of one colour, in which a long run is a few bytes."""
    file = io.BytesIO()
    Image.new("P", (side, side)).save(file, "GIF")
    return file.getvalue()


def small_gif(side: int) -> bytes:
    """One pixel on a large screen: 40 bytes."""
    picture = b",\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;"
    return b"GIF89a" + pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + picture


def png(side: int, frames: int = 0) -> bytes:
    """A black PNG; with frames, an APNG that says to have as many."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    row = zlib.compressobj(9)
    data = b"".join(row.compress(bytes(1 + side)) for _ in range(side)) + row.flush()
    control = chunk(b"acTL", pack(">II", frames, 0)) if frames else b""
    first = chunk(b"fcTL", pack(">IIIIIHHBB", 0, side, side, 0, 0, 1, 10, 0, 0)) if frames else b""
    header = chunk(b"IHDR", pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + control + first + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "TIFF", compression="tiff_deflate")
    return file.getvalue()


def in_container(data: bytes, codec: str, suffix: str, side: int) -> bytes:
    """Put a picture into a container as a frame of a video."""
    file = io.BytesIO()
    with av.open(file, "w", format=suffix) as container:
        stream: Any = container.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = side, side, "gray"
        container.start_encoding()
        for i in range(2):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, i, i, True
            packet.time_base = stream.time_base
            container.mux(packet)
    return file.getvalue()


BOMBS: dict[str, Callable[[int], bytes]] = {
    "gif": gif,
    "small_gif": small_gif,
    "png": png,
    "apng": lambda side: png(side, frames=1),
    "tiff": tiff,
    "png in avi": lambda side: in_container(png(side), "png", "avi", side),
    "png in mov": lambda side: in_container(png(side), "png", "mov", side),
}

CHILD = """
import resource, sys
from earlytom.errors import VideoError
from earlytom.video import read_video
with open(sys.argv[1], "rb") as file:
    data = file.read()
read_video(sys.argv[2])
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for source in (sys.argv[1], data):
    try:
        read_video(source)
    except VideoError as error:
        print(str(error).partition(": ")[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_picture_bombs_take_no_memory(tmp_path: Path, name: str) -> None:
    bomb, harmless = tmp_path / "bomb.mp4", tmp_path / "harmless"
    bomb.write_bytes(BOMBS[name](SIDE))
    harmless.write_bytes(BOMBS[name](64))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(bomb), str(harmless)], capture_output=True, text=True, timeout=60, check=True
    )
    *errors, megabytes = done.stdout.splitlines()
    assert (
        errors
        == ["pictures of 16000x16000 have 256,000,000 pixels; allowed: at most 67,108,864 (Limits.max_pixels)"] * 2
    )
    # One such picture is 244 MB in gray already.
    assert int(megabytes) < 60


def test_a_size_that_only_the_stream_tells(tmp_path: Path) -> None:
    # The container says 96x64, the pictures in it are larger than allowed.
    limits = Limits(max_pixels=1 << 20)
    data = in_container(png(8000), "png", "mov", 96)
    assert "corrupt or truncated: 0 of 2 frames can be decoded" in message(data, limits=limits)
    path = make_clip(tmp_path / "big.h264", width=640, height=480, count=3)
    assert "640x480 have 307,200 pixels; allowed: at most 100,000" in message(path, limits=Limits(max_pixels=100_000))


def test_the_limit_is_exact(clip: Factory) -> None:
    path = clip("short_gop")
    assert read_video(path, Sampling(frames=2), limits=Limits(max_pixels=96 * 64, max_bytes=2 * 96 * 64 * 3))
    assert message(path, limits=Limits(max_pixels=96 * 64 - 1)) == (
        f"{path}: pictures of 96x64 have 6,144 pixels; allowed: at most 6,143 (Limits.max_pixels)"
    )
    for name in ("short_gop", "raw"):
        text = message(clip(name), sampling=Sampling(frames=2), limits=Limits(max_bytes=2 * 96 * 64 * 3 - 1))
        assert text == (
            f"{clip(name)}: 2 frames of 96x64 take 36,864 bytes; allowed: at most 36,863 (Limits.max_bytes); sample "
            "fewer frames, set Limits.shrink_to, or raise the limit"
        )


def test_a_clip_of_8k_passes_and_the_limits_can_be_lifted() -> None:
    Limits().check("clip", 7680, 4320, 32)
    with pytest.raises(VideoError, match="64 frames of 7680x4320 take"):
        Limits().check("clip", 7680, 4320, 64)
    Limits(max_pixels=None, max_bytes=None).check("clip", 100_000, 100_000, 100_000)


def test_pictures_have_the_same_limits(tmp_path: Path) -> None:
    limits = Limits(max_pixels=100, max_bytes=600)
    fits, large = Image.new("RGB", (10, 10)), Image.new("RGB", (11, 10))
    assert read_video([fits, fits], limits=limits).source_frames == 2
    assert message([large], limits=limits).startswith("<images>: image 0: pictures of 11x10 have 110 pixels")
    assert message([fits] * 3, limits=limits).startswith("<images>: 3 frames of 10x10 take 900 bytes")
    # Broadcasting makes arrays that are larger than the memory they stand in.
    huge = np.broadcast_to(np.uint8(0), (32, SIDE, SIDE, 1))
    assert message(huge).startswith("<array>: pictures of 16000x16000")
    assert message(torch.zeros(1, 1).expand(32, 3, 8000, 8000, 1)[..., 0]).startswith(
        "<tensor>: 32 frames of 8000x8000"
    )
    (tmp_path / "large.png").write_bytes(png(SIDE))
    assert message(tmp_path).startswith(f"{tmp_path / 'large.png'}: pictures of 16000x16000")


@pytest.mark.parametrize("name", ["max_pixels", "max_bytes", "shrink_to"])
def test_limits_out_of_range(name: str) -> None:
    wrong: list[Any] = [0, -1, True, 1.5, "1", "1" * 100_000, -(10**5000)]
    for value in wrong:
        with pytest.raises(
            VideoError, match=rf"Limits\.{name} is .*; allowed: None or an integer of at least 1"
        ) as caught:
            Limits(**{name: value})
        assert len(str(caught.value)) < 300
    Limits(**{name: 10**5000})


def test_limits_are_limits(clip: Factory) -> None:
    assert message(clip("one_frame"), limits=5) == "limits is a int; allowed: Limits(...)"


def resized(frames: Any, height: int, width: int) -> Any:
    """As processors do."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return resize(pictures, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True).float()


def test_frames_are_scaled_down_as_they_are_decoded(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "large.mp4", width=640, height=360, count=20, noise=True, options={"g": "10"})
    whole = read_video(path, Sampling(frames=4))
    assert whole.scaled_from is None
    small = read_video(path, Sampling(frames=4), limits=Limits(shrink_to=90))
    assert (small.frames.shape, small.scaled_from) == ((4, 90, 160, 3), (640, 360))
    assert numbers_of(small.frames) == list(small.indices) == list(whole.indices)
    assert (resized(small.frames, 96, 96) - resized(whole.frames, 96, 96)).abs().mean() < 2
    # What is not larger is not touched, and stored sizes count for one limit, kept ones for the other.
    for limits in (Limits(shrink_to=360), Limits(shrink_to=1000)):
        video = read_video(path, Sampling(frames=4), limits=limits)
        assert np.array_equal(video.frames, whole.frames)
        assert video.scaled_from is None
    assert "640x360" in message(path, limits=Limits(max_pixels=640 * 360 - 1, shrink_to=90))
    enough = Limits(max_bytes=4 * 90 * 160 * 3, shrink_to=90)
    assert np.array_equal(read_video(path, Sampling(frames=4), limits=enough).frames, small.frames)
    assert "5 frames of 160x90 take" in message(path, sampling=Sampling(frames=5), limits=enough)
    assert "shrink_to is not for torchcodec" in message_of_torchcodec(path)


def message_of_torchcodec(path: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace())
        return message(path, decoder="torchcodec", limits=Limits(shrink_to=90))


def test_scaling_down_as_real_recordings_show_it(real_clips: Path) -> None:
    for name in ("talk_portrait.mp4", "clip_b.mp4"):
        whole = read_video(real_clips / name, Sampling(frames=4)).frames
        small = read_video(real_clips / name, Sampling(frames=4), limits=Limits(shrink_to=384)).frames
        assert min(small.shape[1:3]) == 384
        difference = (resized(small, 384, 384) - resized(whole, 384, 384)).abs()
        assert difference.mean() < 1.2
        assert difference.flatten()[::7].quantile(0.99) <= 4


def test_turned_videos_are_scaled_and_turned(clip: Factory) -> None:
    data = with_matrix(clip("short_gop").read_bytes(), 0, 1, -1, 0)
    video = read_video(data, Sampling(frames=2), limits=Limits(shrink_to=32))
    assert (video.frames.shape, video.scaled_from) == ((2, 48, 32, 3), (96, 64))
