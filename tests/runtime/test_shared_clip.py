"""Prompts that share a clip are those that the processor makes with a copy of the clip for each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import earlytom
from earlytom.runtime.shared_clip import share_clip

QUESTIONS = ["What colour is the circle?", "How many objects are there?", "Where is the red object in the picture?"]


@pytest.fixture(scope="module")
def qa() -> earlytom.VideoQA:
    return earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")


@pytest.fixture(scope="module")
def video(qa) -> earlytom.Video:
    frames = np.random.default_rng(0).integers(0, 255, (6, 96, 96, 3), dtype=np.uint8)
    return qa.read(frames)


def prompts(qa, questions) -> list[str]:
    return [
        qa.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
        )
        for question in questions
    ]


def test_ids_and_masks_equal_those_of_the_processor(qa, video) -> None:
    texts = prompts(qa, QUESTIONS)
    expected = qa.processor(
        text=texts,
        videos=[video.frames] * 3,
        do_sample_frames=False,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    inputs = share_clip(qa.processor, qa.prepare_inputs(video, QUESTIONS[0]), texts)
    assert inputs.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(inputs[name], value), name
    assert inputs["pixel_values_videos"].stride(0) == 0


def test_packed_clips_are_expanded_and_kinds_of_tokens_continue_as_text() -> None:
    """A processor as Qwen's: patches of a clip behind one another, a grid for each clip, a kind for each token."""
    words = {"one": [7, 9, 1, 2], "two": [7, 9, 3]}
    processor = SimpleNamespace(
        video_token_id=9,
        tokenizer=Tokenizer(words),
    )
    inputs = {
        "input_ids": torch.tensor([[7, 9, 9, 9, 1, 2]]),
        "attention_mask": torch.ones(1, 6, dtype=torch.int64),
        "mm_token_type_ids": torch.tensor([[0, 2, 2, 2, 0, 0]]),
        "pixel_values_videos": torch.arange(24.0).view(12, 2),
        "video_grid_thw": torch.tensor([[3, 2, 2]]),
    }
    both = share_clip(processor, inputs, ["one", "two"])
    assert both["input_ids"].tolist() == [[7, 9, 9, 9, 1, 2], [5, 7, 9, 9, 9, 3]]
    assert both["attention_mask"].tolist() == [[1] * 6, [0] + [1] * 5]
    assert both["mm_token_type_ids"].tolist() == [[0, 2, 2, 2, 0, 0], [0, 0, 2, 2, 2, 0]]
    assert torch.equal(both["pixel_values_videos"], inputs["pixel_values_videos"].repeat(2, 1, 1))
    assert both["pixel_values_videos"].stride(0) == 0
    assert both["video_grid_thw"].tolist() == [[3, 2, 2]] * 2


class Tokenizer:
    pad_token_id = 5

    def __init__(self, words) -> None:
        self._words = words

    def __call__(self, texts):
        return {"input_ids": [self._words[text] for text in texts]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"one": [7, 9, 1], "two": [8, 9, 1]}, "differ behind the video only"),
        ({"one": [7, 9, 2], "two": [7, 9, 1]}, "differ behind the video only"),
        ({"one": [7, 9, 1], "two": [7, 1]}, r"no placeholder \(token 9\)"),
    ],
)
def test_prompts_that_cannot_share_are_refused(words, message) -> None:
    processor = SimpleNamespace(video_token_id=9, tokenizer=Tokenizer(words))
    inputs = {"input_ids": torch.tensor([[7, 9, 9, 1]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}
    with pytest.raises(earlytom.CompressionError, match=message):
        share_clip(processor, inputs, ["one", "two"])


@pytest.mark.parametrize("method", ["none", "earlytom:retention=0.25"])
def test_ask_all_gives_what_ask_gives(qa, video, method) -> None:
    together = qa.ask_all(video, QUESTIONS, method=method, max_new_tokens=5)
    alone = [qa.ask(video, question, method=method, max_new_tokens=5) for question in QUESTIONS]
    for one, other in zip(together, alone, strict=True):
        assert (one.text, one.new_tokens) == (other.text, other.new_tokens)
        assert (one.visual_tokens, one.frames_left, one.frames) == (other.visual_tokens, other.frames_left, 6)
    assert together[0].trace is together[2].trace
    assert together[0].trace.last.prefill_tokens == max(answer.prefill_tokens for answer in alone)
    assert all(clip.source["decoder"] == "frames" for clip in together[0].trace.videos)


def test_ask_all_refuses_and_passes_the_edges(qa, video) -> None:
    assert qa.ask_all(video, []) == []
    (only,) = qa.ask_all(video, QUESTIONS[:1], max_new_tokens=3)
    assert only.text == qa.ask(video, QUESTIONS[0], max_new_tokens=3).text
    with pytest.raises(earlytom.CompressionError, match="empty"):
        qa.ask_all(video, ["What?", " "])
    with pytest.raises(earlytom.CompressionError, match="list of texts"):
        qa.ask_all(video, "What?")
    with pytest.raises(earlytom.CompressionError, match="placeholder '<video>'"):
        qa.ask_all(video, ["What?", "what is in <video> ?"])


def test_several_sequences_give_the_first_of_each_question(qa, video) -> None:
    options = {"num_beams": 2, "max_new_tokens": 3}
    best = qa.ask_all(video, QUESTIONS, **options)
    both = qa.ask_all(video, QUESTIONS, num_return_sequences=2, **options)
    assert [answer.text for answer in both] == [answer.text for answer in best]
