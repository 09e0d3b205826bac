"""The trained test models on real clips: what a session answers is what a fresh question is answered."""

from __future__ import annotations

import pytest

import earlytom


@pytest.mark.parametrize("architecture", ["llava_onevision", "qwen2_5_vl"])
@pytest.mark.parametrize("method", ["earlytom:retention=0.1", "none"])
def test_forks_answer_as_fresh_questions_do(architecture, method) -> None:
    qa = earlytom.VideoQA.load(earlytom.shipped_model(architecture), device="cpu")
    asked: dict = {}
    for sample in earlytom.sample_questions():
        asked.setdefault(sample.video, []).append(sample.question)
    for path, questions in list(asked.items())[:4]:
        video = qa.read(path)
        with qa.open(video, method=method) as session:
            for question in questions[:4]:
                expected = qa.ask(video, question, method=method, max_new_tokens=8)
                answer = session.fork().ask(question, max_new_tokens=8)
                assert answer.text == expected.text
                assert answer.visual_tokens == expected.visual_tokens
                assert answer.frames_left == expected.frames_left
