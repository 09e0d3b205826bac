"""Pictures of what really happened: every family, with the methods that leave different traces behind."""

from __future__ import annotations

import numpy as np
import pytest

import earlytom
from earlytom.video import Sampling
from earlytom.viz.inspect import draw_clip, kept_masks
from families import FAMILY_NAMES
from families.processors import video_qa

PAIRED = ("qwen2_5_vl", "qwen3_vl")
# Merged frames with segments; attention alone; neither; tokens that have merged into others; nothing dropped.
METHODS = (
    "earlytom:retention=0.25,merge_layers=1/3/5,ranked_by=attention",
    "visionzip",
    "random",
    "average-pooling",
    "dycoke",
    "none",
)
# Qwen3-VL's processor takes no single frame.
SHORT = [(family, count) for family in FAMILY_NAMES for count in (1, 2) if (family, count) != ("qwen3_vl", 1)]


@pytest.fixture(scope="module")
def models() -> dict[str, earlytom.VideoQA]:
    return {family: video_qa(family) for family in FAMILY_NAMES}


def numbered(count: int) -> earlytom.Video:
    """Frames whose brightness is their number, so that a picture tells which one it shows."""
    frames = np.stack([np.full((64, 96, 3), 40 + 12 * number, dtype=np.uint8) for number in range(count)])
    return earlytom.read_video(frames, Sampling(frames=count))


def check(qa: earlytom.VideoQA, family: str, method: str, count: int) -> earlytom.Answer:
    video = numbered(count)
    answer = qa.ask(video, "what moves here", method=method, max_new_tokens=1)
    clip, each = answer.trace.videos[0], 2 if family in PAIRED and count > 1 else 1
    figure = draw_clip(video.frames, clip, title=family)
    axes = figure.axes[0]
    masks = kept_masks(clip)
    assert len(masks) == answer.temporal_grids_left
    assert len(axes.images) == each * answer.temporal_grids_left
    first = clip.origin.survivors().tolist()
    for tile, mask in enumerate(masks):
        for place in range(each):
            expected = min(each * first[tile] + place, count - 1)
            pixels = np.asarray(axes.images[each * tile + place].get_array())
            bright, dark = 40 + 12 * expected, int((40 + 12 * expected) * 0.22)
            assert set(np.unique(pixels)) == {*([bright] if mask.any() else []), *([] if mask.all() else [dark])}
            # Each token covers about as much as any other.
            assert (pixels[..., 0] == bright).mean() == pytest.approx(mask.mean(), abs=0.1)
    labels = [text.get_text() for text in axes.texts if text.get_text().endswith(" tokens)")]
    assert [int(label.split("(")[1].split()[0]) for label in labels] == masks.sum(axis=(1, 2)).tolist()
    assert sorted(frame for label in labels for frame in numbers(label)) == list(range(count))
    assert len(figure.axes) == (1 if clip.attention is None else 3)
    caption = figure.texts[1].get_text()
    assert ("temporal grid" in caption.split("Left uncompressed")[0]) == (each == 2)
    return answer


def numbers(label: str) -> list[int]:
    """The frames that a label such as ``3-5, 9  (4 tokens)`` names."""
    found = []
    for part in label.split("  ")[0].split(", "):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


@pytest.mark.parametrize("count", [12, 7])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_picture_shows_what_is_left(models, family, method, count) -> None:
    answer = check(models[family], family, method, count)
    assert (answer.trace.videos[0].attention is not None) == method.startswith(("earlytom", "visionzip"))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_frames_that_merge_share_a_picture(models, family) -> None:
    answer = check(
        models[family],
        family,
        "earlytom:retention=0.2,merge_layers=1/3/5,least_frames=0.3,tau_seg=0.3,ranked_by=attention",
        15,
    )
    assert answer.temporal_grids_left < answer.temporal_grids
    assert answer.frames_left < answer.frames == 15


@pytest.mark.parametrize("unmerge", ["true", "false"])
@pytest.mark.parametrize("family", ["llava_onevision", "llava_video"])
def test_tokens_that_merge_inside_the_encoder_are_drawn(models, family, unmerge) -> None:
    answer = check(models[family], family, f"tome:unmerge={unmerge}", 6)
    assert answer.trace.videos[0].token_merges


@pytest.mark.parametrize(("family", "count"), SHORT)
def test_clips_that_are_left_alone_are_drawn_whole(models, family, count) -> None:
    answer = check(models[family], family, "earlytom", count)
    assert answer.trace.videos[0].stepped_aside
    assert answer.visual_tokens == answer.visual_tokens_uncompressed
