"""Clips and questions: from their own seeds, the same each time, with and without a file."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import earlytom.testbed
from earlytom.errors import EarlyTomError
from earlytom.eval.tasks import CLIPS_PER_SEED, FIRST_SEED, Benchmark, make_task, picture_size
from earlytom.testbed.questions import SKILLS
from earlytom.testbed.series import SERIES

FRAMES = Benchmark(source="frames")


def test_seeds_lie_above_all_that_training_and_evaluation_use() -> None:
    others = {}
    for path in Path(earlytom.testbed.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                others |= {f"{path.stem}.{name}": node.value.value for name in names if name.endswith("SEED")}
    assert len(others) >= 4
    # Two hundred million clips from each of them on, which no training run comes near.
    assert max(others.values()) + 200_000_000 < FIRST_SEED


def test_series_share_no_clip() -> None:
    assert Benchmark(seed=0).clip_seed(CLIPS_PER_SEED - 1) + 1 == Benchmark(seed=1).clip_seed(0)
    with pytest.raises(EarlyTomError, match="clip must be from 0 to 999999, got 1000000"):
        FRAMES.clip_seed(CLIPS_PER_SEED)


@pytest.mark.parametrize("source", ["frames", "video"])
def test_a_task_is_a_pure_function_of_its_seed(source) -> None:
    benchmark = Benchmark(source=source)
    for clip in range(6):
        first, again = make_task(benchmark, clip), make_task(benchmark, clip)
        assert first is not None
        assert again is not None
        assert np.array_equal(first.video.frames, again.video.frames), clip
        assert first.questions == again.questions
    other = make_task(Benchmark(source=source, seed=1), 0)
    same = make_task(benchmark, 0)
    assert other is not None
    assert same is not None
    assert not np.array_equal(same.video.frames, other.video.frames)


def test_the_file_changes_the_pictures_by_no_more_than_its_codec() -> None:
    for clip in range(4):
        plain, decoded = make_task(FRAMES, clip), make_task(Benchmark(), clip)
        assert plain is not None
        assert decoded is not None
        assert plain.questions == decoded.questions
        assert plain.video.indices == decoded.video.indices == tuple(range(0, 31, 2))
        assert (plain.video.decoder, decoded.video.decoder) == ("frames", "pyav")
        frames, others = plain.video.frames.astype(int), decoded.video.frames.astype(int)
        change = np.abs(frames - others).mean()
        assert 0 < change < 6  # of 255; another frame of the clip differs more
        assert np.abs(frames[0] - others[-1]).mean() > 2 * change


@pytest.mark.parametrize("frames", [1, 5, 32])
def test_the_model_gets_as_many_frames_as_it_wants_and_the_same_questions(frames) -> None:
    task, usual = make_task(Benchmark(source="frames", frames=frames), 0), make_task(FRAMES, 0)
    assert task is not None
    assert usual is not None
    assert len(task.video.frames) == len(task.truth.scene) == frames
    assert task.questions == usual.questions


def test_a_series_has_clips_and_questions_of_its_own() -> None:
    slots = SERIES["long"].slots
    harder = Benchmark(source="frames", frames=slots, clips_of="long")
    task, usual = make_task(harder, 0), make_task(FRAMES, 0)
    assert task is not None
    assert usual is not None
    assert len(task.video.frames) == len(task.truth.scene) == slots
    assert task.seed == usual.seed
    assert task.questions != usual.questions
    fewer = make_task(Benchmark(source="frames", frames=8, clips_of="long"), 0)
    assert fewer is not None
    assert (len(fewer.video.frames), fewer.questions) == (8, task.questions)


def test_skills_and_forms_can_be_chosen() -> None:
    every = [question for clip in range(20) for question in FRAMES.questions(clip)]
    some = Benchmark(source="frames", skills=("brief", "count"), form="free")
    asked = [question for clip in range(20) for question in some.questions(clip)]
    assert asked == [item for item in every if item.skill in ("brief", "count") and not item.letters]
    lettered = Benchmark(source="frames", form="letters")
    chosen = [question for clip in range(20) for question in lettered.questions(clip)]
    assert chosen == [item for item in every if item.letters]
    assert {question.skill for question in every} == set(SKILLS)


def test_a_clip_without_questions_has_no_task() -> None:
    brief = Benchmark(source="frames", skills=("brief",))
    empty = [clip for clip in range(20) if not brief.questions(clip)]
    assert empty
    assert make_task(brief, empty[0]) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"source": "film"}, "'video' or 'frames', got 'film'"),
        ({"clips_of": "odd"}, "series of clips must be one of usual, .*, got 'odd'"),
        ({"form": "long"}, "any, free, letters, got 'long'"),
        ({"skills": ("colour", "smell")}, "some of colour, .*, got smell"),
        ({"skills": ()}, "got none"),
    ],
)
def test_wrong_values_are_refused(options, message) -> None:
    with pytest.raises(EarlyTomError, match=message):
        Benchmark(**options)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"height": 96, "width": 96}, 96),
        ({"height": 384, "width": 384}, 384),
        ({"height": 224, "width": 224}, 216),
        ({"height": 30, "width": 30}, 96),
        ({"shortest_edge": 3136, "longest_edge": 12845056}, 384),
        ({"shortest_edge": 96**2 - 64, "longest_edge": 96**2 + 64}, 96),
        (SimpleNamespace(height=96, width=96), 96),
        (SimpleNamespace(height=None, shortest_edge=3136, longest_edge=200**2), 192),
        (None, 384),
    ],
)
def test_pictures_suit_the_processor(size, expected) -> None:
    assert picture_size(SimpleNamespace(video_processor=SimpleNamespace(size=size))) == expected
