"""Series of clips: the usual one stays as it is, and the others are what they say."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from earlytom.errors import EarlyTomError
from earlytom.testbed.evaluate import questions_of_clip
from earlytom.testbed.lettering import draw_lettering, sample_lettering
from earlytom.testbed.questions import SKILLS
from earlytom.testbed.scene_sampling import sample_clip
from earlytom.testbed.scene_types import COLOURS, SLOT_COUNT
from earlytom.testbed.scenes import draw_clip, generate_clip, uniform_slots
from earlytom.testbed.series import SERIES, USUAL, Series, find_series

FIRST = 1_200_000_000
SEEDS = range(FIRST, FIRST + 30)
OTHERS = [name for name in SERIES if name != USUAL]


def plain(value: object) -> object:
    """Nested dataclasses and arrays as text that tells any change; what is ``None`` is left out."""
    if isinstance(value, np.ndarray):
        return value.tobytes().hex()
    if isinstance(value, tuple):
        return [plain(entry) for entry in value]
    if dataclasses.is_dataclass(value):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return [(name, plain(entry)) for name, entry in pairs if entry is not None]
    return value


def digest(seeds: range, series: Series) -> str:
    """Of what the clips of some seeds show, and what is asked about them."""
    found = hashlib.sha256()
    for seed in seeds:
        found.update(repr(plain(sample_clip(seed, series))).encode())
        found.update(repr(questions_of_clip(seed, series=series)[1]).encode())
    return found.hexdigest()[:16]


def test_the_usual_clips_and_their_questions_are_the_ones_they_have_always_been() -> None:
    """The digest is of the generator from before there were series; models and results belong to these clips."""
    assert digest(range(FIRST, FIRST + 40), SERIES[USUAL]) == "d47fe5010118b41d"
    assert dataclasses.replace(SERIES[USUAL], about="") == Series(about="")


def test_the_usual_series_is_meant_where_none_is_named() -> None:
    frames, truth = generate_clip(FIRST)
    named, same = generate_clip(FIRST, series=SERIES[USUAL])
    assert np.array_equal(frames, named)
    assert np.array_equal(truth.coverage, same.coverage)


@pytest.mark.parametrize("name", list(SERIES))
def test_a_series_can_be_drawn(name: str) -> None:
    """Scenes fit into the clip, and every scene, the one with a brief object too, has colours enough."""
    series = SERIES[name]
    most = len(series.scene_counts)
    assert sum(series.scene_counts) == pytest.approx(1.0)
    assert most * series.shortest_scene <= series.slots
    assert most + 1 <= len(COLOURS)
    assert set(series.skills) <= set(SKILLS)
    assert series.skills == tuple(skill for skill in SKILLS if skill in series.skills)


@pytest.mark.parametrize("name", list(SERIES))
def test_clips_are_what_their_series_says(name: str) -> None:
    series = SERIES[name]
    counts, lengths = set(), set()
    for seed in SEEDS:
        clip = sample_clip(seed, series)
        counts.add(len(clip.scenes))
        lengths |= {scene.end_slot - scene.first_slot for scene in clip.scenes}
        assert clip.scenes[0].first_slot == 0
        assert clip.scenes[-1].end_slot == series.slots
        assert all(series.radius[0] <= item.radius <= series.radius[1] for item in clip.objects)
        assert clip.noise <= series.noise
        assert clip.flicker <= series.flicker
        assert len({item.colour for item in clip.objects}) == len(clip.objects)
        assert plain(clip) == plain(sample_clip(seed, series))
    assert counts == {1 + place for place, share in enumerate(series.scene_counts) if share}
    assert min(lengths) >= series.shortest_scene


@pytest.mark.parametrize("name", OTHERS)
def test_frames_are_a_slot_each_and_show_what_the_truth_says(name: str) -> None:
    series = SERIES[name]
    for seed in range(FIRST, FIRST + 3):
        frames, truth = generate_clip(seed, series.slots, series=series)
        again, _ = generate_clip(seed, series.slots, series=series)
        assert frames.shape == (series.slots, 96, 96, 3)
        assert len(truth.scene) == series.slots
        assert np.array_equal(frames, again)
        assert float(truth.coverage.sum(axis=1).max()) <= 1.001


@pytest.mark.parametrize("name", [name for name in OTHERS if SERIES[name].still == 1.0])
def test_nothing_moves_in_a_long_static_stretch_and_something_comes_and_goes(name: str) -> None:
    series = SERIES[name]
    brief = seen = 0
    for seed in SEEDS:
        clip = dataclasses.replace(sample_clip(seed, series), flicker=0.0)
        frames, truth = draw_clip(clip, uniform_slots(series.slots, series.slots), degrade=False)
        assert {item.direction for item in clip.objects} == {None}
        brief += sum(item.brief for item in clip.objects)
        where = np.flatnonzero(truth.scene == 0)[1:-2]
        still = np.array([not truth.visible[frame, [item.brief for item in clip.objects]].any() for frame in where])
        shown = frames[where[still]]
        assert (shown == shown[:1]).all()
        seen += len(shown)
    assert brief == len(SEEDS)
    assert seen > 5 * len(SEEDS)


def test_small_objects_cover_few_patches() -> None:
    usual, small = (
        np.mean([generate_clip(seed, series=SERIES[name])[1].coverage.sum(axis=(2, 3)).max() for seed in SEEDS[:8]])
        for name in (USUAL, "small")
    )
    assert small < 0.4 * usual


def test_lettering_is_the_usual_clip_with_marks_behind_its_objects() -> None:
    series = SERIES["lettering"]
    for seed in SEEDS[:8]:
        plain_frames, truth = generate_clip(seed, degrade=False)
        frames, other = generate_clip(seed, degrade=False, series=series)
        assert np.array_equal(truth.visible, other.visible)
        assert np.array_equal(truth.coverage, other.coverage)
        assert questions_of_clip(seed)[1] == questions_of_clip(seed, series=series)[1]
        changed = np.abs(frames.astype(int) - plain_frames).max(axis=3)
        assert 0.02 < float((changed > 40).mean()) < 0.4
        patches = changed.reshape(len(changed), 12, 8, 12, 8).max(axis=(2, 4))
        covered = (truth.coverage.sum(axis=1) > 0.999) & ~(truth.coverage.sum(axis=1) > 1.001)
        assert patches[covered].max(initial=0) == 0


def test_marks_stand_out_from_the_background() -> None:
    generator = np.random.default_rng(0)
    for brightness in (40.0, 85.0, 95.0, 120.0):
        lettering = sample_lettering(generator, brightness)
        assert abs(lettering.ink - brightness) > 60
        frames = np.full((2, 192, 192, 3), brightness, dtype=np.float32)
        draw_lettering(frames, lettering)
        assert np.array_equal(frames[0], frames[1])
        assert 0.02 < float((np.abs(frames - brightness) > 40).mean()) < 0.4


def test_scenes_without_a_word_for_them_are_not_asked_about() -> None:
    """There are words for the first three scenes and for the last: of five, the fourth is passed over."""
    series = SERIES["longer"]
    asked = [question for seed in SEEDS for question in questions_of_clip(seed, series=series)[1]]
    texts = " ".join(question.text for question in asked)
    assert "last scene" in texts
    assert "fourth" not in texts
    assert {question.skill for question in asked} == set(SKILLS)


def test_unknown_series_are_refused() -> None:
    with pytest.raises(EarlyTomError, match=r"series of clips must be one of usual, .*, got 'odd'"):
        find_series("odd")
    assert find_series(USUAL).slots == SLOT_COUNT


def test_longer_clips_have_a_frame_a_slot_and_others_as_many_as_ever() -> None:
    assert [SERIES[name].frames(8) for name in (USUAL, "small", "long", "longer")] == [8, 8, 32, 64]
