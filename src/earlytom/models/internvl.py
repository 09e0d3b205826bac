"""InternVL: stock ``InternVLForConditionalGeneration`` with a Qwen2 or Qwen3 language model (InternVL3, InternVL3.5).

A tower with a CLS token, pixel shuffle (each block of 2x2 patches becomes one token), an MLP projector. Frames are the
batch dimension of the tower, so frames that merge simply leave it, each with its CLS token. Tokens cannot merge inside
the layers: the CLS token must stay out of it, and pixel shuffle joins neighbours, which merged tokens no longer have.

Frames are handed over among the images; `earlytom.layouts.pictures` says what tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import CompressionError, ModelError
from earlytom.layouts.pictures import Pictures, read_pictures, tiles
from earlytom.layouts.prompt import HostPrompt, by_grid, shorten_prompt
from earlytom.models.attention import captured_outputs, heads_mean, heads_received_attention
from earlytom.models.base import Host, Tower, VideoCall
from earlytom.models.prefill import check_loaded, check_overrides, prefill_inputs, put_features
from earlytom.models.wrapping import uncompiled
from earlytom.stages import CellLayout, CellLayouts, FrameBatch, FrameVisitor
from earlytom.types import EncoderShape, FrameGrid, KeptTokens, PrefillInputs

__all__ = ["InternVLHost"]

# By whose ids the text between pictures tells frames from images.
_LANGUAGE_MODELS = ("qwen2", "qwen3", "qwen3_moe")

# Arguments of stock generate() and forward() that are used up here: the prompt leaves with its features in place.
_CONSUMED = ("pixel_values", "image_sizes", "vision_feature_layer", "vision_feature_select_strategy", "inputs_embeds")
# Overrides that stock accepts per call; here the configuration alone counts.
_OVERRIDES = ("vision_feature_layer", "vision_feature_select_strategy")


class InternVLHost(Host):
    """Implements `earlytom.models.base.Host`."""

    videos_among_images = True

    def check(self) -> None:
        config = self.config
        tower, language = config.vision_config.model_type, config.text_config.model_type
        if tower != "internvl_vision":
            raise ModelError(f"InternVL is supported with an 'internvl_vision' tower, this checkpoint has {tower!r}")
        if language not in _LANGUAGE_MODELS:
            raise ModelError(
                f"InternVL is supported with a language model of Qwen's vocabulary ({', '.join(_LANGUAGE_MODELS)}), by "
                f"whose ids the text between pictures tells frames from images; this checkpoint has {language!r}"
            )
        strategy, layer = config.vision_feature_select_strategy, config.vision_feature_layer
        if strategy != "default":
            raise ModelError(f"vision_feature_select_strategy must be 'default' (no CLS token), got {strategy!r}")
        layers = len(self.model.model.vision_tower.encoder.layer)
        if not isinstance(layer, int) or not -layers <= layer <= layers or layer == 0:
            raise ModelError(f"vision_feature_layer must be one of the {layers} layers' outputs, got {layer!r}")
        (height, width), block = _patches(config), _block(config)
        if height != width or height % block:
            raise ModelError(
                f"the tower must see squares whose side is a multiple of {block} patches, got {height} x {width}"
            )

    def encoder_shape(self) -> EncoderShape:
        # transformers counts hidden states from the end or the start.
        layer = int(self.config.vision_feature_layer)
        depth = layer if layer > 0 else len(self.model.model.vision_tower.encoder.layer) + 1 + layer
        return EncoderShape(depth=depth, token_merging=False, pooling_head=False, cells=True)

    def open(self, inputs: Mapping[str, Any]) -> VideoCall | None:
        ids, pixels, placeholder = inputs.get("input_ids"), inputs.get("pixel_values"), self.config.image_token_id
        if ids is None and pixels is not None:
            raise CompressionError("pixel_values was given without input_ids; pass the processor's whole output")
        if ids is None or (pixels is None and inputs.get("inputs_embeds") is not None):
            return None
        on_host = ids.cpu()
        if not (on_host == placeholder).any():
            return None
        pictures = read_pictures(on_host, placeholder, _tokens_per_tile(self.config))
        if not pictures.clips:
            return None
        if pixels is None:
            raise CompressionError(
                "the prompt holds the frames of a video but pixel_values is missing, so nothing could be compressed; "
                "call model.generate(**inputs) inside the block with the processor's whole output (for a further "
                "turn: the whole history with its video, not the cache of a compressed call)"
            )
        check_overrides(inputs, *_OVERRIDES)
        _check_pixels(pixels, tuple(self.config.vision_config.image_size))
        mask = inputs.get("attention_mask")
        if mask is not None and mask.shape != ids.shape:
            raise CompressionError(f"attention_mask must be {tuple(ids.shape)} like input_ids, got {tuple(mask.shape)}")
        check_loaded(self.model.model.vision_tower.embeddings.cls_token, pixels)
        return _InternVLCall(self, inputs, HostPrompt.of(inputs, ids=on_host), pictures)

    def tower(self, grid: FrameGrid) -> Tower:
        return _InternVLTower(self, grid)


class _InternVLTower(Tower):
    """The CLS token of each frame goes along.

    The attention received is that of the whole layer, in which CLS attends and is attended to, but only the patches'
    part of it is reported, so that it sums to less than one.
    """

    def __init__(self, host: Host, grid: FrameGrid) -> None:
        super().__init__(host, grid)
        self._base, self._cells = host.model.model, CellLayouts(self._make_cells)

    def embed(self, pixels: Tensor, grids_per_clip: tuple[int, ...]) -> FrameBatch:
        hidden = self._base.vision_tower.embeddings(pixels.to(self._base.dtype))
        return FrameBatch(hidden=hidden, grids_per_clip=grids_per_clip, class_tokens=1, cell_layout=self._cells)

    def run_layer(self, index: int, batch: FrameBatch, visitor: FrameVisitor) -> FrameBatch:
        layer = self._base.vision_tower.encoder.layer[index]
        if index not in visitor.requests.attention_layers:
            return batch.with_hidden(layer(batch.hidden))
        attention = layer.attention
        with captured_outputs(attention.q_norm, attention.k_norm) as captured:
            hidden = uncompiled(layer)(batch.hidden)
        heads, scale = attention.num_heads, attention.scale
        received = partial(heads_received_attention, *captured, heads=heads, scale=scale)
        visitor.receive_attention(index, _of_patches(received))
        if index in visitor.requests.key_layers:
            visitor.receive_keys(index, _of_patches(partial(heads_mean, captured[1], heads=heads)))
        return batch.with_hidden(hidden)

    def project(self, batch: FrameBatch) -> Tensor:
        last = self.config.vision_feature_layer == -1
        hidden = self._base.vision_tower.layernorm(batch.hidden)[:, 1:] if last else batch.patches
        if batch.cells is None:
            blocks = self._shuffled(hidden.reshape(hidden.shape[0], *_patches(self.config), hidden.shape[-1]))
        else:
            # The patches of each cell stand in the order of pixel shuffle already.
            blocks = hidden.unflatten(1, (batch.cells.shape[1], -1)).flatten(2)
        features: Tensor = self._base.multi_modal_projector(blocks)
        return features

    def pool_attention(self, attention: Tensor) -> Tensor:
        block = _block(self.config)  # of patches that pixel shuffle makes one token: their mean
        return attention.reshape(-1, self.grid.rows, block, self.grid.columns, block).mean(dim=(2, 4)).flatten(1)

    def _make_cells(self) -> CellLayout:
        rows, columns = _patches(self.config)
        numbers = torch.arange(rows * columns, dtype=torch.float32, device="cpu").view(1, rows, columns, 1)
        support = self._shuffled(numbers)[0].long()
        weight = torch.full(support.shape, 1 / support.shape[1], dtype=torch.float32, device="cpu")
        return CellLayout(support=support, weight=weight)

    def _shuffled(self, maps: Tensor) -> Tensor:
        """[F, rows, columns, D] patches to [F, P, D * block^2] blocks of them, as pixel shuffle makes them."""
        blocks: Tensor = self._base.pixel_shuffle(maps, scale_factor=self.config.downsample_ratio)
        return blocks.flatten(1, 2)


class _InternVLCall(VideoCall):
    def __init__(self, host: Host, inputs: Mapping[str, Any], prompt: HostPrompt, pictures: Pictures) -> None:
        super().__init__(host, inputs, prompt)
        self._pictures = pictures

    @property
    def repeats_one_clip(self) -> bool:
        pixels, alike = self.inputs["pixel_values"], set(self.grids) == {self.grids[0]}
        return pixels.dim() == 5 and not self._pictures.images and alike and len(self.grids) == pixels.shape[0]

    def read_grids(self) -> list[FrameGrid]:
        pictures, per_tile = self._pictures, _tokens_per_tile(self.config)
        lengths = [run.stop - run.start for run in (*pictures.frames(), *pictures.images)]
        given = self.inputs["pixel_values"].shape[:-3].numel()
        if sum(lengths) != given * per_tile or any(length % per_tile for length in lengths):
            raise CompressionError(
                f"the prompt holds {sum(lengths)} placeholder tokens, but the {given} pictures in pixel_values need "
                f"{per_tile} each; pass the processor's input_ids and pixel_values together, unchanged"
            )
        side = _patches(self.config)[0] // _block(self.config)
        return [FrameGrid(frames=len(clip), rows=side, columns=side) for clip in pictures.clips]

    def pixels(self, clips: Sequence[int]) -> Tensor:
        pictures = self._given()
        if len(clips) == len(self.grids) and not self._pictures.images:
            return pictures
        return pictures[tiles([run for clip in clips for run in self._pictures.clips[clip]])]

    def assemble(self, kept: Sequence[KeptTokens]) -> PrefillInputs:
        ids = self.prompt.ids
        is_video = self._pictures.is_video(ids)
        ordered, counts = by_grid(kept, self.grids)
        short = shorten_prompt(self._pictures.keep(ids, counts), is_video, pad_right=self.prompt.right_padded)
        short_ids = short.take(ids, 0).to(self.inputs["input_ids"].device, non_blocking=True)
        embeds = self.model.get_input_embeddings()(short_ids)
        embeds = put_features(embeds, short.take(is_video, 0), torch.cat([tokens.features for tokens in ordered]))
        if self._pictures.images:
            pixels = self._given()[tiles(self._pictures.images)]
            of_images = self.model.model.get_image_features(pixels, return_dict=True).pooler_output
            is_image = (ids == self.config.image_token_id) & ~is_video
            embeds = put_features(embeds, short.take(is_image, 0), of_images)
        return prefill_inputs(self.inputs, self.prompt, short, embeds, _CONSUMED)

    def _given(self) -> Tensor:
        """[pictures, ...] of all prompts, or of the first one where they share a clip."""
        pixels: Tensor = self.inputs["pixel_values"]
        if pixels.dim() == 4:
            return pixels
        return pixels[0] if self.repeats_one_clip else pixels.flatten(0, 1)


def _check_pixels(pixels: Any, size: tuple[int, ...]) -> None:
    shape = tuple(getattr(pixels, "shape", ()))
    # One clip that is expanded over several prompts has a dimension for these.
    shared = len(shape) == 5 and shape[0] > 1 and pixels.stride(0) == 0
    if not (len(shape) == 4 or shared) or 0 in shape or shape[-2:] != size:
        raise CompressionError(f"pixel_values must be [pictures, channels, {size[0]}, {size[1]}], got {shape}")


def _patches(config: Any) -> tuple[int, int]:
    """Rows and columns of a picture's patches."""
    (height, width), (patch_height, patch_width) = config.vision_config.image_size, config.vision_config.patch_size
    return int(height // patch_height), int(width // patch_width)


def _block(config: Any) -> int:
    """Side of the blocks of patches that become one token."""
    return round(1 / config.downsample_ratio)


def _tokens_per_tile(config: Any) -> int:
    return (_patches(config)[0] // _block(config)) ** 2


def _of_patches(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``compute``'s [F, 1 + L, ...] without CLS."""
    return lambda: compute()[:, 1:]
