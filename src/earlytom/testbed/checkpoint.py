"""What the test models' checkpoints share: tokenizer, chat template, pictures, saving and loading.

The result is a plain folder for ``from_pretrained`` of transformers; nothing of this package is needed to use it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from earlytom.models.checkpoint.weights import stored_weights
from earlytom.models.checkpoint.writing import replace_folder
from earlytom.testbed import choices, questions
from earlytom.testbed.scene_types import ByteArray

CHECKPOINT_FOLDER = Path(__file__).parent / "checkpoint"
FRAME_SIZE = 96
FRAME_LIMIT = 16
PATCH_SIZE = 8
TOKENS_PER_FRAME = 36
MAXIMUM_LENGTH = 4096
SPECIAL_TOKENS = ("<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
ROLES = ("user", "assistant", "system")
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] if content['type'] == 'image' %}{{ 'IMAGE' }}{% endfor %}"
    "{% for content in message['content'] if content['type'] == 'video' %}{{ 'VIDEO' }}{% endfor %}"
    "{% for content in message['content'] if content['type'] == 'text' %}{{ '\\n' + content['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
_PIXEL_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def build_tokenizer(visual_tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer: lower case, punctuation apart, American spelling of colour accepted.

    Args:
        visual_tokens: The special tokens that stand for images and videos or stand around them.
    """
    special = (*SPECIAL_TOKENS, *visual_tokens)
    known = questions.vocabulary() | choices.vocabulary()
    words = [*special, *ROLES, *sorted(known - set(special) - set(ROLES))]
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
        additional_special_tokens=["<|im_start|>", *visual_tokens],
        padding_side="left",
        model_max_length=MAXIMUM_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def chat_template(image: str, video: str) -> str:
    """Return the chat template that writes ``image`` for every image and ``video`` for every video, then the text."""
    return _CHAT_TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)


def generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Return the options of ``generate``: short answers without chance."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def language_sizes(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the sizes of the language model for the words of ``tokenizer``, the same in every architecture."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAXIMUM_LENGTH,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }


def pixels_from_frames(frames: ByteArray, device: torch.device) -> torch.Tensor:
    """Normalise frames, uint8 [N, 96, 96, 3], as the processors do; float32 [N, 3, 96, 96]."""
    pixels = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 255.0
    mean = torch.tensor(_PIXEL_MEAN, device=device)[None, :, None, None]
    deviation = torch.tensor(_PIXEL_DEVIATION, device=device)[None, :, None, None]
    return ((pixels - mean) / deviation).contiguous()


def save_checkpoint(
    model: PreTrainedModel, processor: ProcessorMixin, folder: Path, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write the checkpoint in ``dtype`` beside ``folder``, then swap it in, so that no reader sees half of it."""
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = model.generation_config
    copy.to(dtype)

    def write(fresh: Path) -> None:
        copy.save_pretrained(fresh)
        (fresh / "model.safetensors").chmod(0o644)
        processor.save_pretrained(fresh)

    replace_folder(folder, write, stored_weights)


def load_checkpoint(
    folder: Path = CHECKPOINT_FOLDER, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load the model in ``dtype``, ready to answer, and its processor, without any network."""
    options = {"local_files_only": True, "trust_remote_code": False}
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, **options)
    processor = AutoProcessor.from_pretrained(folder, **options)
    model.eval()
    return model, processor


def question_prompt(processor: ProcessorMixin, question: str) -> str:
    """Return the text of one question about one video as the chat template writes it."""
    content = [{"type": "video"}, {"type": "text", "text": question}]
    message: dict[str, Any] = {"role": "user", "content": content}
    prompt: str = processor.apply_chat_template([message], add_generation_prompt=True)
    return prompt
