"""Clips for the video tests, written once per session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .clips import make_clip

Factory = Callable[..., Path]

# Name of a clip -> how it is made. Everything that changes how frames are found: keyframe distance, B-frames, open
# GOPs, containers with and without times, uneven frame rates.
CLIPS: dict[str, tuple[str, dict[str, Any]]] = {
    "short_gop": ("mp4", {"options": {"g": "10", "bf": "2"}}),
    "long_gop": ("mp4", {"options": {"g": "250", "bf": "3"}}),
    "no_b": ("mp4", {"options": {"g": "12", "bf": "0"}}),
    "many_threads_gop": ("mp4", {"count": 120, "options": {"g": "30", "bf": "3", "b-pyramid": "normal"}}),
    "open_gop": ("mkv", {"options": {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}}),
    "hevc_open_gop": ("mp4", {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=3:log-level=none"}}),
    "matroska": ("mkv", {"options": {"g": "10", "bf": "2"}}),
    "transport": ("ts", {"options": {"g": "10", "bf": "2"}}),
    "mpeg2": ("ts", {"codec": "mpeg2video", "options": {"g": "10", "bf": "2"}}),
    "fragmented": ("mp4", {"options": {"g": "10"}, "format_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "avi": ("avi", {"codec": "mpeg4", "options": {"g": "10"}}),
    "avi_h264_b": ("avi", {"options": {"g": "10", "bf": "2"}}),
    "raw": ("h264", {"options": {"g": "10", "bf": "2"}}),
    "lossless": ("mkv", {"codec": "ffv1", "pixels": "bgr0"}),
    "vp8": ("webm", {"codec": "libvpx", "options": {"g": "10", "deadline": "realtime", "cpu-used": "8"}}),
    "variable": (
        "mp4",
        {"options": {"g": "10", "bf": "2"}, "ticks": [i + (i // 20) * 15 + i * (i > 40) for i in range(60)]},
    ),
    "late_start": ("mkv", {"options": {"g": "10", "bf": "2"}, "ticks": [i + 45 for i in range(60)]}),
    "odd": ("mp4", {"width": 97, "height": 55, "pixels": "yuv444p", "options": {"g": "10"}}),
    "ten_bit": ("mp4", {"pixels": "yuv420p10le", "options": {"g": "10"}}),
    "gray": ("mp4", {"pixels": "gray", "options": {"g": "10"}}),
    "one_frame": ("mp4", {"count": 1}),
    "three_frames": ("mp4", {"count": 3}),
}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    """``clip(name)`` gives the path of one of ``CLIPS``; keyword arguments make a variant of it."""
    folder = tmp_path_factory.mktemp("clips")
    made: dict[str, Path] = {}

    def make(name: str, **changes: Any) -> Path:
        suffix, arguments = CLIPS[name]
        key = name + "".join(f"-{k}={v}" for k, v in sorted(changes.items()))
        if key not in made:
            made[key] = make_clip(folder / f"{len(made)}.{suffix}", **(arguments | changes))
        return made[key]

    return make


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """Folder of real recordings kept next to the repository."""
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "talk_portrait.mp4").is_file():
        pytest.skip(f"no real clips at {folder}")
    return folder
