"""Mixes of skills: the weights that were fixed, and rows under them compared with counting by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from earlytom.errors import EarlyTomError
from earlytom.eval.mixes import EVEN, MIXES, check_mix, describe_mix
from earlytom.eval.records import Asked, Record
from earlytom.eval.report import to_markdown, write_report
from earlytom.eval.rows import Row, read_rows
from earlytom.eval.statistics import accuracies, draw_clips, interval
from earlytom.eval.summary import summarise
from earlytom.eval.variants import make_variants
from earlytom.testbed.questions import SKILLS

(NONE, METHOD), _ = make_variants(["earlytom"], [0.25])
CLIPS = 24


def records(right: float, seed: int) -> list[Record]:
    """Clips with a question or two of some skills each; about the given share is answered rightly."""
    asked, replies = np.random.default_rng(0), np.random.default_rng(seed)
    found = []
    for clip in range(CLIPS):
        chosen = asked.permutation(len(SKILLS))[:5]
        entries = tuple(
            Asked(
                question=f"{SKILLS[place]}?",
                expected="yes",
                skill=SKILLS[place],
                letters=False,
                guess=0.1 * int(place),
                reply="yes" if replies.random() < right else "no",
            )
            for place in chosen
        )
        numbers = {"visual_tokens": 10, "tokens_per_layer": 10, "frames_left": 16, "ttft": None}
        found.append(Record(clip=clip, seed=clip, asked=entries, **numbers))
    return found


@pytest.fixture(scope="module")
def answered() -> dict:
    return {NONE: records(0.9, 1), METHOD: records(0.6, 2)}


def overall(rows: list[Row], method: str) -> Row:
    (row,) = [row for row in rows if (row.method, row.skill) == (method, "all")]
    return row


def weighed(shares: dict[str, float], mix: str) -> float:
    return sum(MIXES[mix][skill] * share for skill, share in shares.items()) / sum(
        MIXES[mix][skill] for skill in shares
    )


def share(entries: list[Asked], skill: str) -> float:
    mine = [entry.reply == entry.expected for entry in entries if entry.skill == skill]
    return sum(mine) / len(mine)


def test_every_mix_weighs_every_skill() -> None:
    for weights in MIXES.values():
        assert set(weights) == set(SKILLS)
        assert min(weights.values()) > 0
    assert set(MIXES[EVEN].values()) == {1.0}


def test_benchmarks_ask_what_how_many_and_in_which_order_before_motion_and_place() -> None:
    weights = MIXES["benchmarks"]
    exact = max(weights["direction"], weights["position"])
    assert all(weights[skill] > exact for skill in ("colour", "shape", "brief", "order", "count"))
    total = sum(weights.values())
    assert sum(weights[skill] for skill in ("colour", "shape", "brief")) / total == pytest.approx(0.66, abs=0.05)
    assert weights["order"] / total == pytest.approx(0.22, abs=0.05)


def test_the_even_mix_is_the_one_of_before_to_the_last_bit(answered) -> None:
    weights = draw_clips(CLIPS)
    asked = np.random.default_rng(3).integers(0, 3, size=(CLIPS, 4)).astype(float)
    right = np.floor(asked * 0.7)
    total = weights @ asked
    shares = (weights @ right) / total
    assert np.array_equal(accuracies(right, asked, weights)[:, -1], shares.sum(axis=1) / 4)
    assert np.array_equal(accuracies(right, asked, weights, np.ones(4)), accuracies(right, asked, weights))
    assert summarise(answered) == summarise(answered, mix=EVEN)
    assert all("mix" not in row.to_dict() for row in summarise(answered))


def test_a_mix_changes_the_average_and_nothing_else(answered) -> None:
    even, mixed = summarise(answered), summarise(answered, mix="benchmarks")
    skills = {skill: share([entry for one in answered[METHOD] for entry in one.asked], skill) for skill in SKILLS}
    row = overall(mixed, "earlytom")
    assert row.accuracy == pytest.approx(weighed(skills, "benchmarks"), abs=1e-6)
    assert abs(row.accuracy - overall(even, "earlytom").accuracy) > 1e-3
    assert row.difference == pytest.approx(row.accuracy - overall(mixed, "none").accuracy, abs=2e-6)
    assert row.p_value == overall(even, "earlytom").p_value
    single = [{**one.to_dict(), "mix": EVEN} for one in mixed if one.skill != "all"]
    assert single == [{**one.to_dict(), "mix": EVEN} for one in even if one.skill != "all"]


def test_chance_is_averaged_alike(answered) -> None:
    rows = summarise(answered, mix="benchmarks")
    found = {row.skill: row.chance for row in rows if row.method == "none"}
    assert found.pop("all") == pytest.approx(weighed(found, "benchmarks"), abs=2e-6)


def test_intervals_come_from_the_same_clips_drawn_anew(answered) -> None:
    """Both methods are drawn together, clip by clip, by hand; skills that a draw does not hold are left out of it."""
    values = {NONE: [], METHOD: []}
    for counts in draw_clips(CLIPS):
        drawn = [clip for clip in range(CLIPS) for _ in range(int(counts[clip]))]
        for variant, made in values.items():
            entries = [entry for clip in drawn for entry in answered[variant][clip].asked]
            skills = {entry.skill for entry in entries}
            made.append(weighed({skill: share(entries, skill) for skill in skills}, "benchmarks"))
    row = overall(summarise(answered, mix="benchmarks"), "earlytom")
    difference = np.array(values[METHOD]) - np.array(values[NONE])
    low, high = interval(row.difference, difference, CLIPS, -1.0, 1.0)
    assert (row.difference_low, row.difference_high) == pytest.approx((low, high), abs=2e-6)
    low, high = interval(row.accuracy, np.array(values[METHOD]), CLIPS, 0.0, 1.0)
    assert (row.low, row.high) == pytest.approx((low, high), abs=2e-6)


def test_only_skills_that_were_asked_for_weigh() -> None:
    numbers = {"visual_tokens": 10, "tokens_per_layer": 10, "frames_left": 16, "ttft": None}
    entries = [
        Asked(question="?", expected="yes", skill=skill, letters=False, guess=0.0, reply=reply)
        for skill, reply in (("colour", "yes"), ("position", "no"))
    ]
    row = overall(
        summarise({NONE: [Record(clip=0, seed=0, asked=tuple(entries), **numbers)]}, mix="benchmarks"), "none"
    )
    assert row.accuracy == pytest.approx(5 / 6, abs=1e-6)


def test_rows_of_a_mix_say_so_and_stand_beside_those_of_another(answered, tmp_path) -> None:
    even, mixed = summarise(answered), summarise(answered, mix="benchmarks")
    write_report(tmp_path, even, [("mix", "none")])
    rows, report = write_report(tmp_path, mixed, [("mix", describe_mix("benchmarks"))])
    assert (rows.name, report.name) == ("rows_benchmarks.json", "report_benchmarks.md")
    assert {path.name for path in tmp_path.iterdir()} == {"rows.json", "report.md", rows.name, report.name}
    assert {row["mix"] for row in json.loads(rows.read_text())} == {"benchmarks"}
    assert (read_rows(rows), read_rows(tmp_path / "rows.json")) == (mixed, even)
    assert "weighed by the mix" in report.read_text()
    assert "weighed by the mix" not in to_markdown(even, [])
    assert "colour 5, shape 5, brief 3, order 4, count 2, direction 1, position 1" in report.read_text()


def test_unknown_mixes_are_refused(answered) -> None:
    for call in (check_mix, lambda name: summarise(answered, mix=name)):
        with pytest.raises(EarlyTomError, match="mix must be one of even, benchmarks, got 'odd'"):
            call("odd")
    with pytest.raises(EarlyTomError, match="mix must be a text, got 3"):
        Row.from_dict(summarise(answered)[0].to_dict() | {"mix": 3})
