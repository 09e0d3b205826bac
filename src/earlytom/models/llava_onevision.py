"""LLaVA-OneVision: stock ``LlavaOnevisionForConditionalGeneration`` of any size.

SigLIP tower, MLP projector, bilinear 2x2 pooling, one ``image_newline`` embedding at the end of every clip. Frames are
the batch dimension of the tower, so frames that merge simply leave it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import CompressionError, ModelError, shown
from earlytom.layouts.prompt import HostPrompt, check_placeholders, keep_first, shorten_prompt
from earlytom.models.attention import (
    captured_outputs,
    find_pooling_head,
    head_attention,
    heads_mean,
    heads_received_attention,
)
from earlytom.models.base import Host, Tower, VideoCall
from earlytom.models.merging_layer import check_token_merging, run_merging_layer
from earlytom.models.prefill import (
    check_loaded,
    check_mask,
    check_overrides,
    check_promises,
    prefill_inputs,
    put_features,
)
from earlytom.models.wrapping import uncompiled
from earlytom.ops import pool_bilinear
from earlytom.stages import CellLayout, CellLayouts, FrameBatch, FrameVisitor
from earlytom.types import EncoderPlan, EncoderShape, FrameGrid, KeptTokens, PrefillInputs

__all__ = ["LlavaOnevisionCall", "LlavaOnevisionHost", "LlavaOnevisionTower"]

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
# Overrides that stock accepts per call; here the configuration alone counts.
_OVERRIDES = ("vision_feature_layer", "vision_feature_select_strategy", "vision_aspect_ratio")


class LlavaOnevisionHost(Host):
    """Implements `earlytom.models.base.Host`."""

    def check(self) -> None:
        tower, strategy = self.config.vision_config.model_type, self.config.vision_feature_select_strategy
        if tower not in ("siglip_vision_model", "siglip"):
            raise ModelError(f"LLaVA-OneVision is supported with a SigLIP tower, this checkpoint has {tower!r}")
        if strategy != "full":
            raise ModelError(
                f"vision_feature_select_strategy must be 'full' (SigLIP has no CLS token), got {strategy!r}"
            )
        depth, given = len(self.model.model.vision_tower.encoder.layers), self.config.vision_feature_layer
        chosen = given if isinstance(given, list | tuple) else [given]
        if not chosen or not all(isinstance(layer, int) and -depth - 1 <= layer <= depth for layer in chosen):
            raise ModelError(
                f"vision_feature_layer must be one or several of the hidden states of {depth} layers ({-depth - 1} to "
                f"{depth}), got {shown(given)}"
            )
        if max(self.feature_layers) == 0:
            raise ModelError(
                f"vision_feature_layer must be a hidden state behind one layer or more, got {shown(given)}"
            )

    def encoder_shape(self) -> EncoderShape:
        return EncoderShape(depth=max(self.feature_layers), cells=True)

    def check_plan(self, plan: EncoderPlan) -> None:
        vision_tower = self.model.model.vision_tower
        check_token_merging(plan, vision_tower.config._attn_implementation)
        if plan.pooling_head:
            find_pooling_head(vision_tower)

    def open(self, inputs: Mapping[str, Any]) -> VideoCall | None:
        prompt = self.read_prompt(inputs)
        return None if prompt is None else LlavaOnevisionCall(self, inputs, prompt)

    def tower(self, grid: FrameGrid) -> Tower:
        return LlavaOnevisionTower(self, grid)

    @property
    def feature_layers(self) -> list[int]:
        """Hidden states in use, as "after this many layers" (transformers counts from the end or the start)."""
        layer, depth = self.config.vision_feature_layer, len(self.model.model.vision_tower.encoder.layers)
        return [index if index >= 0 else depth + 1 + index for index in ([layer] if isinstance(layer, int) else layer)]

    def read_prompt(self, inputs: Mapping[str, Any]) -> HostPrompt | None:
        """See `open`."""
        pixels = inputs.get("pixel_values_videos")
        if pixels is None:
            check_promises(inputs, self.config.video_token_id)
            return None
        if inputs.get("input_ids") is None:
            raise CompressionError("pixel_values_videos was given without input_ids; pass the processor's whole output")
        check_overrides(inputs, *_OVERRIDES)
        _check_pixels(pixels, self.config.vision_config.image_size)
        check_mask(inputs)
        check_loaded(self.model.model.image_newline, pixels)
        return HostPrompt.of(inputs)


class LlavaOnevisionTower(Tower):
    """Implements `earlytom.models.base.Tower`."""

    def __init__(self, host: LlavaOnevisionHost, grid: FrameGrid) -> None:
        super().__init__(host, grid)
        self._base, self._wanted = host.model.model, host.feature_layers
        self._layers = self._base.vision_tower.encoder.layers
        self._cells = CellLayouts(self._make_cells)
        self._side = self.config.vision_config.image_size // self.config.vision_config.patch_size

    def embed(self, pixels: Tensor, grids_per_clip: tuple[int, ...]) -> FrameBatch:
        hidden = self._base.vision_tower.embeddings(pixels)
        return FrameBatch(hidden=hidden, grids_per_clip=grids_per_clip, cell_layout=self._cells)

    def run_layer(self, index: int, batch: FrameBatch, visitor: FrameVisitor) -> FrameBatch:
        requests, layer = visitor.requests, self._layers[index]
        if index in self._wanted:
            batch = batch.with_hidden(batch.hidden, batch.hidden)
        if requests.token_layers:
            return run_merging_layer(layer, index, batch, visitor)
        if index not in requests.attention_layers:
            return batch.with_hidden(layer(batch.hidden, attention_mask=None))
        attention = layer.self_attn
        with captured_outputs(attention.q_proj, attention.k_proj) as captured:
            hidden = uncompiled(layer)(batch.hidden, attention_mask=None)
        heads, scale = attention.num_heads, attention.scale
        visitor.receive_attention(index, partial(heads_received_attention, *captured, heads=heads, scale=scale))
        if index in requests.key_layers:
            visitor.receive_keys(index, partial(heads_mean, captured[1], heads=heads))
        return batch.with_hidden(hidden)

    def project(self, batch: FrameBatch) -> Tensor:
        projected: Tensor = self._base.multi_modal_projector(self._features(batch))
        if batch.cells is not None:
            return batch.layout.pooled(projected, batch.cells)
        features: Tensor = self._base.apply_pooling(projected)
        return features

    def project_tokens(self, batch: FrameBatch) -> Tensor:
        features: Tensor = self._base.multi_modal_projector(self._features(batch))
        return features

    def pool_attention(self, attention: Tensor) -> Tensor:
        return pool_bilinear(attention, side=self._side, pooled=(self.grid.rows, self.grid.columns))

    def _make_cells(self) -> CellLayout:
        return CellLayout.of_pooling(self.pool_attention, (self._side, self._side), (self.grid.rows, self.grid.columns))

    def pooling_head(self, batch: FrameBatch) -> tuple[Tensor, Tensor]:
        return head_attention(self._base.vision_tower, batch.hidden)

    def _features(self, batch: FrameBatch) -> Tensor:
        """[F, L, D] the hidden states in use, behind one another on the last dimension in the configuration's order."""
        if len(self._wanted) == 1:
            return batch.hidden
        aside = dict(zip(sorted(set(self._wanted) - {self.depth}), batch.others, strict=True))
        states = {**aside, self.depth: batch.hidden}
        return torch.cat([states[index].to(batch.hidden.device) for index in self._wanted], dim=-1)


class LlavaOnevisionCall(VideoCall):
    """Implements `earlytom.models.base.VideoCall`."""

    def read_grids(self) -> list[FrameGrid]:
        videos, frames = self.inputs["pixel_values_videos"].shape[:2]
        vision = self.config.vision_config
        side = self.pooled(vision.image_size // vision.patch_size)
        grids = [FrameGrid(frames=frames, rows=side, columns=side)] * videos
        check_placeholders(self.is_video, sum(map(self.length, grids)), len(grids))
        return grids

    def pixels(self, clips: Sequence[int]) -> Tensor:
        videos: Tensor = self.inputs["pixel_values_videos"]
        return videos.flatten(0, 1) if len(clips) == len(videos) else torch.cat([videos[clip] for clip in clips])

    def assemble(self, kept: Sequence[KeptTokens]) -> PrefillInputs:
        sequences = self.sequences(kept)
        keep = keep_first(self.is_video, list(map(self.length, self.grids)), list(map(len, sequences)))
        short = shorten_prompt(keep, self.is_video, pad_right=self.prompt.right_padded)
        ids = short.take(self.prompt.ids, 0).to(self.inputs["input_ids"].device, non_blocking=True)
        embeds = put_features(self.embed_text(ids), ids == self.config.video_token_id, torch.cat(sequences))
        return prefill_inputs(self.inputs, self.prompt, short, embeds, _CONSUMED)

    @cached_property
    def is_video(self) -> Tensor:
        """[B, S] bool on the host: the placeholders of videos."""
        return self.prompt.ids == self.config.video_token_id

    def pooled(self, side: int) -> int:
        """Rows and columns of tokens of a frame with ``side`` rows and columns of patches."""
        return math.ceil(side / 2)

    def length(self, grid: FrameGrid) -> int:
        """Positions that an uncompressed clip takes in the prompt, newlines included."""
        return grid.tokens + 1

    def sequences(self, kept: Sequence[KeptTokens]) -> list[Tensor]:
        """What stands in the prompt for each clip: [S, C] tokens and newlines."""
        newline = self.model.model.image_newline
        return [torch.cat((tokens.features, newline[None].to(tokens.features.device))) for tokens in kept]

    def embed_text(self, ids: Tensor) -> Tensor:
        """[B, S, C] embeddings; images of the same prompt go in as stock puts them, untouched."""
        embeds: Tensor = self.model.get_input_embeddings()(ids)
        if self.inputs.get("pixel_values") is None:
            return embeds
        features = self.model.model.get_image_features(
            self.inputs["pixel_values"],
            self.inputs["image_sizes"],
            batch_num_images=self.inputs.get("batch_num_images"),
        ).pooler_output
        return put_features(embeds, ids == self.config.image_token_id, torch.cat(list(features)))


def _check_pixels(pixels: Any, image_size: int) -> None:
    shape = tuple(getattr(pixels, "shape", ()))
    if len(shape) != 5 or 0 in shape:
        raise CompressionError(f"pixel_values_videos must be [videos, frames, channels, height, width], got {shape}")
    if shape[-2:] != (image_size, image_size):
        raise CompressionError(f"video frames must be {image_size} x {image_size} pixels, got {shape[-2:]}")
