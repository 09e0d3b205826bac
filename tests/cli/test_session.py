"""The video is read while the model loads, and what is told when something is wrong stays the same."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import earlytom.video
from earlytom.cli import session
from earlytom.cli.choices import Clip, ModelChoice, choose_clip
from earlytom.cli.options import DecoderName
from earlytom.errors import ModelError, VideoError

WAIT = 30


class Model:
    """As much of a loaded model as opening a session asks for."""

    def __init__(self, frames: int) -> None:
        self.default_frames = frames


def chosen(path: object, frames: int | None = None) -> Clip:
    return choose_clip(str(path), frames, None, None, DecoderName.pyav)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int | None, bool]]:
    """Of every reading how many frames were asked for, and whether the main thread did it."""
    seen: list[tuple[int | None, bool]] = []
    stock = earlytom.video.read_video

    def read(source: Any, sampling: Any, **options: Any) -> Any:
        seen.append((sampling.frames, threading.current_thread() is threading.main_thread()))
        return stock(source, sampling, **options)

    monkeypatch.setattr(earlytom.video, "read_video", read)
    return seen


def test_the_video_is_read_while_the_model_loads(clip, monkeypatch) -> None:
    done, stock = threading.Event(), earlytom.video.read_video

    def read(*args: Any, **options: Any) -> Any:
        video = stock(*args, **options)
        done.set()
        return video

    def load(choice: ModelChoice) -> Any:
        assert done.wait(WAIT)  # nobody would ever read it if loading came first
        return Model(16)

    monkeypatch.setattr(earlytom.video, "read_video", read)
    monkeypatch.setattr(session, "load_model", load)
    opened = session.open_session(ModelChoice(), chosen(clip))
    assert len(opened.video.frames) == 16


@pytest.mark.parametrize(("liked", "expected"), [(16, [(16, False)]), (5, [(16, False), (5, True)])])
def test_the_model_has_the_last_word_on_the_number_of_frames(clip, monkeypatch, readings, liked, expected) -> None:
    """The shipped checkpoint says 16; a model that says otherwise once it is loaded gets its own number."""
    monkeypatch.setattr(session, "load_model", lambda choice: Model(liked))
    opened = session.open_session(ModelChoice(), chosen(clip))
    assert sorted(readings) == sorted(expected)
    assert len(opened.video.frames) == liked


def test_a_number_that_the_user_gives_is_read_once(clip, monkeypatch, readings) -> None:
    monkeypatch.setattr(session, "load_model", lambda choice: Model(5))
    opened = session.open_session(ModelChoice(), chosen(clip, 7))
    assert readings == [(7, False)]
    assert len(opened.video.frames) == 7


def test_the_read_ahead_frames_are_those_of_reading_behind(clip, monkeypatch) -> None:
    monkeypatch.setattr(session, "load_model", lambda choice: Model(16))
    ahead = session.open_session(ModelChoice(), chosen(clip)).video
    behind = earlytom.video.read_video(str(clip), earlytom.video.Sampling(frames=16))
    assert (ahead.frames == behind.frames).all()
    assert (ahead.indices, ahead.timestamps) == (behind.indices, behind.timestamps)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_read_once_and_behind_the_model(tmp_path, monkeypatch) -> None:
    path, seen = tmp_path / "pipe.mp4", []
    os.mkfifo(path)
    monkeypatch.setattr(session, "load_model", lambda choice: Model(4))
    monkeypatch.setattr(
        earlytom.video, "read_video", lambda *_, **__: seen.append(threading.current_thread()) or grey_picture()
    )
    session.open_session(ModelChoice(), chosen(path))
    assert seen == [threading.main_thread()]


def grey_picture() -> earlytom.video.Video:
    return earlytom.video.Video(
        frames=np.zeros((1, 2, 2, 3), dtype=np.uint8),
        indices=(0,),
        timestamps=(),
        source_frames=1,
        source_fps=None,
        duration=None,
        decoder="frames",
        source="<array>",
        decoded=None,
    )


def test_the_model_is_complained_about_before_the_video(tmp_path, monkeypatch) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")

    def load(choice: ModelChoice) -> Any:
        raise ModelError("no such model")

    monkeypatch.setattr(session, "load_model", load)
    with pytest.raises(ModelError, match="no such model"):
        session.open_session(ModelChoice(), chosen(broken))


def test_a_broken_video_is_told_as_reading_tells_it(tmp_path, monkeypatch) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    monkeypatch.setattr(session, "load_model", lambda choice: Model(16))
    with pytest.raises(VideoError) as plain:
        earlytom.video.read_video(str(broken))
    with pytest.raises(VideoError) as ahead:
        session.open_session(ModelChoice(), chosen(broken))
    assert str(ahead.value) == str(plain.value)


@pytest.mark.parametrize(
    ("name", "document", "expected"),
    [
        ("processor_config.json", {"video_processor": {"num_frames": 9}}, 9),
        ("video_preprocessor_config.json", {"num_frames": 8}, 8),
        ("preprocessor_config.json", {"num_frames": 7}, 7),
        ("processor_config.json", {"video_processor": None}, 32),
        ("processor_config.json", {"num_frames": "many"}, 32),
        ("processor_config.json", [3], 32),
        ("processor_config.json", {}, 32),
    ],
)
def test_the_likely_number_of_frames_stands_in_the_folder(tmp_path: Path, name, document, expected) -> None:
    (tmp_path / name).write_text(json.dumps(document), encoding="utf-8")
    assert session._likely_frames(ModelChoice(path=str(tmp_path))) == expected


@pytest.mark.parametrize("path", ["owner/name", "\0", "x" * 10_000])
def test_what_is_no_folder_likes_the_usual_number(path) -> None:
    assert session._likely_frames(ModelChoice(path=path)) == 32


def test_what_the_folder_says_is_what_the_loaded_model_says(loaded, loaded_twin) -> None:
    for qa, path in ((loaded, None), (loaded_twin, str(session.shipped_model("qwen2_5_vl")))):
        assert session._likely_frames(ModelChoice(path=path)) == qa.default_frames


def test_a_pipe_or_a_giant_in_the_folder_is_not_read_ahead(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "processor_config.json")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"num_frames": 8, "more": "x" * (1 << 20)}))
    assert session._likely_frames(ModelChoice(path=str(tmp_path))) == 32
