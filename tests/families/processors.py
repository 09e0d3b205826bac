"""The tiny models with stock processors around them, from frames and a question to an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import (
    GotOcr2ImageProcessor,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

import conftest
import earlytom
from earlytom.models.llava_video.processor import LlavaVideoProcessor
from families import family_case, internvl, llava_video

QWEN_TOKENS = {"<|image_pad|>": 296, "<|video_pad|>": 297, "<|vision_start|>": 298, "<|vision_end|>": 299}
INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""What InternVL's tokenizer calls its special tokens, which its processor asks for."""
LABELS = {"Frame": internvl.FRAME, ":": internvl.COLON, " ": internvl.SPACE, "\n": internvl.LINE_BREAK}


def video_qa(family: str) -> earlytom.VideoQA:
    """The tiny model of a family with its stock processor, which answers in words of `tokenizer`."""
    makers = {
        "llava_onevision": _llava_onevision,
        "llava_video": _llava_video,
        "qwen2_5_vl": _qwen2_5_vl,
        "qwen3_vl": _qwen3_vl,
        "internvl": _internvl,
    }
    return earlytom.VideoQA(family_case(family).build(), makers[family]())


def tokenizer(special: Mapping[str, int], more: Mapping[str, int] | None = None) -> PreTrainedTokenizerFast:
    """Words, numbers and a family's special tokens, in the places where the tiny models expect them."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    text = "what moves here is there anything else answer seconds < > ."
    words = ["[PAD]", "[UNK]", *text.split(" ")]
    # Digits stand where `earlytom.layouts.pictures` looks for the numbers of frames.
    digits = {str(number): internvl.ZERO + number for number in range(10)}
    vocabulary = {word: number for number, word in enumerate(words)} | digits | dict(more or {}) | dict(special)
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\W\d]+|\d|[^\w\s]|\s"), "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", padding_side="left")
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    return fast


def _template(video: str) -> str:
    return (
        "{% for message in messages %}{% for part in message.content %}"
        "{% if part.type == 'video' %}" + video + "{% else %}{{ part.text }}{% endif %}"
        "{% endfor %}{% endfor %} answer"
    )


def _square(side: int) -> dict[str, Any]:
    return {"size": {"height": side, "width": side}}


def _llava_onevision() -> LlavaOnevisionProcessor:
    tokens = {"<image>": conftest.IMAGE, "<video>": conftest.VIDEO}
    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(**_square(32)),
        tokenizer(tokens),
        LlavaOnevisionVideoProcessor(**_square(32)),
        chat_template=_template("<video>"),
        num_image_tokens=64,
        vision_feature_select_strategy="full",
    )


def _llava_video() -> LlavaVideoProcessor:
    return LlavaVideoProcessor(
        tokenizer({"<video>": llava_video.VIDEO}),
        LlavaOnevisionVideoProcessor(**_square(4 * llava_video.SIDE)),
        chat_template=_template("<video>"),
        patches_per_side=llava_video.SIDE,
        spatial_pool_mode="average",
    )


_PACKED = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
_PACKED_TEMPLATE = _template("<|vision_start|><|video_pad|><|vision_end|>")


def _packed_images() -> Qwen2VLImageProcessor:
    return Qwen2VLImageProcessor(**_PACKED, size={"shortest_edge": 64, "longest_edge": 40 * 64})


def _qwen2_5_vl() -> Qwen2_5_VLProcessor:
    videos = Qwen2VLVideoProcessor(**_PACKED, size={"shortest_edge": 64, "longest_edge": 40 * 64})
    return Qwen2_5_VLProcessor(_packed_images(), tokenizer(QWEN_TOKENS), videos, chat_template=_PACKED_TEMPLATE)


def _qwen3_vl() -> Qwen3VLProcessor:
    videos = Qwen3VLVideoProcessor(**_PACKED, size={"shortest_edge": 64, "longest_edge": 16 * 40 * 64})
    return Qwen3VLProcessor(_packed_images(), tokenizer(QWEN_TOKENS), videos, chat_template=_PACKED_TEMPLATE)


def _internvl() -> InternVLProcessor:
    special = {"<img>": internvl.IMG, "</img>": internvl.END_IMG, "<IMG_CONTEXT>": internvl.CONTEXT, "<video>": 4496}
    made = tokenizer(special, LABELS)
    for name, token in INTERNVL_TOKENS.items():
        setattr(made, name, token)
        setattr(made, f"{name}_id", special[token])
    return InternVLProcessor(
        GotOcr2ImageProcessor(**_square(internvl.SIDE)),
        made,
        InternVLVideoProcessor(**_square(internvl.SIDE)),
        image_seq_length=internvl.TOKENS,
        chat_template=_template("<video>\n"),
    )
