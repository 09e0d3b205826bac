"""LLaVA-OneVision: stock ``LlavaOnevisionForConditionalGeneration`` of any size.

SigLIP tower, MLP projector, bilinear 2x2 pooling, one ``image_newline`` embedding at the end of every clip. Frames are
the batch dimension of the tower, so frames that merge simply leave it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from earlytom.errors import CompressionError, ModelError
from earlytom.models.attention import (
    captured_outputs,
    find_pooling_head,
    head_attention,
    heads_mean,
    heads_received_attention,
)
from earlytom.models.base import FrameVisitor
from earlytom.models.language_model import StockLanguageModel
from earlytom.models.merging_layer import check_token_merging, run_merging_layer
from earlytom.models.prompt import HostPrompt, check_placeholders, keep_first, prefill_inputs, shorten_prompt
from earlytom.ops import pool_bilinear
from earlytom.types import EncoderShape, FrameGrid, KeptTokens, PrefillInputs

__all__ = ["LlavaOnevisionAdapter"]

# Arguments of stock generate() and forward() that are used up here: the prompt leaves with its features in place.
_CONSUMED = (
    "pixel_values",
    "image_sizes",
    "batch_num_images",
    "pixel_values_videos",
    "image_sizes_videos",
    "vision_feature_layer",
    "vision_feature_select_strategy",
    "vision_aspect_ratio",
    "inputs_embeds",
)
# Overrides that stock accepts per call; the adapter follows the configuration only.
_OVERRIDES = ("vision_feature_layer", "vision_feature_select_strategy", "vision_aspect_ratio")


class LlavaOnevisionAdapter(StockLanguageModel):
    """Implements `earlytom.models.base.ModelAdapter`."""

    clip_arguments = ("pixel_values_videos",)
    sequential_positions = True

    def check(self, model: nn.Module) -> None:
        config = cast(Any, model).config
        tower = config.vision_config.model_type
        if tower not in ("siglip_vision_model", "siglip"):
            raise ModelError(f"LLaVA-OneVision is supported with a SigLIP tower, this checkpoint has {tower!r}")
        strategy = config.vision_feature_select_strategy
        if strategy != "full":
            raise ModelError(
                f"vision_feature_select_strategy must be 'full' (SigLIP has no CLS token), got {strategy!r}"
            )

    def encoder(self, model: nn.Module) -> EncoderShape:
        return EncoderShape(depth=max(self._feature_layers(model)))

    def prompt(self, model: nn.Module, inputs: Mapping[str, Any]) -> HostPrompt | None:
        ids, pixels = inputs.get("input_ids"), inputs.get("pixel_values_videos")
        config = cast(Any, model).config
        if pixels is None:
            promised = ids is not None and inputs.get("inputs_embeds") is None and (ids == config.video_token_id).any()
            if promised or (inputs.get("mm_encoder_outputs") or {}).get("video") is not None:
                raise CompressionError(
                    "the prompt holds video placeholders but pixel_values_videos is missing, so nothing could be "
                    "compressed; pass the processor's whole output (for a further turn: the whole history with its "
                    "video, not the cache of a compressed call)"
                )
            return None
        if ids is None:
            raise CompressionError("pixel_values_videos was given without input_ids; pass the processor's whole output")
        self._check_call(inputs, pixels, config.vision_config.image_size)
        mask = inputs.get("attention_mask")
        if mask is not None and mask.shape != ids.shape:
            raise CompressionError(
                f"attention_mask must have the shape of input_ids, {tuple(ids.shape)}, got {tuple(mask.shape)}"
            )
        if cast(Any, model).model.image_newline.is_meta:
            raise ModelError("a model with offloaded weights cannot be compressed; load it whole")
        return HostPrompt(ids=ids.cpu(), mask=torch.ones_like(ids, device="cpu") if mask is None else mask.cpu())

    def grids(self, model: nn.Module, inputs: Mapping[str, Any], prompt: HostPrompt) -> list[FrameGrid]:
        videos, frames = inputs["pixel_values_videos"].shape[:2]
        side = math.ceil(self._side(model) / 2)
        grids = [FrameGrid(frames=frames, rows=side, columns=side)] * videos
        is_video = prompt.ids == cast(Any, model).config.video_token_id
        check_placeholders(is_video, sum(grid.tokens + 1 for grid in grids), len(grids))
        return grids

    def encode(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        grids: Sequence[FrameGrid],
        clips: Sequence[int],
        visitor: FrameVisitor,
    ) -> Tensor:
        # All frames have one size here, so that ``clips`` are all the clips there are.
        inner = cast(Any, model).model
        wanted, collected = self._feature_layers(model), {}
        check_token_merging(visitor.plan, inner.vision_tower.config._attn_implementation)
        if visitor.plan.pooling_head:
            find_pooling_head(inner.vision_tower)  # refused before the layers have run
        pixels = inputs["pixel_values_videos"].flatten(0, 1)
        if visitor.plan.fingerprint:
            visitor.receive_pixels(pixels)
        hidden = inner.vision_tower.embeddings(pixels)
        for index, layer in enumerate(inner.vision_tower.encoder.layers[: max(wanted)]):
            if index in wanted:
                collected[index] = hidden
            if visitor.plan.token_layers:
                hidden, others = run_merging_layer(layer, index, hidden, list(collected.values()), visitor)
                collected = dict(zip(collected, others, strict=True))
            elif index == visitor.plan.attention_layer:
                attention = layer.self_attn
                with captured_outputs(attention.q_proj, attention.k_proj) as captured:
                    hidden = layer(hidden, attention_mask=None)
                received = partial(
                    heads_received_attention, *captured, heads=attention.num_heads, scale=attention.scale
                )
                visitor.receive_attention(received)
                if visitor.plan.keys:
                    visitor.receive_keys(partial(heads_mean, captured[1], heads=attention.num_heads))
            else:
                hidden = layer(hidden, attention_mask=None)
            hidden, others = visitor.after_layer(index, hidden, list(collected.values()))
            collected = dict(zip(collected, others, strict=True))
        if visitor.plan.pooling_head:
            visitor.receive_pooling(partial(head_attention, inner.vision_tower, hidden))
        collected[max(wanted)] = hidden
        return (
            hidden if len(wanted) == 1 else torch.cat([collected[index].to(hidden.device) for index in wanted], dim=-1)
        )

    def project(self, model: nn.Module, hidden: Tensor, grid: FrameGrid) -> Tensor:
        inner = cast(Any, model).model
        return cast(Tensor, inner.apply_pooling(inner.multi_modal_projector(hidden)))

    def project_tokens(self, model: nn.Module, hidden: Tensor) -> Tensor:
        return cast(Tensor, cast(Any, model).model.multi_modal_projector(hidden))

    def pool_attention(self, model: nn.Module, attention: Tensor, grid: FrameGrid) -> Tensor:
        side = self._side(model)
        return pool_bilinear(attention, side=side, pooled=(math.ceil(side / 2), math.ceil(side / 2)))

    def assemble(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        prompt: HostPrompt,
        grids: Sequence[FrameGrid],
        kept: Sequence[KeptTokens],
    ) -> PrefillInputs:
        config = cast(Any, model).config
        is_video = prompt.ids == config.video_token_id
        after = [tokens.features.shape[0] + 1 for tokens in kept]
        keep = keep_first(is_video, [grid.tokens + 1 for grid in grids], after)
        short = shorten_prompt(keep, is_video, pad_right=prompt.right_padded)
        device = inputs["input_ids"].device
        short_ids = short.take(prompt.ids, 0).to(device, non_blocking=True)
        embeds = cast(Any, model).get_input_embeddings()(short_ids)
        embeds = self._with_images(model, inputs, short_ids, embeds)
        places = (short_ids == config.video_token_id).unsqueeze(-1).to(embeds.device)
        embeds = embeds.masked_scatter(places, self._with_newlines(model, kept).to(embeds))
        return prefill_inputs(inputs, prompt, short, embeds, _CONSUMED)

    @staticmethod
    def _side(model: nn.Module) -> int:
        vision = cast(Any, model).config.vision_config
        return int(vision.image_size // vision.patch_size)

    @staticmethod
    def _feature_layers(model: nn.Module) -> list[int]:
        """Hidden states in use, as "after this many layers" (transformers counts from the end or the start)."""
        layer = cast(Any, model).config.vision_feature_layer
        depth = len(cast(Any, model).model.vision_tower.encoder.layers)
        return [index if index >= 0 else depth + 1 + index for index in ([layer] if isinstance(layer, int) else layer)]

    @staticmethod
    def _check_call(inputs: Mapping[str, Any], pixels: Any, image_size: int) -> None:
        for name in ("inputs_embeds", "mm_encoder_outputs", "labels"):
            if inputs.get(name) is not None:
                raise CompressionError(f"{name} cannot be given together with a video that is to be compressed")
        for name in _OVERRIDES:
            if inputs.get(name) is not None:
                raise CompressionError(
                    f"{name} cannot be overridden per call while compressing; set it in model.config"
                )
        shape = tuple(getattr(pixels, "shape", ()))
        if len(shape) != 5 or 0 in shape:
            raise CompressionError(
                f"pixel_values_videos must be [videos, frames, channels, height, width], got {shape}"
            )
        if shape[-2:] != (image_size, image_size):
            raise CompressionError(f"video frames must be {image_size} x {image_size} pixels, got {shape[-2:]}")

    @staticmethod
    def _with_newlines(model: nn.Module, kept: Sequence[KeptTokens]) -> Tensor:
        newline = cast(Any, model).model.image_newline
        return torch.cat([torch.cat((tokens.features, newline[None].to(tokens.features.device))) for tokens in kept])

    @staticmethod
    def _with_images(model: nn.Module, inputs: Mapping[str, Any], short_ids: Tensor, embeds: Tensor) -> Tensor:
        """Images of the same prompt go in as stock puts them, untouched."""
        if inputs.get("pixel_values") is None:
            return embeds
        inner, config = cast(Any, model).model, cast(Any, model).config
        features = inner.get_image_features(
            inputs["pixel_values"], inputs["image_sizes"], batch_num_images=inputs.get("batch_num_images")
        ).pooler_output
        is_image = (short_ids == config.image_token_id).unsqueeze(-1).to(embeds.device)
        return embeds.masked_scatter(is_image, torch.cat(list(features)).to(embeds))
