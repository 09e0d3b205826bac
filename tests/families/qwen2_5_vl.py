"""Qwen2.5-VL."""

from __future__ import annotations

import torch
from torch import Tensor

from families import PAD, FamilyCase, pad_left, text, widen

IMAGE, VIDEO, START, END = 296, 297, 298, 299
PATCH, MERGE = 4, 2
# Patches of a frame: windows of 4x4 patches do not divide it, so that edge windows are smaller.
ROWS, COLUMNS = 6, 10


def build(attention: str = "sdpa", dtype: torch.dtype = torch.float32, **overrides: object) -> torch.nn.Module:
    """8 encoder layers, of which 1, 3, 5 and 7 see the whole frame, and 5 decoder layers."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 8, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": PATCH,
            "spatial_merge_size": MERGE, "temporal_patch_size": 2, "window_size": 16, "out_hidden_size": 48,
            "fullatt_block_indexes": [1, 3, 5, 7], "tokens_per_second": 2,
        },
        text_config={
            "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 4096, "bos_token_id": None,
            "eos_token_id": None, "pad_token_id": PAD,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]},
        },
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END,
        **overrides,
    )  # fmt: skip
    model = widen(Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation=attention))
    model.generation_config.pad_token_id = PAD
    return model.to(dtype).eval()


def clip(frames: int = 12, seed: int = 0, rows: int = ROWS, columns: int = COLUMNS) -> Tensor:
    """[T, rows, columns, values] patches in the order of the processor (blocks of 2x2), of a few near-still scenes."""
    generator = torch.Generator().manual_seed(seed)
    values = 3 * 2 * PATCH**2
    scenes = torch.randn(1 + frames // 5, rows, columns, values, generator=generator)
    return scenes[torch.arange(frames) // 5] + 0.2 * torch.randn(frames, rows, columns, values, generator=generator)


def batch(samples: list[list[Tensor]], prefix: int = 5, suffix: int = 6) -> dict[str, Tensor]:
    """Left-padded prompts: text, then for each clip its placeholders between start and end, and some text."""
    rows, clips, seconds = [], [], []
    for number, sample in enumerate(samples):
        row = text(prefix + number, number)
        for place, pixels in enumerate(sample):
            tokens = pixels.shape[0] * pixels.shape[1] * pixels.shape[2] // MERGE**2
            row += [START, *[VIDEO] * tokens, END, *text(suffix, 100 * number + place)]
            clips.append(pixels)
            seconds.append(0.5 + 0.5 * place)
        rows.append(row)
    inputs = pad_left(rows)
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == VIDEO).int() * 2
    if clips:
        inputs["pixel_values_videos"] = torch.cat([pixels.flatten(0, 2) for pixels in clips])
        inputs["video_grid_thw"] = torch.tensor([list(pixels.shape[:3]) for pixels in clips])
        inputs["second_per_grid_ts"] = torch.tensor(seconds)
    return inputs


def stock_features(model: torch.nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    features = model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    return torch.cat(list(features.pooler_output))


def image(inputs: dict[str, Tensor], sample: int) -> dict[str, Tensor]:
    """A picture of 4x6 patches in front of a sample; the others are padded by as much."""
    picture = [START, *[IMAGE] * 6, END]
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    rows = []
    for number, (row, visible) in enumerate(zip(ids, mask, strict=True)):
        words = row[visible.bool()].tolist()
        rows.append([*words[:2], *picture, *words[2:]] if number == sample else words)
    changed = inputs | pad_left(rows)
    kinds = (changed["input_ids"] == VIDEO).int() * 2 + (changed["input_ids"] == IMAGE).int()
    pixels = torch.randn(24, 3 * 2 * PATCH**2, generator=torch.Generator().manual_seed(9))
    return changed | {
        "mm_token_type_ids": kinds, "pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 4, 6]])
    }  # fmt: skip


CASE = FamilyCase(
    build=build, clip=lambda frames, seed: clip(frames, seed), batch=batch, stock_features=stock_features, image=image
)
