"""LLaVA-Video: 9x9 patches, of which average pooling drops the last row and column, and a newline after each row."""

from __future__ import annotations

import torch
from torch import Tensor

from conftest import clip
from families import PAD, FamilyCase, pad_left, text, widen

VIDEO = 299
SIDE, POOLED = 9, 4


def build(attention: str = "sdpa", dtype: torch.dtype = torch.float32, **overrides: object) -> torch.nn.Module:
    """8 encoder and 5 decoder layers."""
    from earlytom.models.llava_video.model import LlavaVideoConfig, LlavaVideoForConditionalGeneration

    torch.manual_seed(0)
    config = LlavaVideoConfig(
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8,
            "num_attention_heads": 4, "image_size": 4 * SIDE, "patch_size": 4, "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2", "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 5,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 4096,
            "bos_token_id": None, "eos_token_id": None, "pad_token_id": PAD,
        },
        image_token_index=-200, video_token_index=VIDEO,
        **{"spatial_pool_mode": "average", "newline_position": "grid", **overrides},
    )  # fmt: skip
    model = widen(LlavaVideoForConditionalGeneration._from_config(config, attn_implementation=attention))
    model.generation_config.pad_token_id = PAD
    return model.to(dtype).eval()


def batch(samples: list[list[Tensor]], per_frame: int = POOLED * (POOLED + 1), prefix: int = 5, suffix: int = 6):
    """Left-padded prompts: text, then for each clip its placeholders and some text."""
    rows, clips = [], []
    for number, sample in enumerate(samples):
        row = text(prefix + number, number)
        for place, pixels in enumerate(sample):
            row += [VIDEO] * (len(pixels) * per_frame) + text(suffix, 100 * number + place)
            clips.append(pixels)
        rows.append(row)
    inputs = pad_left(rows)
    return inputs | ({"pixel_values_videos": torch.stack(clips)} if clips else {})


def stock_features(model: torch.nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return model.model.get_video_features(inputs["pixel_values_videos"]).pooler_output.flatten(0, 1)


CASE = FamilyCase(
    build=build,
    clip=lambda frames, seed: clip(frames, seed, size=4 * SIDE),
    batch=batch,
    stock_features=stock_features,
)
