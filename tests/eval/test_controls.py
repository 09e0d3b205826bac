"""Controls on the shipped model: what cannot be seen is not answered better than by chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from earlytom.eval.answering import ModelAnswerer
from earlytom.eval.controls import Changed, blind, without_brief
from earlytom.eval.runner import run
from earlytom.eval.summary import summarise
from earlytom.eval.tasks import Benchmark, Task, make_task
from earlytom.eval.variants import make_variants
from earlytom.methods import parse_method
from earlytom.testbed.questions import SKILLS

FRAMES = Benchmark(source="frames", form="free")
BRIEF = dataclasses.replace(FRAMES, skills=("brief",))


@pytest.fixture(scope="module")
def plain(qa) -> ModelAnswerer:
    return ModelAnswerer(qa, parse_method("none"))


def headline(answerer, benchmark, clips, folder):
    (none,), _ = make_variants([], [])
    return summarise(run(benchmark, clips, {none: answerer}, folder))[0]


def with_brief_object(benchmark: Benchmark, clips: int) -> list[Task]:
    """Tasks about something brief that is really there."""
    tasks = [make_task(benchmark, clip) for clip in range(clips)]
    return [task for task in tasks if task is not None and any(item.brief for item in task.truth.objects)]


def test_a_blind_model_scores_no_more_than_chance(plain, tmp_path) -> None:
    """In every skill and both forms; two of the skills are seen as well, so that there is known to be something."""
    both = dataclasses.replace(FRAMES, form="any")
    (none,), _ = make_variants([], [])
    rows = summarise(run(both, 10, {none: Changed(plain, blind)}, tmp_path / "blind"))
    assert {row.skill for row in rows} == {"all", *SKILLS}
    for row in rows:
        assert row.low <= row.chance, (row.skill, row.form)
    some = dataclasses.replace(FRAMES, skills=("colour", "shape"))
    seeing = headline(plain, some, 5, tmp_path / "seeing")
    assert seeing.accuracy > rows[0].accuracy + 0.2


def test_grey_frames_are_grey_and_the_questions_stay() -> None:
    task = make_task(FRAMES, 0)
    assert task is not None
    changed = blind(task)
    assert len(np.unique(changed.video.frames)) == 1
    assert changed.video.frames.shape == task.video.frames.shape
    assert changed.questions == task.questions


def test_without_its_frames_a_brief_event_cannot_be_told(plain) -> None:
    tasks = with_brief_object(BRIEF, 16)
    assert len(tasks) >= 5
    seen = unseen = 0
    for task in tasks:
        expected = [question.answer for question in task.questions]
        seen += list(plain.answer(task).texts) == expected
        unseen += list(Changed(plain, without_brief).answer(task).texts) == expected
    # One of 24 objects: chance is about 4%.
    assert unseen <= 1
    assert seen > unseen + len(tasks) // 4


def test_dropped_frames_are_replaced_from_their_own_scene() -> None:
    for task in with_brief_object(BRIEF, 12):
        truth = task.truth
        brief = np.array([item.brief for item in truth.objects])
        shown = truth.visible[:, brief].any(axis=1)
        changed = without_brief(task).video.frames
        kept = task.video.frames
        assert np.array_equal(changed[~shown], kept[~shown])
        for frame in np.flatnonzero(shown):
            same = [other for other in np.flatnonzero(~shown) if truth.scene[other] == truth.scene[frame]]
            assert any(np.array_equal(changed[frame], kept[other]) for other in same or np.flatnonzero(~shown))


def test_a_clip_that_shows_nothing_else_stays() -> None:
    (task, *_) = with_brief_object(BRIEF, 12)
    truth = dataclasses.replace(task.truth, visible=np.ones_like(task.truth.visible))
    assert without_brief(dataclasses.replace(task, truth=truth)).truth is truth


def test_file_and_frames_get_the_same_answers_but_for_the_codec(plain) -> None:
    same = asked = 0
    some = dataclasses.replace(FRAMES, form="any")
    for clip in range(4):
        tasks = [make_task(dataclasses.replace(some, source=source), clip) for source in ("frames", "video")]
        replies = [plain.answer(task).texts for task in tasks if task is not None]
        same += sum(one == other for one, other in zip(*replies, strict=True))
        asked += len(replies[0])
    assert asked >= 30
    assert same >= 0.9 * asked
