"""From a file to an answer with the stock processors of the families whose prompts depend on when frames were taken."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

import earlytom
from earlytom.video import Sampling
from families import family_case

TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endfor %} answer"
)
SPECIAL = {"<|image_pad|>": 296, "<|video_pad|>": 297, "<|vision_start|>": 298, "<|vision_end|>": 299}


def tokenizer() -> PreTrainedTokenizerFast:
    """Words, numbers and the families' special tokens, in the places where the tiny models expect them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    text = "what moves here is there anything else answer seconds < > ."
    words = ["[PAD]", "[UNK]", *text.split(" ")]
    words += [str(number) for number in range(10)]
    vocabulary = {word: number for number, word in enumerate(words)} | SPECIAL
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), digits, pre_tokenizers.Punctuation()])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", padding_side="left")
    fast.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return fast


def qa_of(family: str) -> earlytom.VideoQA:
    sizes = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
    images = Qwen2VLImageProcessor(**sizes, size={"shortest_edge": 64, "longest_edge": 40 * 64})
    if family == "qwen2_5_vl":
        videos = Qwen2VLVideoProcessor(**sizes, size={"shortest_edge": 64, "longest_edge": 40 * 64})
        processor = Qwen2_5_VLProcessor(images, tokenizer(), videos, chat_template=TEMPLATE)
    else:
        videos = Qwen3VLVideoProcessor(**sizes, size={"shortest_edge": 64, "longest_edge": 16 * 40 * 64})
        processor = Qwen3VLProcessor(images, tokenizer(), videos, chat_template=TEMPLATE)
    return earlytom.VideoQA(family_case(family).build(), processor)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_file_is_answered_and_the_model_is_told_when_the_frames_were_taken(family) -> None:
    qa, path = qa_of(family), earlytom.sample_videos()[0]
    video = qa.read(path, Sampling(frames=12))
    inputs = qa.prepare_inputs(video, "what moves here")
    grids = int(inputs["video_grid_thw"][0, 0])
    assert grids == 6
    if family == "qwen2_5_vl":
        rate = len(video.indices) / video.source_frames * video.source_fps
        assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 / rate])
    else:
        written = qa.processor.tokenizer.decode(inputs["input_ids"][0])
        pairs = [(video.indices[i] + video.indices[i + 1]) / 2 / video.source_fps for i in range(0, 12, 2)]
        for seconds in pairs:
            assert " . ".join(f"{seconds:.1f}".split(".")) in written.replace("  ", " ")
    plain = qa.ask(video, "what moves here", method="none", max_new_tokens=4)
    short = qa.ask(video, "what moves here", method="earlytom:retention=0.25", max_new_tokens=4)
    assert plain.visual_tokens == plain.visual_tokens_uncompressed == int(inputs["video_grid_thw"][0].prod()) // 4
    assert short.visual_tokens == short.trace.videos[0].budget < plain.visual_tokens
    assert short.frames == grids
    assert short.ttft > 0


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_several_questions_about_one_clip_equal_single_ones(family) -> None:
    qa, path = qa_of(family), earlytom.sample_videos()[0]
    video, questions = qa.read(path, Sampling(frames=12)), ["what moves here", "is there anything else"]
    options = {"method": "earlytom:retention=0.25", "max_new_tokens": 4}
    together = qa.ask_all(video, questions, **options)
    assert [answer.text for answer in together] == [qa.ask(video, question, **options).text for question in questions]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_clip_that_is_asked_about_twice_is_encoded_once(family) -> None:
    qa, encoded = qa_of(family), []
    video = qa.read(earlytom.sample_videos()[0], Sampling(frames=12))
    handle = qa.model.model.visual.patch_embed.register_forward_hook(
        lambda _, args, output: encoded.append(len(output))
    )
    try:
        qa.ask_all(video, ["what moves here", "is there anything else"], method="none", max_new_tokens=2)
    finally:
        handle.remove()
    patches = int(qa.prepare_inputs(video, "what moves here")["video_grid_thw"][0].prod())
    assert encoded == [patches]


def test_seconds_stay_exact_in_half_precision() -> None:
    qa = qa_of("qwen2_5_vl")
    qa.model.to(torch.bfloat16)
    inputs = qa.prepare_inputs(qa.read(earlytom.sample_videos()[0], Sampling(frames=6)), "what moves here")
    assert inputs["second_per_grid_ts"].dtype == torch.float32
    assert inputs["pixel_values_videos"].dtype == torch.bfloat16
