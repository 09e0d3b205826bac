"""Generated videos, and the share of their frames that repeat others."""

from __future__ import annotations

import numpy as np
import pytest

from earlytom import EarlyTomError
from earlytom.bench.clips import ClipSettings, redundant_share, write_clip
from earlytom.video import Sampling, read_video


def share(path, settings, frames=48) -> float:
    write_clip(path, settings)
    return redundant_share(read_video(path, Sampling(frames=frames)).frames)


def settings(redundant: float, **more: object) -> ClipSettings:
    return ClipSettings(width=96, height=64, seconds=8, frames_per_second=12, redundant_share=redundant, **more)


@pytest.mark.parametrize("asked", [0.25, 0.5, 0.75, 1.0])
def test_the_share_is_about_what_was_asked_for(tmp_path, asked) -> None:
    # Of each of the four scenes the first frame is new, and the first that moves.
    assert share(tmp_path / "clip.mp4", settings(asked)) == pytest.approx(asked, abs=8 / 48)


def test_nothing_repeats_where_all_moves(tmp_path) -> None:
    assert share(tmp_path / "clip.mp4", settings(0.0)) < 0.1


def test_the_file_is_what_the_settings_say(tmp_path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, settings(0.5))
    video = read_video(path, Sampling(frames=96))
    assert video.frames.shape == (96, 64, 96, 3)
    assert video.source_frames == settings(0.5).frames == 96
    assert video.duration == pytest.approx(8, abs=0.1)


def test_scenes_are_cut_hard(tmp_path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, settings(1.0))
    frames = read_video(path, Sampling(frames=96)).frames.astype(float)
    changes = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert sorted(np.argsort(changes)[-3:] + 1) == [24, 48, 72]


def test_one_seed_gives_one_clip_and_another_another(tmp_path) -> None:
    read = []
    for number, seed in enumerate((3, 3, 4)):
        path = tmp_path / f"{number}.mp4"
        write_clip(path, settings(0.5, seed=seed))
        read.append(read_video(path, Sampling(frames=8)).frames)
    assert (read[0] == read[1]).all()
    assert (read[0] != read[2]).any()


def test_a_frame_repeats_the_one_before_but_for_noise() -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(10, 245, (40, 50, 3))
    noise = generator.integers(-3, 4, (3, 40, 50, 3))
    frames = (picture + noise).clip(0, 255).astype(np.uint8)
    other = (255 - frames[:1]).astype(np.uint8)
    assert redundant_share(frames) == 2 / 3
    assert redundant_share(np.concatenate([frames, other, other])) == 3 / 5
    assert redundant_share(other) == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"redundant_share": 1.5}, "from 0 to 1, got 1.5"),
        ({"width": 97}, "width is an even number of at least 16 pixels, got 97"),
        ({"height": 8}, "height is an even number"),
        ({"seconds": 0.0}, "at least one frame"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message) -> None:
    with pytest.raises(EarlyTomError, match=message):
        ClipSettings(**wrong)
