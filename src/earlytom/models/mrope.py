"""Prompts of the Qwen-VL families: positions with three axes (time, row, column), and what stays of them.

Kept tokens keep the positions that they have in the uncompressed prompt (of merged frames those of the earliest), and
so does the text behind them, from which decoding goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import CompressionError, ModelError
from earlytom.models.prompt import HostPrompt, ShortPrompt, check_placeholders
from earlytom.types import FrameGrid, KeptTokens, PrefillInputs

__all__ = [
    "CLIP_ARGUMENTS",
    "assemble_prompt",
    "clip_patches",
    "clip_positions",
    "packed_grids",
    "packed_prompt",
]

CLIP_ARGUMENTS = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")

# Arguments of stock generate() and forward() that are used up here: the prompt leaves with its features in place.
_CONSUMED = (
    "pixel_values",
    "image_grid_thw",
    "pixel_values_videos",
    "video_grid_thw",
    "second_per_grid_ts",
    "mm_token_type_ids",
    "inputs_embeds",
)
# What positions are made from.
_ON_HOST = ("image_grid_thw", "second_per_grid_ts", "position_ids")
_TEXT, _IMAGE, _VIDEO = 0, 1, 2


def packed_prompt(model: Any, inputs: Mapping[str, Any]) -> HostPrompt | None:
    """See `ModelAdapter.prompt`; for families whose videos are packed patches with a ``video_grid_thw``."""
    ids, pixels, config = inputs.get("input_ids"), inputs.get("pixel_values_videos"), model.config
    if pixels is None:
        promised = ids is not None and inputs.get("inputs_embeds") is None and (ids == config.video_token_id).any()
        if promised or (inputs.get("mm_encoder_outputs") or {}).get("video") is not None:
            raise CompressionError(
                "the prompt holds video placeholders but pixel_values_videos is missing, so nothing could be "
                "compressed; pass the processor's whole output (for a further turn: the whole history with its video, "
                "not the cache of a compressed call)"
            )
        return None
    if ids is None or inputs.get("video_grid_thw") is None:
        missing = "input_ids" if ids is None else "video_grid_thw"
        raise CompressionError(f"pixel_values_videos was given without {missing}; pass the processor's whole output")
    for name in ("inputs_embeds", "mm_encoder_outputs", "labels"):
        if inputs.get(name) is not None:
            raise CompressionError(f"{name} cannot be given together with a video that is to be compressed")
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape != ids.shape:
        raise CompressionError(
            f"attention_mask must have the shape of input_ids, {tuple(ids.shape)}, got {tuple(mask.shape)}"
        )
    if model.get_input_embeddings().weight.is_meta:
        raise ModelError("a model with offloaded weights cannot be compressed; load it whole")
    return HostPrompt(
        ids=ids.cpu(),
        mask=torch.ones_like(ids, device="cpu") if mask is None else mask.cpu(),
        others={name: torch.as_tensor(inputs[name]).cpu() for name in _ON_HOST if inputs.get(name) is not None},
    )


def packed_grids(model: Any, inputs: Mapping[str, Any], prompt: HostPrompt) -> list[FrameGrid]:
    """See `ModelAdapter.grids`."""
    merge = model.config.vision_config.spatial_merge_size
    shapes: list[list[int]] = inputs["video_grid_thw"].tolist()
    pixels: Tensor = inputs["pixel_values_videos"]
    patches = sum(frames * rows * columns for frames, rows, columns in shapes)
    shared = pixels.dim() == 3 and pixels.shape[0] == len(shapes)
    if pixels.dim() not in (2, 3) or not (pixels.dim() == 2 or shared) or pixels.numel() != patches * pixels.shape[-1]:
        raise CompressionError(
            f"pixel_values_videos must hold the {patches} patches that video_grid_thw {shapes} speaks of, as "
            f"[patches, values] or, for clips of one size, [videos, patches, values]; got {tuple(pixels.shape)}"
        )
    grids = [FrameGrid(frames=time, rows=rows // merge, columns=columns // merge) for time, rows, columns in shapes]
    check_placeholders(prompt.ids == model.config.video_token_id, sum(grid.tokens for grid in grids), len(grids))
    return grids


def clip_patches(model: Any, inputs: Mapping[str, Any], grids: Sequence[FrameGrid], clips: Sequence[int]) -> Tensor:
    """The patches of some clips, [patches, values], those of all their frames behind one another."""
    pixels: Tensor = inputs["pixel_values_videos"].flatten(0, -2)
    if len(clips) == len(grids):
        return pixels
    unit = model.config.vision_config.spatial_merge_size**2
    parts = pixels.split([grid.tokens * unit for grid in grids])
    return torch.cat([parts[clip] for clip in clips])


def clip_positions(is_video: Tensor, grids: Sequence[FrameGrid]) -> list[Tensor]:
    """For each clip the places of its placeholders, [tokens] int64 into the flattened [B, S] prompts."""
    return list(is_video.flatten().nonzero().flatten().split([grid.tokens for grid in grids]))


def assemble_prompt(
    model: Any,
    inputs: Mapping[str, Any],
    prompt: HostPrompt,
    grids: Sequence[FrameGrid],
    kept: Sequence[KeptTokens],
    short: ShortPrompt,
    with_images: Callable[[Tensor, Tensor], Tensor],
) -> PrefillInputs:
    """Embeddings, mask and positions of a shortened prompt, as stock would have made them for all of it.

    Args:
        model: the model.
        inputs: of the call.
        prompt: on the host.
        grids: the uncompressed clips.
        kept: the tokens of each clip that stay, ``features`` as wide as the language model.
        short: what stays of the prompt: for each clip as many placeholders as tokens are kept.
        with_images: takes shortened ids [B, S'] and embeddings [B, S', C], returns these with images in place.
    """
    device, config = inputs["input_ids"].device, model.config
    short_ids = short.take(prompt.ids, 0).to(device, non_blocking=True)
    embeds = with_images(short_ids, model.get_input_embeddings()(short_ids))
    places = (short_ids == config.video_token_id).unsqueeze(-1).to(embeds.device)
    embeds = embeds.masked_scatter(places, torch.cat([tokens.features for tokens in kept]).to(embeds))
    mask = short.take(prompt.mask, 0)
    whole = _positions(model, prompt, grids)
    positions = _short_positions(whole, prompt, config, grids, kept, short, device)
    # Stock counts text positions besides, which tell packed sequences apart; padding has 0.
    count = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0).to(device, non_blocking=True)
    arguments = {key: value for key, value in inputs.items() if key not in _CONSUMED}
    arguments |= {
        "inputs_embeds": embeds,
        "attention_mask": mask.to(device, non_blocking=True),
        "position_ids": torch.cat([count[None], positions]),
    }
    # Stock goes on behind the highest position of the whole prompt, which may be that of a token that is gone.
    highest = whole.masked_fill(prompt.mask == 0, -1).amax(dim=(0, 2))
    return PrefillInputs(
        arguments=arguments,
        visual_positions=short.visual_positions,
        dropped=short.dropped,
        next_position=(highest[:, None] + 1).to(device, non_blocking=True),
        prompt_positions=short.prompt_positions,
    )


def _positions(model: Any, prompt: HostPrompt, grids: Sequence[FrameGrid]) -> Tensor:
    """[3, B, S] int64 on the host: the positions of the uncompressed prompt, the caller's own where given."""
    given = prompt.others.get("position_ids")
    if given is not None:
        if given.dim() != 3 or given.shape[0] not in (3, 4) or given.shape[1:] != prompt.ids.shape:
            raise CompressionError(
                f"position_ids must be [3, {', '.join(map(str, prompt.ids.shape))}] or the same with text positions "
                f"in front, got {tuple(given.shape)}"
            )
        return given[-3:]
    kinds = torch.full_like(prompt.ids, _TEXT, dtype=torch.int32)
    kinds[prompt.ids == model.config.image_token_id] = _IMAGE
    kinds[prompt.ids == model.config.video_token_id] = _VIDEO
    merge = model.config.vision_config.spatial_merge_size
    videos = torch.tensor([[grid.frames, grid.rows * merge, grid.columns * merge] for grid in grids])
    positions, _ = model.model.get_rope_index(
        prompt.ids,
        mm_token_type_ids=kinds,
        image_grid_thw=prompt.others.get("image_grid_thw"),
        video_grid_thw=videos,
        second_per_grid_ts=prompt.others.get("second_per_grid_ts"),
        attention_mask=prompt.mask,
    )
    return positions


def _short_positions(
    positions: Tensor,
    prompt: HostPrompt,
    config: Any,
    grids: Sequence[FrameGrid],
    kept: Sequence[KeptTokens],
    short: ShortPrompt,
    device: torch.device,
) -> Tensor:
    """[3, B, S'] int64: what stays of ``positions``. Which tokens of a clip these are is only known on the device."""
    batch, length = prompt.ids.shape
    source = (short.index + torch.arange(batch)[:, None] * length).to(device, non_blocking=True)
    width = short.index.shape[1]
    visual = [row * width + place for row, places in enumerate(short.visual_positions) for place in places]
    clips = clip_positions(prompt.ids == config.video_token_id, grids)
    chosen = [
        clip.to(device, non_blocking=True)[tokens.places.to(device, non_blocking=True)]
        for clip, tokens in zip(clips, kept, strict=True)
    ]
    source.view(-1)[torch.tensor(visual).to(device, non_blocking=True)] = torch.cat(chosen)
    gathered = positions.flatten(1).to(device, non_blocking=True)[:, source.flatten()].view(3, batch, width)
    return gathered.masked_fill(short.filler.to(device, non_blocking=True), 0)
