"""Qwen3-VL: stock ``Qwen3VLForConditionalGeneration`` of any size.

What the encoder takes as one is a temporal grid, two sampled frames, and every layer sees the whole of it. After some
layers (DeepStack) hidden states are set aside, which mergers of their own turn into further features; the language
model adds these to its hidden states behind its first layers. Behind the projector they stand behind the final features
on the last dimension, so that whatever is merged or dropped is so in all of them alike.

In the prompt every temporal grid stands behind its timestamp (`earlytom.layouts.timestamps`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from earlytom.layouts.packed_vision import GridLayout, grid_shape
from earlytom.layouts.prompt import HostPrompt, ShortPrompt, by_grid, shorten_prompt
from earlytom.layouts.timestamps import VisionTokens, check_grids, keep_grids
from earlytom.models.base import Host, Tower, VideoCall
from earlytom.models.packed_call import PackedCall, read_packed_prompt
from earlytom.models.packed_tower import PackedTower, check_rotations, run_block
from earlytom.stages import FrameBatch, FrameVisitor
from earlytom.types import EncoderShape, FrameGrid, KeptTokens, PrefillInputs

__all__ = ["Qwen3VLHost"]


class Qwen3VLHost(Host):
    """Implements `earlytom.models.base.Host`."""

    sequential_positions = False

    def check(self) -> None:
        check_rotations(self.model, split=False)

    def encoder_shape(self) -> EncoderShape:
        return EncoderShape(
            depth=self.config.vision_config.depth,
            token_merging=False,
            pooling_head=False,
            frames_per_grid=self.config.vision_config.temporal_patch_size,
            cells=True,
            feature_sets=1 + len(_deepstack_layers(self.config)),
        )

    def earliest_reduction(self) -> int:
        # The n-th DeepStack features are added behind the n-th layer, to as many tokens as entered.
        return max(1, len(_deepstack_layers(self.config)))

    def open(self, inputs: Mapping[str, Any]) -> VideoCall | None:
        prompt = read_packed_prompt(self.model, inputs)
        return None if prompt is None else _Qwen3VLCall(self, inputs, prompt)

    def tower(self, grid: FrameGrid) -> Tower:
        return _Qwen3VLTower(self, grid)


class _Qwen3VLTower(PackedTower):
    def __init__(self, host: Host, grid: FrameGrid) -> None:
        super().__init__(host, grid)
        self._aside = _deepstack_layers(self.config)

    def embed(self, pixels: Tensor, grids_per_clip: tuple[int, ...]) -> FrameBatch:
        hidden = self.patches(pixels)
        learned = _learned_positions(self.visual, self.grid, hidden.device)
        hidden = hidden + learned.to(hidden.dtype)
        return FrameBatch(hidden=hidden, grids_per_clip=grids_per_clip, cell_layout=self.cells)

    def run_layer(self, index: int, batch: FrameBatch, visitor: FrameVisitor) -> FrameBatch:
        if index - 1 in self._aside:
            batch = batch.with_hidden(batch.hidden, batch.hidden)
        return run_block(self.visual.blocks[index], index, batch, self.sequence(batch), visitor, whole=True)

    def project(self, batch: FrameBatch) -> Tensor:
        order = self.visual.config.deepstack_visual_indexes
        mergers = [self.visual.merger, *(self.visual.deepstack_merger_list[order.index(n)] for n in self._aside)]
        states = (batch.hidden, *self._set_aside(batch))
        there = batch.hidden.device
        projected = [merger(part.to(there).flatten(0, 1)) for merger, part in zip(mergers, states, strict=True)]
        # Of a model spread over several devices, each merger may lie on its own.
        together = [part.to(projected[0].device) for part in projected]
        return torch.cat(together, dim=-1).unflatten(0, (batch.hidden.shape[0], -1))

    def make_layout(self, like: Tensor) -> GridLayout:
        from transformers.vision_utils import get_vision_position_ids

        merge = self.visual.config.spatial_merge_size
        positions = get_vision_position_ids(grid_shape(self.grid, merge), merge).to(like.device, non_blocking=True)
        cos, sin = self.visual.rotary_pos_emb(like, positions)
        patches = self.grid.tokens_per_frame * merge**2
        return GridLayout(patches=patches, unit=merge**2, order=None, windows=(patches,), cosines=cos, sines=sin)

    def _set_aside(self, batch: FrameBatch) -> tuple[Tensor, ...]:
        """The hidden states that go to mergers of their own, those behind the last layer included."""
        return (*batch.others, batch.hidden) if self.depth - 1 in self._aside else batch.others


class _Qwen3VLCall(PackedCall):
    def __init__(self, host: Host, inputs: Mapping[str, Any], prompt: HostPrompt) -> None:
        super().__init__(host, inputs, prompt)
        ids = self.config
        self._tokens = VisionTokens(
            video=ids.video_token_id, start=ids.vision_start_token_id, end=ids.vision_end_token_id
        )

    def read_grids(self) -> list[FrameGrid]:
        grids = super().read_grids()
        check_grids(self.prompt.ids, self._tokens, grids)
        return grids

    def assemble(self, kept: Sequence[KeptTokens]) -> PrefillInputs:
        width = self.config.get_text_config().hidden_size
        kept, counts = by_grid(kept, self.grids)
        keep = keep_grids(self.prompt.ids, self._tokens, self.grids, counts)
        short = shorten_prompt(keep, self.is_video, pad_right=self.prompt.right_padded)
        final = [replace(tokens, features=tokens.features[:, :width]) for tokens in kept]
        images = self.image_features()
        prepared = self.prefill(short, final, None if images is None else images[:, :width])
        if self.host.shape.feature_sets == 1:
            return prepared
        videos = torch.cat([tokens.features[:, width:] for tokens in kept])
        further = None if images is None else images[:, width:].to(videos)
        arguments = _deepstack_arguments(self.config, self.prompt.ids, short, videos, further, width)
        return replace(prepared, language_arguments=arguments)

    def image_features(self) -> Tensor | None:
        """[I, C * (1 + n)]: the DeepStack features behind the final ones."""
        if self.inputs.get("pixel_values") is None:
            return None
        output = self.model.model.get_image_features(self.inputs["pixel_values"], self.inputs["image_grid_thw"])
        # Some releases of transformers split these by image, others do not.
        sets = (output.pooler_output, *output.deepstack_features)
        return torch.cat([part if isinstance(part, Tensor) else torch.cat(list(part)) for part in sets], dim=-1)


def _deepstack_layers(config: Any) -> list[int]:
    """The encoder layers whose output is set aside, ascending, which is the order in which the features are added."""
    vision = config.vision_config
    return sorted({index for index in vision.deepstack_visual_indexes if 0 <= index < vision.depth})


def _learned_positions(visual: Any, grid: FrameGrid, device: torch.device) -> Tensor:
    """[L, D] the learned position embedding, resampled to the patches of one grid as stock does."""
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights

    merge = visual.config.spatial_merge_size
    indices, weights = get_vision_interpolation_indices_and_weights(
        grid_shape(grid, merge),
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=merge,
    )
    rows = visual.pos_embed(indices.to(device, non_blocking=True))
    positions: Tensor = (rows * weights.to(device, non_blocking=True)[:, :, None]).sum(1)
    return positions


def _deepstack_arguments(
    config: Any, ids: Tensor, short: ShortPrompt, videos: Tensor, images: Tensor | None, width: int
) -> dict[str, Callable[[int], Any]]:
    """What the language model gets to add behind its first layers; see `PrefillInputs.language_arguments`.

    Args:
        config: of the model.
        ids: [B, S] int64 on the host, of the prompt.
        short: what stays of the prompt.
        videos: [V, width * n] features of the kept tokens, in the order of the prompts.
        images: [I, width * n] those of images, or ``None``.
        width: of the language model.
    """
    ids = short.take(ids, 0)
    is_video = (ids == config.video_token_id) & ~short.filler
    is_visual, joint = is_video, videos
    if images is not None:
        is_image = (ids == config.image_token_id) & ~short.filler
        is_visual, joint = is_video | is_image, videos.new_empty(len(videos) + len(images), videos.shape[1])
        joint[is_video[is_visual].nonzero().flatten().to(videos.device, non_blocking=True)] = videos
        joint[is_image[is_visual].nonzero().flatten().to(videos.device, non_blocking=True)] = images
    samples = joint.split(is_visual.sum(dim=1).tolist())
    mask = is_visual.to(videos.device, non_blocking=True)

    def features(beams: int) -> list[Tensor]:
        rows = joint if beams == 1 else torch.cat([sample for sample in samples for _ in range(beams)])
        return list(rows.split(width, dim=1))

    return {
        "visual_pos_masks": lambda beams: mask.repeat_interleave(beams, dim=0),
        "deepstack_visual_embeds": features,
    }
