"""LLaVA-OneVision of real sizes with random weights, and a synthetic clip as the processor hands it over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earlytom.bench import configurations

SIZES = {"0.5b": "llava-onevision-0.5b", "7b": "llava-onevision-7b", "tiny": "tiny"}
"""Configurations of LLaVA-OneVision by their size; "tiny" is for trying things out."""
PREFIX, SUFFIX = 14, 24
"""Prompt tokens before the video (template ``qwen_1_5``) and after it (a short question)."""


def build_model(size: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A stock LLaVA-OneVision with random weights, see `earlytom.bench.configurations.build_model`."""
    return configurations.build_model(SIZES[size], device=device, dtype=dtype)


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
