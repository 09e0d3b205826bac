"""LLaVA-Video: `earlytom.models.llava_video.model.LlavaVideoForConditionalGeneration` of any size.

The encoder is LLaVA-OneVision's. What differs is the pooling, and the newline embeddings: with one after each row,
rows of which nothing is left lose theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from earlytom.errors import CompressionError, ModelError
from earlytom.models.llava_onevision import LlavaOnevisionAdapter
from earlytom.models.llava_video.layout import VideoLayout
from earlytom.models.llava_video.model import LlavaVideoForConditionalGeneration, text_embeddings
from earlytom.models.prompt import HostPrompt, check_placeholders, keep_first, prefill_inputs, shorten_prompt
from earlytom.types import FrameGrid, KeptTokens, PrefillInputs

__all__ = ["LlavaVideoAdapter"]

# Arguments of generate() and forward() that are used up here: the prompt leaves with its features in place.
_CONSUMED = (
    "pixel_values",
    "pixel_values_videos",
    "image_sizes_videos",
    "vision_feature_layer",
    "vision_feature_select_strategy",
    "vision_aspect_ratio",
    "inputs_embeds",
)


class LlavaVideoAdapter(LlavaOnevisionAdapter):
    """Implements `earlytom.models.base.ModelAdapter`."""

    def check(self, model: nn.Module) -> None:
        if not isinstance(model, LlavaVideoForConditionalGeneration):
            raise ModelError(
                f"expected a {LlavaVideoForConditionalGeneration.__name__}, got {type(model).__name__}; pass the model "
                "itself, not a part of it (what a wrapper is around: PEFT's model.get_base_model(), others' .module)"
            )
        super().check(model)
        layer = cast(Any, model).config.vision_feature_layer
        if layer != -1:
            raise ModelError(f"LLaVA-Video takes the last layer's output: vision_feature_layer must be -1, got {layer}")
        VideoLayout.of(cast(Any, model).config).pooled(self._side(model))

    def prompt(self, model: nn.Module, inputs: Mapping[str, Any]) -> HostPrompt | None:
        if inputs.get("pixel_values") is not None:
            raise CompressionError("images are not supported with LLaVA-Video; give a video of one frame instead")
        return super().prompt(model, inputs)

    def grids(self, model: nn.Module, inputs: Mapping[str, Any], prompt: HostPrompt) -> list[FrameGrid]:
        videos, frames = inputs["pixel_values_videos"].shape[:2]
        layout = VideoLayout.of(cast(Any, model).config)
        side = layout.pooled(self._side(model))
        grids = [FrameGrid(frames=frames, rows=side, columns=side)] * videos
        is_video = prompt.ids == cast(Any, model).config.video_token_id
        check_placeholders(is_video, sum(map(layout.length, grids)), len(grids))
        return grids

    def pool_attention(self, model: nn.Module, attention: Tensor, grid: FrameGrid) -> Tensor:
        return VideoLayout.of(cast(Any, model).config).pool(attention[..., None], self._side(model))[..., 0]

    def assemble(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        prompt: HostPrompt,
        grids: Sequence[FrameGrid],
        kept: Sequence[KeptTokens],
    ) -> PrefillInputs:
        config, inner = cast(Any, model).config, cast(Any, model).model
        layout = VideoLayout.of(config)
        sequences = [
            layout.sequence(tokens.features, tokens.places, grid, inner.image_newline)
            for tokens, grid in zip(kept, grids, strict=True)
        ]
        is_video = prompt.ids == config.video_token_id
        keep = keep_first(is_video, [layout.length(grid) for grid in grids], [len(rows) for rows in sequences])
        short = shorten_prompt(keep, is_video, pad_right=prompt.right_padded)
        device = inputs["input_ids"].device
        short_ids = short.take(prompt.ids, 0).to(device, non_blocking=True)
        embeds = text_embeddings(model, short_ids)
        places = (short_ids == config.video_token_id).unsqueeze(-1).to(embeds.device)
        embeds = embeds.masked_scatter(places, torch.cat(sequences).to(embeds))
        return prefill_inputs(inputs, prompt, short, embeds, _CONSUMED)
