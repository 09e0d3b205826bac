"""Runs: controls with a known score, going on after a stop, and equal results for equal seeds."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

import earlytom
from earlytom.errors import EarlyTomError
from earlytom.eval import runner
from earlytom.eval.controls import Constant, Oracle
from earlytom.eval.runner import evaluate, run, run_settings
from earlytom.eval.summary import summarise
from earlytom.eval.tasks import Benchmark
from earlytom.eval.variants import make_variants

FRAMES = Benchmark(source="frames")
CLIPS = 6


def untimed(rows):
    return [dataclasses.replace(row, ttft=None) for row in rows]


def test_the_truth_scores_one(tmp_path) -> None:
    (none,), _ = make_variants([], [])
    rows = summarise(run(FRAMES, CLIPS, {none: Oracle()}, tmp_path))
    assert {row.accuracy for row in rows} == {1.0}
    assert all(0 < row.low < 1 == row.high for row in rows)
    assert all(row.ttft is None for row in rows)


def test_a_constant_answer_scores_the_share_that_it_has(tmp_path) -> None:
    (none,), _ = make_variants([], [])
    benchmark = dataclasses.replace(FRAMES, skills=("direction",), form="free")
    answers = Counter(item.answer for clip in range(12) for item in benchmark.questions(clip))
    best, times = answers.most_common(1)[0]
    (row, _) = summarise(run(benchmark, 12, {none: Constant(best)}, tmp_path / best))
    assert row.accuracy == row.chance == pytest.approx(times / answers.total(), abs=1e-6)
    other = next(answer for answer in answers if answer != best)
    (row, _) = summarise(run(benchmark, 12, {none: Constant(other)}, tmp_path / other))
    assert row.accuracy == pytest.approx(answers[other] / answers.total(), abs=1e-6)
    assert row.accuracy <= row.chance


def test_a_stopped_run_goes_on_and_redoes_nothing(tmp_path, scripted) -> None:
    variants, _ = make_variants(["earlytom"], [0.25])

    class Stops(scripted):
        def answer(self, task):
            if task.clip == 3:
                raise KeyboardInterrupt
            return super().answer(task)

    def right(question):
        return question.answer

    with pytest.raises(KeyboardInterrupt):
        run(FRAMES, CLIPS, {variant: Stops(right) for variant in variants}, tmp_path)
    later = {variant: scripted(right) for variant in variants}
    resumed = run(FRAMES, CLIPS, later, tmp_path)
    assert [answerer.clips for answerer in later.values()] == [[3, 4, 5], [3, 4, 5]]
    whole = run(FRAMES, CLIPS, {variant: scripted(right) for variant in variants}, tmp_path / "other")
    assert list(resumed.values()) == list(whole.values())


def test_finished_clips_are_not_even_drawn(tmp_path, scripted, monkeypatch) -> None:
    variants, _ = make_variants(["earlytom"], [0.25])
    run(FRAMES, 3, {variant: scripted(lambda question: "red") for variant in variants}, tmp_path)
    drawn = []
    monkeypatch.setattr(runner, "make_task", lambda benchmark, clip: drawn.append(clip))
    done = []
    answerers = {variant: scripted(lambda question: "red") for variant in variants}
    run(FRAMES, 3, answerers, tmp_path, on_done=lambda: done.append(1))
    assert (drawn, len(done)) == ([], 6)


def test_more_methods_and_more_clips_can_follow(tmp_path, scripted) -> None:
    (none, first, second), _ = make_variants(["earlytom"], [0.25, 0.1])
    run(FRAMES, 2, {none: scripted(lambda question: "red"), first: scripted(lambda question: "red")}, tmp_path)
    again = {variant: scripted(lambda question: "red") for variant in (none, first, second)}
    records = run(FRAMES, 3, again, tmp_path)
    assert [answerer.clips for answerer in again.values()] == [[2], [2], [0, 1, 2]]
    assert [len(found) for found in records.values()] == [3, 3, 3]
    fewer = run(FRAMES, 1, again, tmp_path)
    assert [[record.clip for record in found] for found in fewer.values()] == [[0]] * 3


def test_methods_take_turns_at_going_first(tmp_path, scripted) -> None:
    order = []
    variants, _ = make_variants(["earlytom"], [0.25])

    class Noted(scripted):
        def answer(self, task):
            order.append((task.clip, self.tokens))
            return super().answer(task)

    run(FRAMES, 9, {variant: Noted(str, tokens=place) for place, variant in enumerate(variants)}, tmp_path)
    firsts = {clip: place for clip, place in reversed(order)}
    # Every fourth clip is timed.
    assert [firsts[clip] for clip in (0, 4, 8)] == [0, 1, 0]


def test_clips_without_questions_are_passed_over(tmp_path, scripted) -> None:
    (none,), _ = make_variants([], [])
    brief = dataclasses.replace(FRAMES, skills=("brief",))
    done = []
    records = run(brief, 10, {none: scripted(lambda question: "red")}, tmp_path, on_done=lambda: done.append(1))
    assert len(done) == 10
    assert [record.clip for record in records[none]] == [clip for clip in range(10) if brief.questions(clip)]


def test_two_runs_with_one_seed_give_the_same_rows(qa, tmp_path) -> None:
    variants, _ = make_variants(["earlytom:merge_layers=1/3/5"], [0.25])
    benchmark = dataclasses.replace(FRAMES, seed=7, skills=("colour", "count"), form="free")
    first = evaluate(qa, benchmark, variants, 2, tmp_path / "first")
    second = evaluate(qa, benchmark, variants, 2, tmp_path / "second")
    assert untimed(first) == untimed(second)
    plain, short = (row for row in first if row.skill == "all")
    assert (plain.visual_tokens, plain.frames_left) == (576, 16)
    assert short.visual_tokens == 144
    assert short.frames_left < 16
    assert min(plain.ttft, short.ttft) > 0


def test_other_settings_are_refused_before_anything_is_asked(qa, tmp_path) -> None:
    variants, _ = make_variants([], [])
    benchmark = dataclasses.replace(FRAMES, skills=("colour",), form="free")
    evaluate(qa, benchmark, variants, 1, tmp_path)
    with pytest.raises(EarlyTomError, match="seed is 0 there, 1 now"):
        evaluate(qa, dataclasses.replace(benchmark, seed=1), variants, 1, tmp_path)
    with pytest.raises(EarlyTomError, match=r"skills is \['colour'\] there, \['shape'\] now"):
        evaluate(qa, dataclasses.replace(benchmark, skills=("shape",)), variants, 1, tmp_path)


def test_other_weights_are_another_model(qa) -> None:
    other = earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")
    assert run_settings(qa, FRAMES) == run_settings(other, FRAMES)
    # Any training step moves every parameter; the fingerprint reads the first value of each, among others.
    next(other.model.parameters()).data.view(-1)[0] += 0.5
    assert run_settings(qa, FRAMES)["weights"] != run_settings(other, FRAMES)["weights"]
    half = earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu", dtype="bfloat16")
    assert run_settings(half, FRAMES)["dtype"] == "bfloat16"


def test_a_method_that_does_not_fit_is_refused_before_anything_is_drawn(qa, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(runner, "make_task", lambda benchmark, clip: pytest.fail("drawn"))
    with pytest.raises(earlytom.MethodError, match="20"):
        evaluate(qa, FRAMES, make_variants(["earlytom:merge_layers=20"], [0.25])[0], 1, tmp_path)


def test_a_budget_of_tokens_reaches_the_model_and_is_a_setting_of_the_run(tmp_path) -> None:
    qa = earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")
    (none,), _ = make_variants([], [])
    limited = dataclasses.replace(FRAMES, max_tokens=150, skills=("colour",), form="free")
    (row, *_) = evaluate(qa, limited, [none], 2, tmp_path)
    assert row.visual_tokens == 144
    assert run_settings(qa, limited)["max_tokens"] == 150
    with pytest.raises(EarlyTomError, match="other settings: max_tokens is 150 there"):
        evaluate(qa, dataclasses.replace(limited, max_tokens=None), [none], 2, tmp_path)


def test_folders_from_before_there_were_budgets_and_series_go_on() -> None:
    qa = earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")
    assert not {"max_tokens", "clips_of"} & run_settings(qa, FRAMES).keys()


def test_another_series_of_clips_is_another_run(qa) -> None:
    harder = run_settings(qa, dataclasses.replace(FRAMES, clips_of="small"))
    assert harder["clips_of"] == "small"
    assert harder["questions"] != run_settings(qa, FRAMES)["questions"]
