"""Qwen3-VL."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from families import PAD, FamilyCase, pad_left, text, widen
from families.qwen2_5_vl import END, IMAGE, MERGE, PATCH, START, VIDEO, clip, image

TIMESTAMP = 3
"""Tokens of the text that stands before every frame."""


def build(
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    deepstack: tuple[int, ...] = (2, 5),
    layers: int = 5,
    **overrides: object,
) -> torch.nn.Module:
    """8 encoder layers, of which the outputs of 2 and 5 are set aside for DeepStack, and ``layers`` decoder layers."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    config = Qwen3VLConfig(
        vision_config={
            "depth": 8, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": PATCH,
            "spatial_merge_size": MERGE, "temporal_patch_size": 2, "out_hidden_size": 48,
            "num_position_embeddings": 64, "deepstack_visual_indexes": list(deepstack),
        },
        text_config={
            "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": layers, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 300, "max_position_embeddings": 4096,
            "bos_token_id": None, "eos_token_id": None, "pad_token_id": PAD,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]},
        },
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END,
        **overrides,
    )  # fmt: skip
    model = widen(Qwen3VLForConditionalGeneration._from_config(config, attn_implementation=attention))
    model.generation_config.pad_token_id = PAD
    return model.to(dtype).eval()


def batch(samples: list[list[Tensor]], prefix: int = 5, suffix: int = 6) -> dict[str, Tensor]:
    """Left-padded prompts: text, then for each clip its frames, each behind a timestamp, and some text."""
    rows, clips = [], []
    for number, sample in enumerate(samples):
        row = text(prefix + number, number)
        for place, pixels in enumerate(sample):
            for frame in range(pixels.shape[0]):
                tokens = pixels.shape[1] * pixels.shape[2] // MERGE**2
                row += [*text(TIMESTAMP, 7000 + frame), START, *[VIDEO] * tokens, END]
            row += text(suffix, 100 * number + place)
            clips.append(pixels)
        rows.append(row)
    inputs = pad_left(rows)
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == VIDEO).int() * 2
    if clips:
        inputs["pixel_values_videos"] = torch.cat([pixels.flatten(0, 2) for pixels in clips])
        inputs["video_grid_thw"] = torch.tensor([list(pixels.shape[:3]) for pixels in clips])
    return inputs


def stock_features(model: torch.nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    features = model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    return torch.cat(list(features.pooler_output))


CASE = FamilyCase(
    # As many DeepStack features as the published models have, and so deep that PyramidDrop acts behind them.
    build=partial(build, deepstack=(1, 3, 5), layers=12),
    clip=lambda frames, seed: clip(frames, seed),
    batch=batch,
    stock_features=stock_features,
    image=image,
)
