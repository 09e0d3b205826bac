"""The published checkpoints' sizes, built on the meta device: shapes without weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from _models import PREFIX, SIZES, SUFFIX

# Sizes of the configuration files that the checkpoints are published with.
_QWEN2_5_VL_VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "out_hidden_size": 3584,
    "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
}  # fmt: skip
_QWEN2_5_VL_TEXT = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 128000,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}  # fmt: skip


def llava_onevision(size: str) -> Any:
    """LLaVA-OneVision ``"7b"`` or ``"0.5b"``."""
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    vision, text = SIZES[size]
    config = LlavaOnevisionConfig(
        vision_config=dict(vision), text_config=dict(text), image_token_index=text["vocab_size"] - 2,
        video_token_index=text["vocab_size"] - 1, image_grid_pinpoints=[[384, 384]], vision_feature_layer=-1,
        vision_feature_select_strategy="full", tie_word_embeddings=text["tie_word_embeddings"],
    )  # fmt: skip
    return _build(LlavaOnevisionForConditionalGeneration, config)


def qwen2_5_vl() -> Any:
    """Qwen2.5-VL-7B."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(vision_config=_QWEN2_5_VL_VISION, text_config=_QWEN2_5_VL_TEXT)
    return _build(Qwen2_5_VLForConditionalGeneration, config)


def llava_video() -> Any:
    """LLaVA-Video-7B, with average pooling and a newline behind every row."""
    from earlytom.models.llava_video.model import LlavaVideoConfig, LlavaVideoForConditionalGeneration

    vision, text = SIZES["7b"]
    config = LlavaVideoConfig(
        vision_config=dict(vision), text_config=dict(text) | {"vocab_size": 152064}, image_token_index=152000,
        video_token_index=152001, spatial_pool_mode="average", newline_position="grid", vision_feature_layer=-1,
        vision_feature_select_strategy="full", tie_word_embeddings=False,
    )  # fmt: skip
    return _build(LlavaVideoForConditionalGeneration, config)


def qwen3_vl() -> Any:
    """Qwen3-VL-8B."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vision = {
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 4096, "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    }  # fmt: skip
    text = {
        "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    }  # fmt: skip
    return _build(Qwen3VLForConditionalGeneration, Qwen3VLConfig(vision_config=vision, text_config=text))


def internvl() -> Any:
    """InternVL3-8B."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    vision = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": [448, 448], "patch_size": [14, 14], "attention_bias": True,
    }  # fmt: skip
    text = dict(SIZES["7b"][1]) | {"vocab_size": 151674}
    config = InternVLConfig(vision_config=vision, text_config=text, image_token_id=151667)
    return _build(InternVLForConditionalGeneration, config)


def _build(model_class: Any, config: Any) -> Any:
    with torch.device("meta"):
        return model_class._from_config(config, attn_implementation="sdpa", dtype=torch.bfloat16).eval()


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
