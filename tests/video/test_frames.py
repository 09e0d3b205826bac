"""Arrays, tensors and lists of images as videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from earlytom.errors import VideoError
from earlytom.video import Sampling, read_video

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (10, 12, 16, 3), dtype=np.uint8)
FEW = Sampling(frames=4)
PICKED = [0, 3, 6, 9]


def sources() -> dict[str, Any]:
    first = np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2))
    alpha = np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1)
    return {
        "array": PIXELS,
        "channels first": first,
        "alpha": alpha,
        "alpha first": alpha.transpose(0, 3, 1, 2),
        "float": PIXELS / 255,
        "half": (PIXELS / 255).astype(np.float16),
        "tensor": torch.from_numpy(PIXELS),
        "tensor first": torch.from_numpy(first),
        "float tensor": torch.from_numpy(first).float().div(255).requires_grad_(),
        "images": [Image.fromarray(p) for p in PIXELS],
        "images with alpha": tuple(Image.fromarray(p).convert("RGBA") for p in PIXELS),
        "list of arrays": list(PIXELS),
        "list of tensors": [torch.from_numpy(p) for p in first],
        "mixed list": [Image.fromarray(PIXELS[0]), *list(first[1:])],
    }


@pytest.mark.parametrize("name", sources())
def test_every_kind_gives_the_same_frames(name: str) -> None:
    video = read_video(sources()[name], FEW)
    assert np.array_equal(video.frames, PIXELS[PICKED])
    assert video.frames.dtype == np.uint8
    assert video.frames.flags.c_contiguous
    assert video.indices == tuple(PICKED)
    assert video.source_frames == 10
    assert (video.decoder, video.decoded, video.timestamps) == ("frames", 0, ())
    assert video.source_fps is None
    assert video.duration is None


def test_names_for_messages() -> None:
    assert read_video(PIXELS).source == "<array>"
    assert read_video(torch.from_numpy(PIXELS)).source == "<tensor>"
    assert read_video(list(PIXELS)).source == "<images>"


def test_grayscale_is_repeated() -> None:
    gray = PIXELS[..., 0]
    expected = np.repeat(gray[..., None], 3, axis=-1)
    for source in (gray, gray[..., None], torch.from_numpy(gray)[:, None], list(gray)):
        assert np.array_equal(read_video(source, Sampling(frames=None)).frames, expected)


def test_bfloat16_is_rounded_to_bytes() -> None:
    values = torch.tensor([0.0, 0.5, 1.0], dtype=torch.bfloat16).view(1, 1, 1, 3)
    assert read_video(values).frames.tolist() == [[[[0, 128, 255]]]]


def test_the_source_is_not_shared() -> None:
    source = PIXELS.copy()
    video = read_video(source, Sampling(frames=None))
    source[:] = 0
    assert np.array_equal(video.frames, PIXELS)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), "<array>: is empty"),
        (np.zeros((2, 0, 4, 3), np.uint8), "<array>: is empty"),
        (np.zeros((4, 5), np.uint8), r"<array>: shape is \[4, 5\]; allowed"),
        (np.zeros((1, 2, 4, 4, 3), np.uint8), "<array>: shape is .* allowed"),
        (np.zeros((8, 9, 3), np.uint8), "is one picture"),
        (np.zeros((2, 5, 8, 9), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((2, 8, 9, 3), np.int64), "dtype is int64; allowed"),
        (np.full((2, 8, 9, 3), 200.0), "run from 200 to 200; allowed: 0 to 1"),
        (np.full((2, 8, 9, 3), np.nan), "run from nan"),
        (torch.zeros(2, 8, 9, 3, dtype=torch.int32), "<tensor>: dtype is int32"),
        ([], "<images>: the list is empty"),
        ((), "<images>: the list is empty"),
        (["a.png"], "a.png: no such file"),
        ([5], "<images>: image 0: is a int; allowed"),
        ([PIXELS], "<images>: image 0: shape is"),
        ([PIXELS[0], PIXELS[0, :, :9]], "<images>: image 1 is 9x12 pixels, image 0 is 16x12; allowed: one size"),
        (Image.new("RGB", (4, 4)), "one PIL image is not a video"),
    ],
)
def test_unusable_pictures(source: Any, text: str) -> None:
    with pytest.raises(VideoError, match=text):
        read_video(source)


def test_pictures_have_no_clock() -> None:
    for source in (PIXELS, list(PIXELS)):
        with pytest.raises(VideoError, match=r"has no clock, so Sampling\.fps cannot be used"):
            read_video(source, Sampling(fps=1))
