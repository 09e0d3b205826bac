"""InternVL: prompts as its processor writes them, one labelled picture a frame, in the ids of Qwen's vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import conftest
from families import PAD, FamilyCase, pad_left, text, widen

CONTEXT, IMG, END_IMG = 4499, 4497, 4498
LINE_BREAK, FRAME, COLON, SPACE, ZERO = 198, 4369, 25, 220, 15
TOKENS = 16
SIDE = 32


def build(
    attention: str = "sdpa", dtype: torch.dtype = torch.float32, language: str = "qwen2", **vision: object
) -> nn.Module:
    """8x8 patches of 4 pixels, 16 tokens a frame; CLS token and positions are not zero."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    torch.manual_seed(0)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4,
            "image_size": (SIDE, SIDE), "patch_size": (4, 4), "layer_scale_init_value": 0.5, **vision,
        },
        text_config={
            "model_type": language, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 5,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 4500,
            "max_position_embeddings": 4096, "bos_token_id": None, "eos_token_id": None, "pad_token_id": PAD,
        },
        image_token_id=CONTEXT, image_seq_length=TOKENS, tie_word_embeddings=False,
    )  # fmt: skip
    model = InternVLForConditionalGeneration._from_config(config, attn_implementation=attention)
    embeddings = model.model.vision_tower.embeddings
    with torch.no_grad():
        for parameter in (embeddings.cls_token, embeddings.position_embeddings):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.05)
    widen(model)
    model.generation_config.pad_token_id = PAD
    return model.to(dtype).eval()


def clip(frames: int, seed: int) -> Tensor:
    return conftest.clip(frames, seed, size=SIDE)


def picture(tiles: int = 1) -> list[int]:
    """What the processor writes for an image."""
    return [IMG, *[CONTEXT] * (TOKENS * tiles), END_IMG]


def label(number: int) -> list[int]:
    return [FRAME, *(ZERO + int(digit) for digit in str(number)), COLON, SPACE]


def video(frames: int) -> list[int]:
    """What the processor writes for a clip."""
    row: list[int] = []
    for number in range(1, frames + 1):
        row += [*([LINE_BREAK] if number > 1 else []), *label(number), *picture()]
    return row


def batch(samples: list[list[Tensor]]) -> dict[str, Tensor]:
    """Left-padded prompts; as the chat template does, a line break stands behind every clip."""
    rows, pictures = [], []
    for number, clips in enumerate(samples):
        row = [*text(4 + number, seed=number), LINE_BREAK]
        for place, frames in enumerate(clips):
            row += [*video(len(frames)), LINE_BREAK, *text(5, seed=10 * number + place + 1)]
            pictures.append(frames)
        rows.append(row)
    return pad_left(rows) | ({"pixel_values": torch.cat(pictures)} if pictures else {})


def stock_features(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return model.model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output.flatten(0, 1)


def image(inputs: dict[str, Tensor], sample: int) -> dict[str, Tensor]:
    """Three tiles (two and the thumbnail), behind the sample's first token."""
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    before = sum(row.count(CONTEXT) for row in rows[:sample]) // TOKENS
    rows[sample][1:1] = [*picture(3), LINE_BREAK]
    pixels = inputs["pixel_values"]
    tiles = torch.randn(3, *pixels.shape[1:], generator=torch.Generator().manual_seed(7)).to(pixels)
    return inputs | pad_left(rows) | {"pixel_values": torch.cat([pixels[:before], tiles, pixels[before:]])}


CASE = FamilyCase(build=build, clip=clip, batch=batch, stock_features=stock_features, image=image)
