"""Prompts with one clip, made on the device without decoder and processor, which a bare interpreter may lack."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from earlytom.models.llava_video.layout import VideoLayout

# Text tokens: the system prompt with what stands before the clip, and a short question with what stands behind it.
PREFIX, SUFFIX = 14, 27
_SCENES = 4
_NOISE = 0.02


def make_inputs(model: Any, frames: int, *, height: int, width: int) -> dict[str, Tensor]:
    """What the family's processor would make of a clip, on the model's device, in its dtype.

    Args:
        model: LLaVA-OneVision, LLaVA-Video or Qwen2.5-VL.
        frames: sampled frames; an even number for Qwen2.5-VL.
        height: pixels of a frame; families whose frames are square in one size take that one.
        width: likewise.

    Raises:
        ValueError: another family.
    """
    family = model.config.model_type
    if family in ("llava_onevision", "llava_video"):
        return _square_inputs(model, frames)
    if family == "qwen2_5_vl":
        return _packed_inputs(model, frames, height, width)
    raise ValueError(f"there are inputs of llava_onevision, llava_video and qwen2_5_vl, got {family!r}")


def make_frames(frames: int, height: int, width: int, device: torch.device) -> Tensor:
    """[frames, 3, height, width] float32 of about unit variance, the same for one kind of device.

    Four scenes with hard cuts between them; each stands still under faint noise for half of its time, and then pans.
    """
    generator = torch.Generator(device).manual_seed(0)
    made = torch.empty(frames, 3, height, width, device=device)
    edges = [round(scene * frames / _SCENES) for scene in range(_SCENES + 1)]
    for first, last in pairwise(edges):
        wide, moving = _wide_picture(height, 2 * width, generator), (last - first) // 2
        for place, left in enumerate(_pan(last - first, moving, width)):
            noise = torch.randn(3, height, width, generator=generator, device=device)
            made[first + place] = wide[:, :, left : left + width] + _NOISE * noise
    return made


def _pan(frames: int, moving: int, room: int) -> Iterator[int]:
    """How far each frame of a scene is to the right: first it stands still."""
    for frame in range(frames):
        yield max(0, frame - (frames - moving) + 1) * room // max(1, moving)


def _wide_picture(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Coarse colours and fine texture, [3, height, width]."""
    layers = []
    for cells, weight in ((6, 1.0), (24, 0.6), (96, 0.4)):
        noise = torch.randn(1, 3, cells, 2 * cells, generator=generator, device=generator.device)
        layers.append(weight * torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear")[0])
    return torch.stack(layers).sum(0)


def _square_inputs(model: Any, frames: int) -> dict[str, Tensor]:
    config, size = model.config, model.config.vision_config.image_size
    side = size // config.vision_config.patch_size
    if config.model_type == "llava_video":
        layout = VideoLayout.of(config)
        rows = layout.pooled(side)
        newlines = {"grid": frames * rows, "frame": frames, "one_token": 1, "no_token": 0}[layout.newlines]
    else:
        rows, newlines = -(-side // 2), 1
    pixels = make_frames(frames, size, size, model.device)[None].to(model.dtype)
    return _prompt(model, [config.video_token_id] * (frames * rows**2 + newlines)) | {"pixel_values_videos": pixels}


def _packed_inputs(model: Any, frames: int, height: int, width: int) -> dict[str, Tensor]:
    config, vision = model.config, model.config.vision_config
    pixels = make_frames(frames, height, width, model.device)
    patches, grid = _patches(pixels, vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
    tokens = patches.shape[0] // vision.spatial_merge_size**2
    video = [config.vision_start_token_id, *[config.video_token_id] * tokens, config.vision_end_token_id]
    inputs = _prompt(model, video)
    return inputs | {
        "mm_token_type_ids": (inputs["input_ids"] == config.video_token_id).int() * 2,
        "pixel_values_videos": patches.to(model.dtype),
        "video_grid_thw": torch.tensor([grid], device=model.device),
        "second_per_grid_ts": torch.tensor([1.0], device=model.device),
    }


def _patches(pixels: Tensor, patch: int, temporal: int, merge: int) -> tuple[Tensor, list[int]]:
    """[T, 3, H, W] pixels as the processor packs them: blocks of ``merge`` x ``merge`` patches; and the grid."""
    frames, channels, height, width = pixels.shape
    grids, rows, columns = frames // temporal, height // patch, width // patch
    split = pixels.view(grids, temporal, channels, rows // merge, merge, patch, columns // merge, merge, patch).permute(
        0, 3, 6, 4, 7, 2, 1, 5, 8
    )
    return split.reshape(grids * rows * columns, channels * temporal * patch**2), [grids, rows, columns]


def _prompt(model: Any, video: list[int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    # Below what means something special in every family's vocabulary.
    highest = min(model.config.video_token_id, model.config.get_text_config().vocab_size) // 2
    text = torch.randint(1, highest, (PREFIX + SUFFIX,), generator=generator).tolist()
    ids = torch.tensor([[*text[:PREFIX], *video, *text[PREFIX:]]], device=model.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
