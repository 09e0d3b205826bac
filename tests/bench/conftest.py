"""A model of random weights with its processor, and a generated video."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import earlytom
from earlytom.bench.clips import ClipSettings, write_clip
from earlytom.bench.configurations import build_video_qa

SETTINGS = ClipSettings(width=96, height=64, seconds=4, frames_per_second=12, redundant_share=0.75)


@pytest.fixture(scope="session")
def tiny() -> earlytom.VideoQA:
    return build_video_qa("tiny", device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated") / "clip.mp4"
    write_clip(path, SETTINGS)
    return path
