"""Processor, tokenizer and chat template of a checkpoint: what is missing or broken is noticed before a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from earlytom.errors import ModelError, shown
from earlytom.models.checkpoint.files import PROCESSOR_NAMES, check_length, find, named, optional_object
from earlytom.models.checkpoint.templates import start_renderer, write_prompt

__all__ = ["check_prompt", "check_tokenizer_files", "load_processor", "prepare_template"]

_QUESTION = "earlytom-probe"
_PROBE = (4, 224, 224, 3)
# Larger than what any model takes, in pixels along a side and in all.
_SIDE, _AREA = 4096, 4096**2
_FRAMES = 100_000
_PICTURE_TOKENS = 1 << 16


def load_processor(path: str | Path, config: Any, processor_class: Any = None) -> Any:
    """The processor of a checkpoint, whose own code is never run.

    Args:
        path: a folder or a hub id.
        config: of its model.
        processor_class: where transformers does not know it.

    Raises:
        ModelError: files are missing or broken, or no prompt can be made with it; the message names the file.
    """
    found = {name: document for name in PROCESSOR_NAMES if (document := optional_object(path, name)) is not None}
    if not found:
        raise ModelError(f"the checkpoint holds no processor: none of {', '.join(PROCESSOR_NAMES)}")
    settings = optional_object(path, "tokenizer_config.json") or {}
    _check_class_name(settings.get("tokenizer_class"))
    for name in ("special_tokens_map.json", "added_tokens.json", "chat_template.json"):
        optional_object(path, name)
    if processor_class is None:
        processor_class = _processor_class({**found, "tokenizer_config.json": settings}, config)
    with named(f"the processor ({', '.join(found)}) or its tokenizer ({_tokenizer_file(path)}) cannot be loaded"):
        # Not AutoProcessor, which forgets on one of its ways that the checkpoint's code is not trusted.
        processor = processor_class.from_pretrained(path, trust_remote_code=False)
    for part in ("tokenizer", "video_processor"):
        if getattr(processor, part, None) is None:
            raise ModelError(f"the processor has no {part}: {', '.join(found)} in the checkpoint do not say one")
    check_tokenizer_files(path, processor.tokenizer)
    check_prompt(processor, config)
    return processor


def _check_class_name(name: Any) -> None:
    if name is not None and not isinstance(name, str):
        raise ModelError(f"tokenizer_class in tokenizer_config.json must be a name, got {shown(name)}")


def prepare_template(path: str | Path) -> None:
    """Have what renders a checkpoint's chat template ready by the time its weights are loaded.

    Raises:
        ModelError: the template cannot be read.
    """
    file = find(path, "chat_template.jinja")
    if file is None:
        return
    check_length(file, "chat_template.jinja")
    with named("the chat template (chat_template.jinja) cannot be read"):
        start_renderer(file.read_text(encoding="utf-8"))


def _processor_class(found: dict[str, dict[str, Any]], config: Any) -> Any:
    """The class that the files name, if transformers has it; else that of the model's type."""
    from transformers import ProcessorMixin
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name

    file, name = next(
        ((file, document["processor_class"]) for file, document in found.items() if document.get("processor_class")),
        ("config.json", None),
    )
    known = processor_class_from_name(name) if isinstance(name, str) else None
    if known is None and name is None and type(config) in PROCESSOR_MAPPING:
        known = PROCESSOR_MAPPING[type(config)]
    if not (isinstance(known, type) and issubclass(known, ProcessorMixin)):
        raise ModelError(f"processor_class in {file} must name a processor of transformers, got {shown(name)}")
    return known


def _tokenizer_file(path: str | Path) -> str:
    return "tokenizer.json" if find(path, "tokenizer.json") is not None else "no tokenizer.json"


def check_tokenizer_files(path: str | Path, tokenizer: Any) -> None:
    """Raise `ModelError` when the files of a tokenizer are missing: transformers then makes one without words."""
    files = dict(tokenizer.vocab_files_names)
    whole = files.pop("tokenizer_file", "tokenizer.json")
    missing = [name for name in files.values() if find(path, name) is None]
    if find(path, whole) is None and (missing or not files):
        raise ModelError(f"the checkpoint holds no tokenizer: neither {whole} nor {' and '.join(missing) or 'another'}")


def check_prompt(processor: Any, config: Any) -> None:
    """Raise `ModelError` unless a question about a video becomes a prompt with both, in words that the tokenizer has.

    Args:
        processor: of the checkpoint.
        config: of its model.
    """
    content = [{"type": "video"}, {"type": "text", "text": _QUESTION}]
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            "the checkpoint has no chat template: neither chat_template.jinja nor chat_template in "
            "processor_config.json or tokenizer_config.json"
        )
    with named("the chat template (chat_template.jinja) cannot be used"):
        prompt = write_prompt(processor, [{"role": "user", "content": content}])
    if _QUESTION not in prompt:
        raise ModelError("the chat template (chat_template.jinja) leaves out the question")
    token = getattr(processor, "video_token", None)
    if token is not None:
        if not isinstance(token, str) or not token:
            raise ModelError(f"video_token in processor_config.json must be a token, got {shown(token)}")
        if token not in prompt:
            raise ModelError(f"the chat template (chat_template.jinja) leaves out the video, {shown(token)}")
    for name in ("video_token", "image_token", "vision_start_token", "vision_end_token"):
        special = getattr(processor, name, None)
        if isinstance(special, str) and special:
            _check_token(special, (f"{name}_index", f"{name}_id"), processor.tokenizer, config)
    _check_words(processor.tokenizer, prompt)
    _check_size(getattr(processor.video_processor, "size", None) or {})
    _check_frames(getattr(processor.video_processor, "num_frames", None))
    for name in ("image_seq_length", "num_image_tokens"):
        _check_picture_tokens(name, getattr(processor, name, None))
    with named("the processor (processor_config.json) cannot take a video"):
        inputs = processor(
            text=[prompt],
            videos=[torch.zeros(_PROBE, dtype=torch.uint8).numpy()],
            video_metadata=[{"total_num_frames": 4, "fps": 1.0, "duration": 4.0, "frames_indices": [0, 1, 2, 3]}],
            do_sample_frames=False,
            return_tensors="pt",
        )
    _check_ids(inputs["input_ids"], processor, config)


def _check_size(size: Any) -> None:
    """Refuse pictures larger than any model takes before one is made."""
    sides = {name: size.get(name) for name in ("height", "width", "shortest_edge", "longest_edge")}
    # Where there is a longest edge, both are areas.
    limits = {"shortest_edge": _AREA if sides["longest_edge"] else _SIDE, "height": _SIDE, "width": _SIDE}
    for name, limit in limits.items():
        side = sides[name]
        if side is not None and not (isinstance(side, int) and 1 <= side <= limit):
            raise ModelError(
                f"{name} of the size in processor_config.json must be an integer from 1 to {limit}, got {shown(side)}"
            )


def _check_frames(frames: Any) -> None:
    if frames is not None and not (isinstance(frames, int) and 1 <= frames <= _FRAMES):
        raise ModelError(f"num_frames in processor_config.json must be from 1 to {_FRAMES}, got {shown(frames)}")


def _check_picture_tokens(name: str, tokens: Any) -> None:
    """A picture's placeholders are written into the prompt, and a tokenizer without memory ends the process."""
    if tokens is not None and not (isinstance(tokens, int) and 0 <= tokens <= _PICTURE_TOKENS):
        raise ModelError(
            f"{name} in processor_config.json must be an integer from 0 to {_PICTURE_TOKENS}, got {shown(tokens)}"
        )


def _check_ids(ids: Any, processor: Any, config: Any) -> None:
    """Raise `ModelError` for a word of the tokenizer that the model does not have, which would end a CUDA context."""
    rows = config.get_text_config().vocab_size
    visual = [getattr(processor, name, None) for name in ("video_token_id", "image_token_id")]
    words = [one for one in ids.flatten().tolist() if one not in visual]
    if max(words) >= rows:
        raise ModelError(
            f"the tokenizer (tokenizer.json) gives the token {max(words)}, but vocab_size in config.json is {rows}"
        )


def _check_token(token: str, keys: tuple[str, str], tokenizer: Any, config: Any) -> None:
    """Tokenizer and model have to mean the same by a special token; the model has its id under one of ``keys``."""
    with named(f"the tokenizer (tokenizer.json) and {shown(token)}"):
        own = tokenizer.convert_tokens_to_ids(token)
    for key in keys:
        said = vars(config).get(key)
        if said is not None and own != said:
            raise ModelError(f"{key} in config.json is {shown(said)}, but the tokenizer's {shown(token)} is {own}")


def _check_words(tokenizer: Any, prompt: str) -> None:
    with named("the tokenizer (tokenizer.json) cannot be used"):
        ids = tokenizer(prompt)["input_ids"]
    unknown = tokenizer.unk_token_id
    if not ids or all(one == unknown for one in ids):
        raise ModelError(f"the tokenizer (tokenizer.json) knows nothing of a prompt; it has {len(tokenizer)} tokens")
