"""Reading a LLaVA-Video checkpoint in the layout that it was published in, weights into stock modules."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import ModelError, shown
from earlytom.models.checkpoint.files import find, named, optional_object, read_object, read_settings, reason
from earlytom.models.checkpoint.prompts import check_prompt, check_tokenizer_files
from earlytom.models.checkpoint.settings import check_generation, check_sizes, hints
from earlytom.models.checkpoint.weights import listed, stored_weights
from earlytom.models.checkpoint.writing import clear_leftovers, replace_folder
from earlytom.models.llava_video.layout import VideoLayout
from earlytom.models.llava_video.model import LlavaVideoConfig, LlavaVideoForConditionalGeneration
from earlytom.models.llava_video.processor import CHAT_TEMPLATE, LlavaVideoProcessor, add_video_token
from earlytom.models.llava_video.published import (
    check_settings,
    is_published_layout,
    is_surplus,
    published_name,
    text_settings,
    vision_settings,
)

__all__ = ["Converted", "convert", "load_published"]

_FRAMES = 64


def load_published(
    path: str | Path, settings: Mapping[str, Any], *, dtype: torch.dtype | None, attention: str | None
) -> tuple[LlavaVideoForConditionalGeneration, LlavaVideoProcessor]:
    """Load a model and its processor from a checkpoint in LLaVA's own layout.

    Args:
        path: a folder or a hub id.
        settings: its ``config.json``, changed as wanted.
        dtype: of the weights; as stored if ``None``.
        attention: transformers' attention implementation; its default if ``None``.

    Raises:
        ModelError: a file is missing or broken, the configuration asks for what is not supported, or weights are
            missing, unknown or of the wrong shape; the message names them.
    """
    check_settings(settings)
    check_generation(optional_object(path, "generation_config.json"))
    stored = stored_weights(path)
    check_sizes(settings, stored)
    tokenizer, weights = _load_tokenizer(path), stored.load()
    with named(f"config.json and {stored}"):
        config = _make_config(settings, weights, add_video_token(tokenizer))
        state = _rename(weights, config, hints(settings, stored))
        model = LlavaVideoForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype or _stored_dtype(state), attn_implementation=attention
        )
        model.generation_config = _generation_config(path, settings, tokenizer)
    processor = _make_processor(settings, config, tokenizer)
    check_prompt(processor, config)
    return model, processor


def _load_tokenizer(path: str | Path) -> Any:
    # Not AutoTokenizer, which would want to know the type in config.json.
    from transformers import Qwen2TokenizerFast

    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"):
        optional_object(path, name)
    check_tokenizer_files(path, Qwen2TokenizerFast)
    with named("the tokenizer (tokenizer.json, or vocab.json and merges.txt) cannot be loaded"):
        return Qwen2TokenizerFast.from_pretrained(str(path), padding_side="left", trust_remote_code=False)


def _make_config(settings: Mapping[str, Any], weights: Mapping[str, Tensor], video_token: int) -> LlavaVideoConfig:
    text = text_settings(settings)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    return LlavaVideoConfig(
        text_config={"model_type": "qwen2", **text},
        vision_config={"model_type": "siglip_vision_model", **vision_settings(settings, shapes)},
        tie_word_embeddings=text.get("tie_word_embeddings", False),
        video_token_index=video_token,
        image_token_index=-200,  # that of the original, which no prompt holds
        spatial_pool_mode=settings.get("mm_spatial_pool_mode", "bilinear"),
        spatial_pool_stride=settings.get("mm_spatial_pool_stride", 2),
        newline_position=settings.get("mm_newline_position", "one_token"),
    )


def _rename(weights: Mapping[str, Tensor], config: LlavaVideoConfig, hint: str) -> dict[str, Tensor]:
    """The weights by the names of the model. Raises `ModelError` unless they are exactly those that it has.

    Args:
        weights: by their published names.
        config: of the model.
        hint: for the error about their shapes.
    """
    # Not by transformers' key_mapping: it only warns of missing and unknown weights, also takes those that already have
    # the model's names, and lets save_pretrained write the published names, which from_pretrained does not know.
    with torch.device("meta"):
        wanted = LlavaVideoForConditionalGeneration(config).state_dict()
    names = {published_name(own): own for own in wanted}
    _check_names(weights, names, config)
    state = {own: weights[name] for name, own in names.items() if name in weights}
    _check_shapes(state, wanted, hint)
    return state


def _check_names(stored: Collection[str], wanted: Collection[str], config: LlavaVideoConfig) -> None:
    """Raise `ModelError` unless all wanted weights are there, by their published names, and none that are unknown."""
    layers = config.vision_config.num_hidden_layers
    unknown = [name for name in stored if name not in wanted and not is_surplus(name, layers)]
    if unknown:
        raise ModelError(f"the checkpoint holds weights that LLaVA-Video does not have: {listed(unknown)}")
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    missing = [name for name in wanted if name not in stored and name not in tied]
    if missing:
        raise ModelError(f"the checkpoint lacks weights: {listed(missing)}")


def _check_shapes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], hint: str) -> None:
    """Raise `ModelError` naming the weights, by their published names, that are of another shape than the model's."""
    wrong = [
        f"{published_name(name)} is {tuple(tensor.shape)}, config.json says {tuple(wanted[name].shape)}"
        for name, tensor in state.items()
        if tensor.shape != wanted[name].shape
    ]
    if wrong:
        raise ModelError(f"weights and config.json differ: {listed(wrong)}{hint}")


def _stored_dtype(state: Mapping[str, Tensor]) -> torch.dtype:
    return state["model.language_model.embed_tokens.weight"].dtype


def _generation_config(path: str | Path, settings: Mapping[str, Any], tokenizer: Any) -> Any:
    """The checkpoint's, or what its ``config.json`` says of the end of an answer."""
    from transformers import GenerationConfig

    if find(path, "generation_config.json") is not None:
        found = GenerationConfig.from_pretrained(str(path))
    else:
        found = GenerationConfig(**{key: settings.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")})
    if found.pad_token_id is None:
        found.pad_token_id = tokenizer.pad_token_id
    return found


def _make_processor(settings: Mapping[str, Any], config: LlavaVideoConfig, tokenizer: Any) -> LlavaVideoProcessor:
    from transformers import LlavaOnevisionVideoProcessor

    size = config.vision_config.image_size
    video_processor = LlavaOnevisionVideoProcessor(
        size={"height": size, "width": size}, image_mean=[0.5] * 3, image_std=[0.5] * 3, num_frames=_FRAMES
    )
    return LlavaVideoProcessor(
        tokenizer=tokenizer,
        video_processor=video_processor,
        chat_template=CHAT_TEMPLATE,
        patches_per_side=size // config.vision_config.patch_size,
        spatial_pool_mode=config.spatial_pool_mode,
        spatial_pool_stride=config.spatial_pool_stride,
        newline_position=config.newline_position,
        add_time_instruction=bool(settings.get("add_time_instruction", True)),
    )


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        destination: the folder.
        parameters: number of weights; dtype: their type.
        bytes: size of the weight files.
        vision_layers: layers of the vision tower that run; language_layers: of the language model.
        pool_mode: how frames are pooled; newline_position: where newlines stand.
        tokens_per_frame: visual tokens of a frame, newlines not counted.
        prompt_tokens: positions of a video of ``frames`` frames in the prompt, newlines included.
        frames: frames that are sampled when nothing else is asked for.
    """

    destination: Path
    parameters: int
    dtype: str
    bytes: int
    vision_layers: int
    language_layers: int
    pool_mode: str
    newline_position: str
    tokens_per_frame: int
    prompt_tokens: int
    frames: int


def convert(
    source: str | Path,
    destination: Path,
    *,
    force: bool = False,
    pool_mode: str | None = None,
    newline_position: str | None = None,
) -> Converted:
    """Write a checkpoint in LLaVA's own layout anew, as ``save_pretrained`` does, in the type that it is stored in.

    Args:
        source: a folder or a hub id.
        destination: the folder to write; it is made.
        force: put it in the place of a folder that holds something; what is no checkpoint in there stays.
        pool_mode: instead of the checkpoint's ``mm_spatial_pool_mode``.
        newline_position: instead of its ``mm_newline_position``.

    Raises:
        ModelError: the source cannot be converted, the destination is not free, or the disk is full; the destination
            is then as it was.
    """
    try:
        clear_leftovers(destination)
        _check_destination(source, destination, force=force)
    except (OSError, RuntimeError, ValueError) as error:
        cause = getattr(error, "strerror", None) or reason(error).partition(" from ")[0]
        raise ModelError(f"the destination {shown(str(destination))} cannot be written: {cause}") from error
    try:
        settings = _published_settings(source)
        changes = {"mm_spatial_pool_mode": pool_mode, "mm_newline_position": newline_position}
        settings |= {key: value for key, value in changes.items() if value is not None}
        model, processor = load_published(source, settings, dtype=None, attention=None)

        def write(folder: Path) -> None:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)

        with named("it cannot be written"):
            replace_folder(destination, write, lambda folder: _check_written(folder, model))
    except ModelError as error:
        raise ModelError(f"cannot convert {shown(str(source))}: {error}") from error.__cause__
    config, frames = model.config, processor.video_processor.num_frames
    layout = VideoLayout.of(config)
    return Converted(
        destination=destination,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        bytes=sum(file.stat().st_size for file in destination.glob("*.safetensors")),
        vision_layers=config.vision_config.num_hidden_layers,
        language_layers=config.text_config.num_hidden_layers,
        pool_mode=layout.pool_mode,
        newline_position=layout.newlines,
        tokens_per_frame=layout.pooled(processor.patches_per_side) ** 2,
        prompt_tokens=processor.placeholders(frames),
        frames=frames,
    )


def _check_written(folder: Path, model: LlavaVideoForConditionalGeneration) -> None:
    """Raise `ModelError` unless a folder holds all weights of a model, and settings that can be read."""
    stored, tied = stored_weights(folder).shapes, set(model.all_tied_weights_keys)
    for name, value in model.state_dict().items():
        if stored.get(name) != tuple(value.shape) and name not in tied:
            raise ModelError(f"{name} was written as {stored.get(name)} instead of {tuple(value.shape)}")
    for name in ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json"):
        read_object(folder / name)


def _published_settings(source: str | Path) -> dict[str, Any]:
    settings = read_settings(source)
    if not is_published_layout(settings):
        raise ModelError(
            f"it holds a model of type {shown(settings.get('model_type'))}, which needs no conversion; only "
            "checkpoints in LLaVA's own layout do (llava_qwen)"
        )
    return settings


def _check_destination(source: str | Path, destination: Path, *, force: bool) -> None:
    name = shown(str(destination))
    if destination.exists() and not destination.is_dir():
        raise ModelError(f"the destination {name} is a file; give a folder")
    if os.path.exists(source):  # False, too, for what is too long for a path
        target, origin = destination.resolve(), Path(source).resolve()
        if target == origin or (destination.exists() and destination.samefile(source)):
            raise ModelError(f"the destination {name} is the source; give another folder")
        if origin in target.parents or target in origin.parents:
            inner, outer = ("destination", "source") if origin in target.parents else ("source", "destination")
            raise ModelError(f"the {inner} lies inside the {outer}: {name}; give another folder")
    if destination.is_dir() and any(destination.iterdir()) and not force:
        raise ModelError(f"the destination {name} is not empty; give another folder, or --force")
