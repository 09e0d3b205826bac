"""Models of real sizes with random weights, and a synthetic clip: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26,
    "num_attention_heads": 16, "image_size": 384, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
_QWEN = {
    "model_type": "qwen2", "max_position_embeddings": 32768, "rope_theta": 1e6, "use_sliding_window": False,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
# Vision and language parts of llava-hf/llava-onevision-qwen2-{0.5b,7b}-ov-hf; "tiny" is for trying things out.
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "0.5b": (_SIGLIP, _QWEN | {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "vocab_size": 152000, "tie_word_embeddings": True,
    }),
    "7b": (_SIGLIP, _QWEN | {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152128, "tie_word_embeddings": False,
    }),
    "tiny": (
        _SIGLIP | {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4, "image_size": 98},
        _QWEN | {
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 1000, "tie_word_embeddings": True,
        },
    ),
}  # fmt: skip
PREFIX, SUFFIX = 14, 24
"""Prompt tokens before the video (template ``qwen_1_5``) and after it (a short question)."""


def build_model(size: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A stock LLaVA-OneVision with random weights that keep activations finite, attention uneven and logits distinct.

    Weights are normal with variance 1 / fan-in, biases zero, norms one; the same on every run of a device.
    """
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    vision, text = SIZES[size]
    pixels = vision["image_size"]
    config = LlavaOnevisionConfig(
        vision_config=dict(vision), text_config=dict(text), image_token_index=text["vocab_size"] - 2,
        video_token_index=text["vocab_size"] - 1, image_grid_pinpoints=[[pixels, pixels]], vision_feature_layer=-1,
        vision_feature_select_strategy="full", tie_word_embeddings=text["tie_word_embeddings"],
    )  # fmt: skip
    with torch.device(device):
        model = LlavaOnevisionForConditionalGeneration._from_config(config, attn_implementation="sdpa", dtype=dtype)
    _fill(model, device)
    model.generation_config.pad_token_id = 0
    return model.to(device).eval()


@torch.no_grad()
def _fill(model: torch.nn.Module, device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.weight.normal_(std=0.02, generator=generator)
        elif isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.weight.normal_(std=(module.weight.numel() / module.weight.shape[0]) ** -0.5, generator=generator)
            if module.bias is not None:
                module.bias.zero_()


def build_inputs(model: Any, frames: int, scenes: str) -> dict[str, Tensor]:
    """A prompt with one clip, as the processor makes it, on the model's device."""
    config = model.config
    pixels = build_clip(frames, config.vision_config.image_size, scenes)
    side = -(-(config.vision_config.image_size // config.vision_config.patch_size) // 2)
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(1, config.text_config.vocab_size - 2, (PREFIX + SUFFIX,), generator=generator)
    video = torch.full((frames * side * side + 1,), config.video_token_id)
    ids = torch.cat([text[:PREFIX], video, text[PREFIX:]])[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["pixel_values_videos"] = pixels[None].to(model.dtype)
    return {name: value.to(model.device) for name, value in inputs.items()}


def build_clip(frames: int, size: int, scenes: str) -> Tensor:
    """[frames, 3, size, size] normalised pixels, the same on every machine.

    ``mixed``: three scenes with hard cuts between them: the first 3/8 of the clip static, then 3/16 of a pan, then 7/16
    static. Static means one picture under noise that grows from frame to frame, as a scene drifts away from where it
    began: neighbours are alike, more so than the ends of a segment, which is the redundancy that the method looks for.
    ``static``: one such scene. ``cuts``: every frame another picture, so that nothing can merge (the worst case).
    """
    if scenes == "cuts":
        return torch.stack([_picture(number, size) for number in range(frames)])
    first, second = (frames * 3 // 8, frames * 9 // 16) if scenes == "mixed" else (frames, frames)
    output = []
    for frame in range(frames):
        if frame < first:
            output.append(_static(0, frame, size))
        elif frame < second:
            wide = _picture(1, 2 * size)
            shift = (frame - first) * size // 24
            output.append(wide[:, size // 2 : size // 2 + size, shift : shift + size])
        else:
            output.append(_static(2, frame - second, size))
    return torch.stack(output)


def _static(scene: int, frame: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * (scene + 1) + frame)
    noise = torch.randn(3, size, size, generator=generator)
    return _picture(scene, size) + min(0.4, 0.04 * (frame + 1)) * noise


def _picture(seed: int, size: int) -> Tensor:
    """Coarse colours and fine texture, [3, size, size], of about unit variance."""
    generator = torch.Generator().manual_seed(100 + seed)
    layers = []
    for cells, weight in ((6, 1.2), (24, 0.8), (96, 0.5)):
        noise = torch.randn(1, 3, cells, cells, generator=generator)
        layers.append(weight * torch.nn.functional.interpolate(noise, size=(size, size), mode="bilinear"))
    return torch.stack(layers).sum(0)[0]
