"""The optional decoder."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from earlytom.errors import VideoError
from earlytom.video import Sampling, read_video

from .clips import make_clip, numbers_of, with_matrix, without_order
from .conftest import Factory


@pytest.fixture
def torchcodec() -> None:
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec cannot be imported: {str(error).splitlines()[0]}")


def test_not_installed(clip: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(VideoError, match=r"pip install torchcodec.*default decoder is 'pyav'") as caught:
        read_video(clip("one_frame"), decoder="torchcodec")
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.usefixtures("torchcodec")
@pytest.mark.parametrize(
    "name",
    [
        "short_gop",
        "long_gop",
        "hevc_open_gop",
        "matroska",
        "variable",
        "late_start",
        "odd",
        "three_frames",
    ],
)
def test_same_frames_as_pyav(clip: Factory, name: str) -> None:
    path = clip(name)
    for sampling in (Sampling(frames=5), Sampling(fps=4.0), Sampling(frames=None)):
        ours = read_video(path, sampling)
        video = read_video(path, sampling, decoder="torchcodec", threads=1)
        assert (video.decoder, video.decoded) == ("torchcodec", None)
        assert video.indices == ours.indices
        assert video.timestamps == ours.timestamps
        assert numbers_of(video.frames) == list(video.indices)
        # Other FFmpeg versions may round colours differently.
        assert video.frames.shape == ours.frames.shape
        assert np.abs(video.frames.astype(int) - ours.frames).max() <= 3


@pytest.mark.usefixtures("torchcodec")
def test_transport_streams_are_read_right_or_refused(clip: Factory) -> None:
    for sampling in (Sampling(frames=1), Sampling(frames=5)):
        try:
            video = read_video(clip("transport"), sampling, decoder="torchcodec")
        except VideoError as error:
            assert str(error).endswith("use decoder='pyav'")  # noqa: PT017
        else:
            assert numbers_of(video.frames) == list(video.indices)


@pytest.mark.usefixtures("torchcodec")
@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_decoding_times_for_presentation_times_are_refused_or_read_right(tmp_path: Path, codec: str) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"g": "20", "bf": "2"}
    path = without_order(make_clip(tmp_path / "a.mp4", codec=codec, options=options), tmp_path / "b.mp4")
    for frames in (1, 3, 8, None):
        try:
            video = read_video(path, Sampling(frames=frames), decoder="torchcodec")
        except VideoError as error:
            assert str(error).endswith("use decoder='pyav'")  # noqa: PT017
        else:
            assert numbers_of(video.frames) == list(video.indices)


@pytest.mark.usefixtures("torchcodec")
def test_streams_that_do_not_reorder_are_read(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", codec="mpeg2video", options={"g": "10", "bf": "0"})
    video = read_video(path, Sampling(frames=5), decoder="torchcodec")
    assert numbers_of(video.frames) == list(video.indices)


@pytest.mark.parametrize("fault", ["time", "count"])
def test_a_decoder_that_gives_other_frames_is_caught(
    clip: Factory, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    class Decoder:
        metadata = SimpleNamespace(num_frames=61 if fault == "count" else 60)

        def __init__(self, source: Any, **options: object) -> None:
            # Bytes alone: libav would read more into a name.
            assert not hasattr(source, "name")
            assert source.read(4096)[4:8] == b"ftyp"

        def get_frames_at(self, indices: list[int]) -> SimpleNamespace:
            late = [i / 30 + (0.1 if i else 0.0) for i in indices]
            return SimpleNamespace(
                data=torch.zeros(len(indices), 64, 96, 3, dtype=torch.uint8), pts_seconds=torch.tensor(late)
            )

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace(VideoDecoder=Decoder))
    text = {"time": r"gave the frame at 2\.067 s for frame 59 at 1\.967 s", "count": "counts 61 frames, PyAV 60"}[fault]
    with pytest.raises(VideoError, match=text):
        read_video(clip("short_gop"), Sampling(frames=2), decoder="torchcodec")


@pytest.mark.usefixtures("torchcodec")
def test_bytes_file_objects_and_rotation(clip: Factory) -> None:
    path = clip("short_gop")
    data = path.read_bytes()
    expected = read_video(path, Sampling(frames=3), decoder="torchcodec").frames
    for source in (data, io.BytesIO(data)):
        assert np.array_equal(read_video(source, Sampling(frames=3), decoder="torchcodec").frames, expected)
    turned = read_video(with_matrix(data, 0, 1, -1, 0), Sampling(frames=3), decoder="torchcodec").frames
    assert np.array_equal(turned, np.rot90(expected, -1, axes=(1, 2)))


@pytest.mark.usefixtures("torchcodec")
def test_unusable_files(clip: Factory, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(clip("short_gop", noise=True).read_bytes()[:5000])
    with pytest.raises(VideoError, match="moov box"):
        read_video(tmp_path / "cut.mp4", decoder="torchcodec")
    with pytest.raises(VideoError, match="use decoder='pyav'"):
        read_video(clip("raw"), decoder="torchcodec")
