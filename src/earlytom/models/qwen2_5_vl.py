"""Qwen2.5-VL: stock ``Qwen2_5_VLForConditionalGeneration`` of any size.

A frame is one temporal grid, two sampled frames. The encoder packs the patches of all frames into one sequence, in an
order that makes its attention windows contiguous; a few layers see the whole frame, and only their attention can rank
its tokens. The merger makes one token of 2x2 patches; positions have three axes and are kept (`earlytom.models.mrope`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from earlytom.errors import ModelError
from earlytom.models.base import FrameVisitor
from earlytom.models.language_model import StockLanguageModel
from earlytom.models.mrope import (
    CLIP_ARGUMENTS,
    assemble_prompt,
    clip_patches,
    packed_grids,
    packed_prompt,
)
from earlytom.models.packed_vision import FrameLayout, frame_shape, mean_of_patches, run_block
from earlytom.models.prompt import HostPrompt, keep_first, shorten_prompt
from earlytom.types import EncoderShape, FrameGrid, KeptTokens, PrefillInputs

__all__ = ["Qwen25VLAdapter"]


class Qwen25VLAdapter(StockLanguageModel):
    """Implements `earlytom.models.base.ModelAdapter`."""

    clip_arguments = CLIP_ARGUMENTS
    sequential_positions = False

    def check(self, model: nn.Module) -> None:
        vision = cast(Any, model).config.vision_config
        if not any(index < vision.depth for index in vision.fullatt_block_indexes):
            raise ModelError(
                "the vision encoder has no layer whose attention spans the whole frame (fullatt_block_indexes "
                f"{vision.fullatt_block_indexes}, depth {vision.depth}), so its tokens cannot be ranked"
            )

    def encoder(self, model: nn.Module) -> EncoderShape:
        vision = cast(Any, model).config.vision_config
        whole = tuple(sorted(index for index in vision.fullatt_block_indexes if index < vision.depth))
        return EncoderShape(depth=vision.depth, global_layers=whole, token_merging=False, pooling_head=False)

    def prompt(self, model: nn.Module, inputs: Mapping[str, Any]) -> HostPrompt | None:
        return packed_prompt(model, inputs)

    def grids(self, model: nn.Module, inputs: Mapping[str, Any], prompt: HostPrompt) -> list[FrameGrid]:
        return packed_grids(model, inputs, prompt)

    def encode(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        grids: Sequence[FrameGrid],
        clips: Sequence[int],
        visitor: FrameVisitor,
    ) -> Tensor:
        visual = cast(Any, model).model.visual
        patches = clip_patches(model, inputs, grids, clips)
        hidden = visual.patch_embed(patches.type(visual.dtype))
        layout = self._layout(visual, grids[clips[0]], hidden)
        if visitor.plan.fingerprint:
            visitor.receive_pixels(patches.unflatten(0, (-1, layout.patches)))
        whole = self.encoder(model).global_layers or ()
        hidden = layout.to_sequence(hidden)
        for index, block in enumerate(visual.blocks):
            hidden = run_block(block, index, hidden, layout, visitor, whole=index in whole)
            frames, _ = visitor.after_layer(index, hidden.unflatten(0, (-1, layout.patches)))
            hidden = frames.flatten(0, 1)
        return hidden.unflatten(0, (-1, layout.patches))

    def project(self, model: nn.Module, hidden: Tensor, grid: FrameGrid) -> Tensor:
        visual = cast(Any, model).model.visual
        layout = self._layout(visual, grid, hidden)
        return layout.to_raster(visual.merger(hidden.flatten(0, 1)).unflatten(0, (hidden.shape[0], -1)))

    def project_tokens(self, model: nn.Module, hidden: Tensor) -> Tensor:
        raise ModelError("Qwen2.5-VL projects blocks of 2x2 patches, which merged tokens are not")

    def pool_attention(self, model: nn.Module, attention: Tensor, grid: FrameGrid) -> Tensor:
        return mean_of_patches(attention, self._layout(cast(Any, model).model.visual, grid, attention))

    def assemble(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        prompt: HostPrompt,
        grids: Sequence[FrameGrid],
        kept: Sequence[KeptTokens],
    ) -> PrefillInputs:
        is_video = prompt.ids == cast(Any, model).config.video_token_id
        keep = keep_first(is_video, [grid.tokens for grid in grids], [tokens.features.shape[0] for tokens in kept])
        short = shorten_prompt(keep, is_video, pad_right=prompt.right_padded)

        def with_images(short_ids: Tensor, embeds: Tensor) -> Tensor:
            return _with_images(cast(Any, model), inputs, short_ids, embeds)

        return assemble_prompt(model, inputs, prompt, grids, kept, short, with_images)

    @staticmethod
    def _layout(visual: Any, grid: FrameGrid, like: Tensor) -> FrameLayout:
        """The sequence of one frame, from stock's own arithmetic on a clip of a single frame."""
        from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

        config, shape = visual.config, frame_shape(grid, visual.config.spatial_merge_size)
        order, ends = get_vision_window_index(
            shape,
            spatial_merge_size=config.spatial_merge_size,
            window_size=config.window_size,
            patch_size=config.patch_size,
        )
        positions = get_vision_position_ids(shape, config.spatial_merge_size).to(like.device, non_blocking=True)
        unit = config.spatial_merge_size**2
        cos, sin = (
            part.unflatten(0, (-1, unit))[order.to(part.device, non_blocking=True)].flatten(0, 1)
            for part in visual.rotary_pos_emb(like, positions)
        )
        return FrameLayout(
            patches=grid.tokens_per_frame * unit,
            unit=unit,
            order=order.to(like.device, non_blocking=True),
            windows=tuple(ends.diff().tolist()),
            cosines=cos,
            sines=sin,
        )


def _with_images(model: Any, inputs: Mapping[str, Any], short_ids: Tensor, embeds: Tensor) -> Tensor:
    """Images of the same prompt go in as stock puts them, untouched."""
    if inputs.get("pixel_values") is None:
        return embeds
    features = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
    is_image = (short_ids == model.config.image_token_id).unsqueeze(-1).to(embeds.device)
    return embeds.masked_scatter(is_image, torch.cat(list(features)).to(embeds))
