"""The families' own processors without downloads: real handling of frames, a vocabulary that is made up.

Text is made of words that mean nothing, so that its tokens only count; what becomes of frames is what the published
checkpoints' settings make of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

__all__ = ["build_processor", "made_up_question"]

_SYSTEM_WORDS, _QUESTION_WORDS = 14, 24
"""Words before the video, as the template ``qwen_1_5`` has tokens, and of a short question."""
_WORDS = 512
_PAD, _UNKNOWN = "[PAD]", "[UNK]"
_IMAGE, _VIDEO = "<image>", "<video>"
_IMAGE_PAD, _VIDEO_PAD, _START, _END = "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
# Qwen3-VL writes the seconds of every temporal grid.
_SIGNS = (*"0123456789.<>", "seconds")


def build_processor(family: str, config: Any, seed: int = 0) -> Any:
    """The processor for a model of random weights.

    Args:
        family: the model's ``config.model_type``.
        config: the model's configuration.
        seed: of the vocabulary: which words there are, and their places.
    """
    made: Any = _PROCESSORS[family](config, seed)
    return made


def made_up_question(seed: int = 0, words: int = _QUESTION_WORDS) -> str:
    """A question of so many words, each one token, of the vocabulary of ``seed``."""
    return " ".join(random.Random(seed).choices(_vocabulary_words(seed), k=words))


def _vocabulary_words(seed: int) -> list[str]:
    syllables = ["".join(pair) for pair in product("bdfghjklmnprstvwz", "aeiou")]
    return random.Random(seed).sample(["".join(pair) for pair in product(syllables, repeat=2)], _WORDS)


def _tokenizer(vocabulary_size: int, special: Mapping[str, int], seed: int) -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*_SIGNS, *_vocabulary_words(seed)]
    free = [number for number in range(2, vocabulary_size) if number not in set(special.values())]
    places = random.Random(seed).sample(free, len(words))
    vocabulary = {_PAD: 0, _UNKNOWN: 1} | dict(zip(words, places, strict=True)) | dict(special)
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\s+"), "removed"),
        pre_tokenizers.Split(Regex(r"[^\W\d]+|\d|[^\w\s]"), "isolated"),
    ])  # fmt: skip
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token=_PAD, unk_token=_UNKNOWN, padding_side="left")
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    return fast


def _template(video: str, seed: int) -> str:
    return (
        made_up_question(seed, _SYSTEM_WORDS)
        + " {% for message in messages %}{% for part in message.content %}{% if part.type == 'video' %}"
        f"{video} {{% else %}}{{{{ part.text }}}}{{% endif %}}{{% endfor %}}{{% endfor %}}"
    )


def _llava_tokens(config: Any) -> dict[str, int]:
    return {_IMAGE: config.image_token_id, _VIDEO: config.video_token_id}


def _square(config: Any) -> dict[str, int]:
    return {"height": config.vision_config.image_size, "width": config.vision_config.image_size}


def _llava_onevision(config: Any, seed: int) -> Any:
    from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

    side = config.vision_config.image_size // config.vision_config.patch_size
    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=_square(config)),
        _tokenizer(config.text_config.vocab_size, _llava_tokens(config), seed),
        LlavaOnevisionVideoProcessor(size=_square(config)),
        chat_template=_template(_VIDEO, seed),
        num_image_tokens=side**2,
        vision_feature_select_strategy="full",
    )


def _llava_video(config: Any, seed: int) -> Any:
    from transformers import LlavaOnevisionVideoProcessor

    from earlytom.models.llava_video.processor import LlavaVideoProcessor

    return LlavaVideoProcessor(
        _tokenizer(config.text_config.vocab_size, _llava_tokens(config), seed),
        LlavaOnevisionVideoProcessor(size=_square(config)),
        chat_template=_template(_VIDEO, seed),
        patches_per_side=config.vision_config.image_size // config.vision_config.patch_size,
        spatial_pool_mode=config.spatial_pool_mode,
        spatial_pool_stride=config.spatial_pool_stride,
        newline_position=config.newline_position,
    )


def _packed(config: Any) -> dict[str, int]:
    vision = config.vision_config
    return {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
    }


def _qwen_tokenizer(config: Any, seed: int) -> Any:
    special = {
        _IMAGE_PAD: config.image_token_id,
        _VIDEO_PAD: config.video_token_id,
        _START: config.vision_start_token_id,
        _END: config.vision_end_token_id,
    }
    return _tokenizer(config.text_config.vocab_size, special, seed)


def _qwen2_5_vl(config: Any, seed: int) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    videos = Qwen2VLVideoProcessor(**_packed(config), size={"shortest_edge": 128 * 28**2, "longest_edge": 768 * 28**2})
    images = Qwen2VLImageProcessor(**_packed(config))
    template = _template(f"{_START}{_VIDEO_PAD}{_END}", seed)
    return Qwen2_5_VLProcessor(images, _qwen_tokenizer(config, seed), videos, chat_template=template)


def _qwen3_vl(config: Any, seed: int) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    # The published limits, of all frames together.
    videos = Qwen3VLVideoProcessor(**_packed(config), size={"shortest_edge": 4096, "longest_edge": 25165824})
    images = Qwen2VLImageProcessor(**_packed(config))
    template = _template(f"{_START}{_VIDEO_PAD}{_END}", seed)
    return Qwen3VLProcessor(images, _qwen_tokenizer(config, seed), videos, chat_template=template)


_PROCESSORS: Mapping[str, Callable[[Any, int], Any]] = {
    "llava_onevision": _llava_onevision,
    "llava_video": _llava_video,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
}
