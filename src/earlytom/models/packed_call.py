"""Calls of the Qwen-VL families: packed patches with a ``video_grid_thw``, and positions with three axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.layouts.mrope import given_positions, next_positions, short_positions, text_positions
from earlytom.layouts.prompt import (
    HostPrompt,
    ShortPrompt,
    check_placeholders,
    clip_positions,
    keep_first,
    shorten_prompt,
)
from earlytom.models.base import VideoCall
from earlytom.models.prefill import check_loaded, check_mask, check_overrides, check_promises, put_features
from earlytom.types import FrameGrid, KeptTokens, PrefillInputs

__all__ = ["PackedCall", "read_packed_prompt"]

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
# What grids and positions are made from.
_ON_HOST = ("video_grid_thw", "image_grid_thw", "second_per_grid_ts", "position_ids")
_TEXT, _IMAGE, _VIDEO = 0, 1, 2


def read_packed_prompt(model: Any, inputs: Mapping[str, Any]) -> HostPrompt | None:
    """See `earlytom.models.base.Host.open`."""
    ids, pixels = inputs.get("input_ids"), inputs.get("pixel_values_videos")
    if pixels is None:
        check_promises(inputs, model.config.video_token_id)
        return None
    if ids is None or inputs.get("video_grid_thw") is None:
        missing = "input_ids" if ids is None else "video_grid_thw"
        raise CompressionError(f"pixel_values_videos was given without {missing}; pass the processor's whole output")
    check_overrides(inputs)
    check_mask(inputs)
    check_loaded(model.get_input_embeddings().weight, pixels)
    return HostPrompt.of(inputs, *_ON_HOST)


class PackedCall(VideoCall):
    """Implements `earlytom.models.base.VideoCall`; the placeholders of a clip stand together."""

    def read_grids(self) -> list[FrameGrid]:
        merge = self.config.vision_config.spatial_merge_size
        shapes: list[list[int]] = self.prompt.others["video_grid_thw"].tolist()
        _check_patches(self.inputs["pixel_values_videos"], shapes)
        grids = [FrameGrid(frames=time, rows=rows // merge, columns=columns // merge) for time, rows, columns in shapes]
        check_placeholders(self.is_video, sum(grid.tokens for grid in grids), len(grids))
        return grids

    def pixels(self, clips: Sequence[int]) -> Tensor:
        """[F, L, values] patches; those of a temporal grid behind one another."""
        packed: Tensor = self.inputs["pixel_values_videos"]
        unit = self.config.vision_config.spatial_merge_size**2
        if len(clips) == len(self.grids):
            packed = packed.flatten(0, -2)
        else:
            sizes = [grid.tokens * unit for grid in self.grids]
            # One clip that is expanded over the calls must not be copied for each.
            parts = packed if set(sizes) == set(packed.shape[1:-1]) else packed.flatten(0, -2).split(sizes)
            packed = torch.cat([parts[clip] for clip in clips])
        return packed.unflatten(0, (-1, self.grids[clips[0]].tokens_per_frame * unit))

    def assemble(self, kept: Sequence[KeptTokens]) -> PrefillInputs:
        keep = keep_first(self.is_video, [grid.tokens for grid in self.grids], [len(one.features) for one in kept])
        short = shorten_prompt(keep, self.is_video, pad_right=self.prompt.right_padded)
        return self.prefill(short, kept, self.image_features())

    @cached_property
    def is_video(self) -> Tensor:
        """[B, S] bool on the host: the placeholders of videos."""
        return self.prompt.ids == self.config.video_token_id

    @cached_property
    def clip_positions(self) -> list[Tensor]:
        """For each clip the places of its placeholders, [tokens] int64 into the flattened prompts."""
        return clip_positions(self.is_video, self.grids)

    def image_features(self) -> Tensor | None:
        """[I, C] features of the images of the same prompt, from stock; ``None`` where there are none."""
        if self.inputs.get("pixel_values") is None:
            return None
        output = self.model.model.get_image_features(self.inputs["pixel_values"], self.inputs["image_grid_thw"])
        return torch.cat(list(output.pooler_output))

    def prefill(self, short: ShortPrompt, kept: Sequence[KeptTokens], images: Tensor | None) -> PrefillInputs:
        """Embeddings, mask and positions of a shortened prompt, as stock would have made them for all of it.

        Args:
            short: what stays of the prompt: for each clip as many placeholders as tokens are kept.
            kept: the tokens of each clip that stay, ``features`` as wide as the language model.
            images: [I, C] features of images.
        """
        device = self.inputs["input_ids"].device
        mask = short.take(self.prompt.mask, 0)
        whole = self._positions()
        positions = short_positions(whole, self.clip_positions, [one.places for one in kept], short, device)
        count = text_positions(mask).to(device, non_blocking=True)
        arguments = {key: value for key, value in self.inputs.items() if key not in _CONSUMED}
        arguments |= {
            "inputs_embeds": self._embed(short, torch.cat([one.features for one in kept]), images),
            "attention_mask": mask.to(device, non_blocking=True),
            "position_ids": torch.cat([count[None], positions]),
        }
        return PrefillInputs(
            arguments=arguments,
            visual_positions=short.visual_positions,
            dropped=short.dropped,
            next_position=next_positions(whole, self.prompt.mask).to(device, non_blocking=True),
            prompt_positions=short.prompt_positions,
        )

    def _embed(self, short: ShortPrompt, videos: Tensor, images: Tensor | None) -> Tensor:
        ids = short.take(self.prompt.ids, 0).to(self.inputs["input_ids"].device, non_blocking=True)
        embeds = self.model.get_input_embeddings()(ids)
        if images is not None:
            embeds = put_features(embeds, ids == self.config.image_token_id, images)
        return put_features(embeds, ids == self.config.video_token_id, videos)

    def _positions(self) -> Tensor:
        """[3, B, S] int64 on the host: the positions of the uncompressed prompt, the caller's own where given."""
        given, prompt = self.prompt.others.get("position_ids"), self.prompt
        if given is not None:
            return given_positions(given, prompt.ids.shape)
        kinds = torch.full_like(prompt.ids, _TEXT, dtype=torch.int32)
        kinds[prompt.ids == self.config.image_token_id] = _IMAGE
        kinds[self.is_video] = _VIDEO
        merge = self.config.vision_config.spatial_merge_size
        videos = torch.tensor([[grid.frames, grid.rows * merge, grid.columns * merge] for grid in self.grids])
        positions, _ = self.model.model.get_rope_index(
            prompt.ids,
            mm_token_type_ids=kinds,
            image_grid_thw=prompt.others.get("image_grid_thw"),
            video_grid_thw=videos,
            second_per_grid_ts=prompt.others.get("second_per_grid_ts"),
            attention_mask=prompt.mask,
        )
        return positions


def _check_patches(pixels: Tensor, shapes: Sequence[Sequence[int]]) -> None:
    """Raise `CompressionError` unless there are the patches that ``video_grid_thw`` speaks of."""
    patches = sum(frames * rows * columns for frames, rows, columns in shapes)
    shared = pixels.dim() == 3 and pixels.shape[0] == len(shapes)
    if pixels.dim() not in (2, 3) or not (pixels.dim() == 2 or shared) or pixels.numel() != patches * pixels.shape[-1]:
        raise CompressionError(
            f"pixel_values_videos must hold the {patches} patches that video_grid_thw {shapes} speaks of, as "
            f"[patches, values] or, for clips of one size, [videos, patches, values]; got {tuple(pixels.shape)}"
        )
