"""What is not done to pictures is said: tone mapping, squaring of pixels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import earlytom
from earlytom.video import Sampling, read_video

from .clips import picture
from .conftest import Factory


def clip_with(path: Path, transfer: int = 1, aspect: Fraction = Fraction(1)) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.color_trc = transfer
        stream.codec_context.sample_aspect_ratio = aspect
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(picture(number, 96, 64), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("transfer", "name"), [(16, "pq"), (18, "hlg"), (1, None), (6, None)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "h264"])
def test_high_dynamic_range_is_named(tmp_path: Path, transfer: int, name: str | None, suffix: str) -> None:
    video = read_video(clip_with(tmp_path / f"clip.{suffix}", transfer))
    assert video.hdr == name
    assert np.array_equal(video.frames, read_video(clip_with(tmp_path / f"plain.{suffix}")).frames)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "h264"])
def test_pixels_that_are_not_square_are_named_and_left(tmp_path: Path, suffix: str) -> None:
    video = read_video(clip_with(tmp_path / f"clip.{suffix}", aspect=Fraction(32, 27)))
    assert video.pixel_aspect == (32, 27)
    assert video.frames.shape[1:] == (64, 96, 3)


def test_usual_clips_have_nothing_left_undone(clip: Factory) -> None:
    for source in (clip("short_gop"), np.zeros((2, 8, 8, 3), dtype=np.uint8)):
        video = read_video(source)
        assert (video.hdr, video.pixel_aspect) == (None, (1, 1))


def test_the_trace_says_so(tmp_path: Path) -> None:
    qa = earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")
    video = read_video(clip_with(tmp_path / "clip.mp4", 16, Fraction(4, 3)), Sampling(frames=4))
    source = qa.ask(video, "What colour is the circle?", method="none", max_new_tokens=1).trace.videos[0].source
    assert (source["hdr"], source["pixel_aspect"]) == ("pq", [4, 3])
