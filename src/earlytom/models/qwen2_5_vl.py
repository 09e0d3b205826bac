"""Qwen2.5-VL: stock ``Qwen2_5_VLForConditionalGeneration`` of any size.

What the encoder takes as one is a temporal grid, two sampled frames. It packs the patches of all grids into one
sequence, in an order that makes its attention windows contiguous; a few layers see the whole grid, and only their
attention can rank its tokens. The merger makes one token of 2x2 patches; positions have three axes and are kept, see
`earlytom.layouts.mrope`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from earlytom.errors import ModelError
from earlytom.layouts.packed_vision import GridLayout, grid_shape
from earlytom.models.base import Host, Tower, VideoCall
from earlytom.models.packed_call import PackedCall, read_packed_prompt
from earlytom.models.packed_tower import PackedTower, check_rotations, run_block
from earlytom.stages import FrameBatch, FrameVisitor
from earlytom.types import EncoderShape, FrameGrid

__all__ = ["Qwen25VLHost"]


class Qwen25VLHost(Host):
    """Implements `earlytom.models.base.Host`."""

    sequential_positions = False

    def check(self) -> None:
        check_rotations(self.model, split=True)
        vision = self.config.vision_config
        if not any(index < vision.depth for index in vision.fullatt_block_indexes):
            raise ModelError(
                "the vision encoder has no layer whose attention spans the whole frame (fullatt_block_indexes "
                f"{vision.fullatt_block_indexes}, depth {vision.depth}), so its tokens cannot be ranked"
            )

    def encoder_shape(self) -> EncoderShape:
        vision = self.config.vision_config
        whole = tuple(sorted(index for index in vision.fullatt_block_indexes if index < vision.depth))
        return EncoderShape(
            depth=vision.depth,
            global_layers=whole,
            token_merging=False,
            pooling_head=False,
            frames_per_grid=vision.temporal_patch_size,
            cells=True,
        )

    def open(self, inputs: Mapping[str, Any]) -> VideoCall | None:
        prompt = read_packed_prompt(self.model, inputs)
        return None if prompt is None else PackedCall(self, inputs, prompt)

    def tower(self, grid: FrameGrid) -> Tower:
        return _Qwen25VLTower(self, grid)


class _Qwen25VLTower(PackedTower):
    def __init__(self, host: Host, grid: FrameGrid) -> None:
        super().__init__(host, grid)
        self._whole = host.shape.global_layers or ()

    def embed(self, pixels: Tensor, grids_per_clip: tuple[int, ...]) -> FrameBatch:
        hidden = self.patches(pixels)
        hidden = self.layout(hidden).to_sequence(hidden)
        return FrameBatch(hidden=hidden, grids_per_clip=grids_per_clip, cell_layout=self.cells)

    def run_layer(self, index: int, batch: FrameBatch, visitor: FrameVisitor) -> FrameBatch:
        layout, whole = self.sequence(batch), index in self._whole
        return run_block(self.visual.blocks[index], index, batch, layout, visitor, whole=whole)

    def project(self, batch: FrameBatch) -> Tensor:
        tokens: Tensor = self.visual.merger(batch.hidden.flatten(0, 1)).unflatten(0, (batch.hidden.shape[0], -1))
        if batch.cells is not None:
            return batch.layout.to_raster(tokens, batch.cells)
        return self.layout(tokens).to_raster(tokens)

    def make_layout(self, like: Tensor) -> GridLayout:
        from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

        config, shape = self.visual.config, grid_shape(self.grid, self.visual.config.spatial_merge_size)
        order, ends = get_vision_window_index(
            shape,
            spatial_merge_size=config.spatial_merge_size,
            window_size=config.window_size,
            patch_size=config.patch_size,
        )
        order = order.to(like.device, non_blocking=True)
        positions = get_vision_position_ids(shape, config.spatial_merge_size).to(like.device, non_blocking=True)
        unit = config.spatial_merge_size**2
        cos, sin = (
            part.unflatten(0, (-1, unit))[order].flatten(0, 1) for part in self.visual.rotary_pos_emb(like, positions)
        )
        windows = tuple(ends.diff().tolist())
        patches = self.grid.tokens_per_frame * unit
        return GridLayout(patches=patches, unit=unit, order=order, windows=windows, cosines=cos, sines=sin)
