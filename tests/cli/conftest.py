"""A small video, and the shipped model loaded once for all commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from earlytom.cli import session
from earlytom.cli.choices import ModelChoice
from earlytom.shipped import shipped_model


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 of 24 frames: a square that moves, then another scene."""
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(24):
            image = np.full((96, 128, 3), 40 if number < 14 else 200, dtype=np.uint8)
            image[30:60, 4 * number : 4 * number + 30] = (220, 30, 60)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def loaded() -> Any:
    return session.load_model(ModelChoice(device="cpu"))


@pytest.fixture
def shared_model(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Commands that would load the shipped model get the one that is loaded."""
    monkeypatch.setattr(session, "load_model", lambda choice: loaded)
    return loaded


@pytest.fixture(scope="session")
def loaded_twin() -> Any:
    return session.load_model(ModelChoice(path=str(shipped_model("qwen2_5_vl")), device="cpu"))


@pytest.fixture
def shared_twin(loaded_twin: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Commands get the twin, whose encoder takes pairs of frames."""
    monkeypatch.setattr(session, "load_model", lambda choice: loaded_twin)
    return loaded_twin
