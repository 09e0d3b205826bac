"""End to end on the shipped model: real files in, right answers out, with and without compression."""

from __future__ import annotations

import pytest

import earlytom

QUESTIONS = earlytom.sample_questions()


@pytest.fixture(scope="module")
def qa() -> earlytom.VideoQA:
    return earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")


@pytest.mark.parametrize("method", ["none", "earlytom:retention=0.25"])
@pytest.mark.parametrize("video", sorted({question.video for question in QUESTIONS}), ids=lambda path: path.stem)
def test_sample_questions_are_answered_rightly(qa, video, method) -> None:
    frames = qa.read(video)
    for question in QUESTIONS:
        if question.video == video:
            answer = qa.ask(frames, question.question, method=method)
            assert answer.text == question.answer, question.question
            share = 1.0 if method == "none" else 0.25
            assert answer.visual_tokens == share * answer.visual_tokens_uncompressed


def test_the_samples_cover_every_skill_and_are_small() -> None:
    assert {question.skill for question in QUESTIONS} == {
        "colour", "shape", "direction", "count", "order", "brief", "position",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in earlytom.sample_videos()) < 2_000_000
    assert sum(path.stat().st_size for path in earlytom.shipped_model().iterdir()) < 12_000_000


def test_files_bytes_and_file_objects_give_the_same_answer(qa) -> None:
    first = QUESTIONS[0]
    with first.video.open("rb") as file:
        answers = [qa.ask(source, first.question) for source in (first.video, first.video.read_bytes(), file)]
    assert {answer.text for answer in answers} == {first.answer}
    assert len({tuple(answer.trace.videos[0].source["frame_indices"]) for answer in answers}) == 1
    assert {answer.trace.videos[0].source["decoder"] for answer in answers} == {"pyav"}
