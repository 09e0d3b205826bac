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
