"""The parts of the test model's checkpoint: tokenizer, processor, configuration, model, saving and loading.

The result is a plain folder for ``from_pretrained`` of transformers; nothing of this package is needed to use it.
"""

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from earlytom.testbed import choices, questions

CHECKPOINT_FOLDER = Path(__file__).parent / "checkpoint"
FRAME_SIZE = 96
FRAME_LIMIT = 16
TOKENS_PER_FRAME = 36
SPECIAL_TOKENS = ("<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
ROLES = ("user", "assistant", "system")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] if content['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] if content['type'] == 'video' %}{{ '<video>' }}{% endfor %}"
    "{% for content in message['content'] if content['type'] == 'text' %}{{ '\\n' + content['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer: lower case, punctuation apart, American spelling of colour accepted."""
    known = questions.vocabulary() | choices.vocabulary()
    words = [*SPECIAL_TOKENS, *ROLES, *sorted(known - set(SPECIAL_TOKENS) - set(ROLES))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\bcolor"), "colour")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> LlavaOnevisionProcessor:
    """Return the stock processor for frames of 96 by 96 pixels, 12 by 12 patches."""
    size = {"height": FRAME_SIZE, "width": FRAME_SIZE}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[FRAME_SIZE, FRAME_SIZE]]),
        tokenizer=build_tokenizer(),
        video_processor=LlavaOnevisionVideoProcessor(size=size, num_frames=FRAME_LIMIT),
        num_image_tokens=4 * TOKENS_PER_FRAME,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def build_vision_config() -> SiglipVisionConfig:
    """Return the configuration of the SigLIP tower."""
    return SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=8,
        num_attention_heads=4,
        image_size=FRAME_SIZE,
        patch_size=8,
        vision_use_head=False,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
    """Return the configuration of the whole model for the words of ``tokenizer``."""
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlavaOnevisionConfig(
        vision_config=build_vision_config(),
        text_config=text,
        image_token_index=tokenizer.get_vocab()["<image>"],
        video_token_index=tokenizer.get_vocab()["<video>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[FRAME_SIZE, FRAME_SIZE]],
        tie_word_embeddings=True,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlavaOnevisionForConditionalGeneration:
    """Return the untrained model in float32, its weights drawn from ``seed``."""
    torch.manual_seed(seed)
    model = LlavaOnevisionForConditionalGeneration(build_config(tokenizer))
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def save_checkpoint(
    model: LlavaOnevisionForConditionalGeneration,
    processor: LlavaOnevisionProcessor,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write the checkpoint in ``dtype`` beside ``folder``, then swap it in, so that no reader sees half of it."""
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    copy = LlavaOnevisionForConditionalGeneration(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = model.generation_config
    copy.to(dtype)
    copy.save_pretrained(fresh)
    (fresh / "model.safetensors").chmod(0o644)
    processor.save_pretrained(fresh)
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    folder: Path = CHECKPOINT_FOLDER, dtype: torch.dtype = torch.float32
) -> tuple[LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor]:
    """Load the model in ``dtype``, ready to answer, and its processor, without any network."""
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True)
    processor = LlavaOnevisionProcessor.from_pretrained(folder, local_files_only=True)
    model.eval()
    return model, processor


def question_prompt(processor: LlavaOnevisionProcessor, question: str) -> str:
    """Return the text of one question about one video as the chat template writes it."""
    content = [{"type": "video"}, {"type": "text", "text": question}]
    message: dict[str, Any] = {"role": "user", "content": content}
    prompt: str = processor.apply_chat_template([message], add_generation_prompt=True)
    return prompt
