"""The published checkpoints' sizes, built on the meta device: shapes without weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from _models import PREFIX, SIZES, SUFFIX
from earlytom.bench.configurations import build_model, find_configuration


def llava_onevision(size: str) -> Any:
    """LLaVA-OneVision ``"7b"`` or ``"0.5b"``."""
    return _shapes(SIZES[size])


def qwen2_5_vl() -> Any:
    """Qwen2.5-VL-7B."""
    return _shapes("qwen2.5-vl-7b")


def llava_video() -> Any:
    """LLaVA-Video-7B, with average pooling and a newline behind every row."""
    return _shapes("llava-video-7b")


def qwen3_vl() -> Any:
    """Qwen3-VL-8B."""
    return _shapes("qwen3-vl-8b")


def internvl() -> Any:
    """InternVL3-8B."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    vision = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": [448, 448], "patch_size": [14, 14], "attention_bias": True,
    }  # fmt: skip
    text = find_configuration(SIZES["7b"]).configure().text_config.to_dict() | {"vocab_size": 151674}
    config = InternVLConfig(vision_config=vision, text_config=text, image_token_id=151667)
    with torch.device("meta"):
        made = InternVLForConditionalGeneration._from_config(config, attn_implementation="sdpa", dtype=torch.bfloat16)
    return made.eval()


def _shapes(name: str) -> Any:
    return build_model(name, device="meta", dtype=torch.bfloat16)


def frame_inputs(model: Any, frames: int, placeholders: int, size: int) -> dict[str, Tensor]:
    """A prompt with one clip of square frames, one after another."""
    pixels = torch.empty(1, frames, 3, size, size, device="meta", dtype=model.dtype)
    return _prompt(model, placeholders) | {"pixel_values_videos": pixels}


def packed_inputs(model: Any, grids: int, height: int, width: int) -> dict[str, Tensor]:
    """A prompt with one clip of packed patches: temporal grids of ``height`` x ``width`` pixels."""
    vision = model.config.vision_config
    rows, columns = height // vision.patch_size, width // vision.patch_size
    values = 3 * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.empty(grids * rows * columns, values, device="meta", dtype=model.dtype)
    prompt = _prompt(model, grids * rows * columns // vision.spatial_merge_size**2)
    return prompt | {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([[grids, rows, columns]])}


def _prompt(model: Any, placeholders: int) -> dict[str, Tensor]:
    ids = [*[1] * PREFIX, *[model.config.video_token_id] * placeholders, *[1] * SUFFIX]
    return {"input_ids": torch.tensor([ids])}


def timestamped_inputs(model: Any, grids: int, height: int, width: int) -> dict[str, Tensor]:
    """Like `packed_inputs`, with a text of three tokens and a marker before each grid, and a marker behind it."""
    inputs = packed_inputs(model, grids, height, width)
    config, placeholders = model.config, inputs["video_grid_thw"][0, 1:].prod() // 4
    grid = [2, 3, 4, config.vision_start_token_id, *[config.video_token_id] * placeholders, config.vision_end_token_id]
    return inputs | {"input_ids": torch.tensor([[*[1] * PREFIX, *grid * grids, *[1] * SUFFIX]])}


def labelled_inputs(model: Any, frames: int, size: int) -> dict[str, Tensor]:
    """Frames as InternVL's processor labels them: "Frame1: <img>", placeholders, "</img>" and a line break between."""
    rows: list[int] = []
    for number in range(1, frames + 1):
        digits = [15 + int(digit) for digit in str(number)]
        rows += [198] * (number > 1) + [4369, *digits, 25, 220, 151665, *[model.config.image_token_id] * 256, 151666]
    pixels = torch.empty(frames, 3, size, size, device="meta", dtype=model.dtype)
    return {"input_ids": torch.tensor([[*[1] * PREFIX, *rows, *[1] * SUFFIX]]), "pixel_values": pixels}
