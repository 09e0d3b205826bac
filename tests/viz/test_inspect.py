"""The picture of a clip, judged by its arrays."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from earlytom.errors import EarlyTomError
from earlytom.reduction import Reduction
from earlytom.trace import VideoTrace
from earlytom.types import FrameGrid
from earlytom.viz.inspect import _ranges, check_writable, dim_dropped, draw_clip, kept_masks, write_png


def trace(frames: int, side: int, kept: list[int], *, attention: bool = True) -> VideoTrace:
    """A clip whose frames merge in pairs; ``kept`` counts through the tokens of the frames that are left."""
    rows = [[(i, 0.5), (i + 1, 0.5)] for i in range(0, frames - 1, 2)]
    left = len(rows)
    received = torch.rand(left, side * side, generator=torch.Generator().manual_seed(0)) if attention else None
    return VideoTrace(
        grid=FrameGrid(frames=frames, rows=side, columns=side),
        budget=len(kept),
        stepped_aside=None,
        origin=Reduction.from_rows(rows, frames),
        selection=Reduction.keep(torch.tensor(kept), left * side * side),
        attention=received,
        details={"segments": [(0, 0), (1, left - 1)], "dynamic": [True] * left},
    )


def grey(frames: int, height: int = 60, width: int = 90, value: int = 180) -> npt.NDArray[np.uint8]:
    return np.full((frames, height, width, 3), value, dtype=np.uint8)


def test_dropped_tokens_are_darker_and_kept_ones_untouched() -> None:
    image = np.random.default_rng(0).integers(1, 256, (60, 90, 3), dtype=np.uint8)
    kept = np.zeros((2, 3), dtype=np.bool_)
    kept[0, 1] = kept[1, 2] = True
    dimmed = dim_dropped(image, kept)
    for row in range(2):
        for column in range(3):
            cell = np.s_[row * 30 : row * 30 + 30, column * 30 : column * 30 + 30]
            if kept[row, column]:
                assert np.array_equal(dimmed[cell], image[cell])
            else:
                assert (dimmed[cell] < image[cell]).all()
                assert dimmed[cell].mean() < 0.3 * image[cell].mean()


def test_a_grid_that_does_not_divide_the_image_still_covers_it() -> None:
    dimmed = dim_dropped(grey(1, 61, 83)[0], np.zeros((6, 7), dtype=np.bool_))
    assert dimmed.shape == (61, 83, 3)
    assert (dimmed < 180).all()


def test_masks_follow_the_selection() -> None:
    masks = kept_masks(trace(4, 3, [0, 4, 9 + 8]))
    assert masks.shape == (2, 3, 3)
    assert np.argwhere(masks).tolist() == [[0, 0, 0], [0, 1, 1], [1, 2, 2]]


def test_the_figure_shows_the_dimmed_frames_and_the_attention() -> None:
    clip = trace(6, 3, [4, 9, 18 + 8])
    figure = draw_clip(grey(6), clip, title="a clip")
    shown, heat = figure.axes[0], figure.axes[1]
    assert len(shown.images) == 3
    for picture, mask in zip(shown.images, kept_masks(clip), strict=True):
        pixels = np.asarray(picture.get_array()).astype(int)
        height, width = pixels.shape[0] // 3, pixels.shape[1] // 3
        for row, column in np.ndindex(3, 3):
            middle = pixels[row * height + height // 2, column * width + width // 2].mean()
            assert middle == 180 if mask[row, column] else middle < 60
    assert clip.attention is not None
    values = np.asarray(heat.images[0].get_array())
    assert values.shape == (3, 9)
    assert values.mean() == pytest.approx(1.0)
    assert np.allclose(values, clip.attention.numpy() / clip.attention.numpy().mean())
    # The boundary between the two segments lies between frame 0 and 1.
    assert [list(line.get_ydata()) for line in heat.lines if list(line.get_ydata()) == [0.5, 0.5]]
    texts = [text.get_text() for text in shown.texts]
    assert "0-1  (1 tokens)" in texts
    assert any(text.endswith("1 dynamic") for text in texts)


def test_the_right_frame_stands_for_a_merged_one() -> None:
    frames = np.stack([grey(1, value=20 * (number + 1))[0] for number in range(6)])
    clip = trace(6, 2, list(range(12)))
    pictures = [int(np.asarray(image.get_array())[0, 0, 0]) for image in draw_clip(frames, clip).axes[0].images]
    assert pictures == [20 * (frame + 1) for frame in clip.origin.survivors().tolist()]


@pytest.mark.parametrize("frames", [12, 11])
def test_a_pair_of_frames_is_drawn_side_by_side(frames: int) -> None:
    pixels = np.stack([grey(1, value=20 * (number + 1))[0] for number in range(frames)])
    clip = trace(6, 2, list(range(12)))
    axes = draw_clip(pixels, clip).axes[0]
    shown = [int(np.asarray(image.get_array())[0, 0, 0]) // 20 - 1 for image in axes.images]
    assert shown == [0, 1, 4, 5, 8, 9]
    assert [text.get_text() for text in axes.texts if "tokens" in text.get_text()] == [
        "0-3  (4 tokens)",
        "4-7  (4 tokens)",
        f"8-{frames - 1}  (4 tokens)",
    ]
    edges = [image.get_extent() for image in axes.images]
    for left, right in zip(edges[::2], edges[1::2], strict=True):
        assert left[1] < right[0]
        assert left[1] - left[0] == pytest.approx(right[1] - right[0])
        assert left[2:] == right[2:]
        # A pixel is as high as it is wide.
        assert (left[2] - left[3]) / (left[1] - left[0]) == pytest.approx(60 / 90)


def test_the_last_frame_of_an_odd_number_is_shown_as_the_encoder_got_it() -> None:
    pixels = np.stack([grey(1, value=20 * (number + 1))[0] for number in range(5)])
    clip = trace(6, 2, list(range(12)))
    clip.grid, clip.origin = FrameGrid(frames=3, rows=2, columns=2), Reduction.identity(3)
    figure = draw_clip(pixels, clip)
    shown = [int(np.asarray(image.get_array())[0, 0, 0]) // 20 - 1 for image in figure.axes[0].images]
    assert shown == [0, 1, 2, 3, 4, 4]
    assert "4  (4 tokens)" in [text.get_text() for text in figure.axes[0].texts]
    caption = figure.texts[1].get_text()
    assert caption.startswith("5 frames, 3 temporal grids -> 3, 12 of 12 visual tokens kept (100.0%).\n")
    assert caption.endswith("The last grid was filled up with the last frame.")


@pytest.mark.parametrize(
    ("frames", "side", "height", "width"),
    [(4, 6, 96, 96), (64, 14, 90, 160), (128, 14, 160, 90), (128, 6, 40, 300), (2, 6, 300, 40)],
)
def test_size_stays_within_bounds(frames: int, side: int, height: int, width: int) -> None:
    clip = trace(frames, side, list(range(0, frames // 2 * side * side, 4)))
    inches = draw_clip(grey(frames, height, width), clip).get_size_inches()
    assert inches[0] == 14
    assert 3 < inches[1] < 24


def test_png_on_disk(tmp_path: Path) -> None:
    clip = trace(8, 6, [0, 40, 80, 143])
    figure = draw_clip(grey(8), clip)
    path = tmp_path / "clip.png"
    write_png(figure, path)
    width, height = figure.get_size_inches() * 130
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert abs(image.width - width) <= 1
        assert abs(image.height - height) <= 1
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    # Both the kept tokens' grey and the dropped tokens' are on the picture, and the dropped ones cover more of it.
    kept, dropped = (colours == 180).all(axis=1).sum(), (colours == 39).all(axis=1).sum()
    assert 1000 < kept < dropped / 10


def test_methods_without_attention_or_segments_are_drawn() -> None:
    clip = trace(4, 3, [0, 9], attention=False)
    clip.details = {}
    figure = draw_clip(grey(4), clip)
    assert len(figure.axes) == 1
    assert len(figure.axes[0].patches) == 0


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(EarlyTomError, match="the trace is of 4 temporal grids, got 5 sampled frames"):
        draw_clip(grey(5), trace(4, 3, [0]))
    with pytest.raises(EarlyTomError, match="cannot be written"):
        write_png(draw_clip(grey(4), trace(4, 3, [0])), tmp_path / "missing" / "clip.png")


def test_where_nothing_can_be_written_is_known_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "new.png", tmp_path / "file.png"):
        check_writable(path)
    for path, reason in (
        (tmp_path / "missing" / "clip.png", "No such file or directory"),
        (tmp_path / "file.png" / "clip.png", "Not a directory"),
        (tmp_path / "folder.png", "Is a directory"),
    ):
        with pytest.raises(EarlyTomError, match=f"{path}: cannot be written: {reason}"):
            check_writable(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(EarlyTomError, match=r"new\.png: cannot be written: Permission denied"):
        check_writable(tmp_path / "new.png")
    assert not (tmp_path / "new.png").exists()


@pytest.mark.parametrize(("numbers", "text"), [([3], "3"), ([3, 4, 5, 9], "3-5, 9"), ([1, 2, 7, 8], "1-2, 7-8")])
def test_ranges(numbers: list[int], text: str) -> None:
    assert _ranges(numbers) == text
