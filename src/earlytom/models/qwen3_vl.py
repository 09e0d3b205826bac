"""Qwen3-VL: stock ``Qwen3VLForConditionalGeneration`` of any size.

A frame is one temporal grid, two sampled frames, and every layer of the encoder sees the whole frame. After some layers
(DeepStack) hidden states are set aside, which mergers of their own turn into further features; the language model adds
these to its hidden states behind its first layers. They travel behind the final features on the last dimension, so
that whatever merges or leaves does so in all of them alike.

In the prompt every frame stands behind its timestamp: ``<0.5 seconds><|vision_start|> ... <|vision_end|>``. A kept
token stays in its own frame, and a frame with no token left goes together with its timestamp. That of a clip's first
frame begins behind the ``<|vision_start|>`` that the chat template puts around the whole clip; without one it cannot be
told from the text before the clip, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from earlytom.errors import CompressionError, ModelError
from earlytom.models.base import FrameVisitor
from earlytom.models.language_model import StockLanguageModel
from earlytom.models.mrope import assemble_prompt, clip_patches, clip_positions, packed_grids, packed_prompt
from earlytom.models.packed_vision import FrameLayout, frame_shape, mean_of_patches, run_block
from earlytom.models.prompt import HostPrompt, ShortPrompt, by_frame, shorten_prompt
from earlytom.types import EncoderShape, FrameGrid, KeptTokens, PrefillInputs

__all__ = ["Qwen3VLAdapter"]


class Qwen3VLAdapter(StockLanguageModel):
    """Implements `earlytom.models.base.ModelAdapter`."""

    clip_arguments = ("pixel_values_videos", "video_grid_thw")
    sequential_positions = False

    def check(self, model: nn.Module) -> None:
        """Every model of the family can be compressed."""

    def encoder(self, model: nn.Module) -> EncoderShape:
        vision = cast(Any, model).config.vision_config
        return EncoderShape(
            depth=vision.depth,
            token_merging=False,
            pooling_head=False,
            feature_sets=1 + len(_deepstack_layers(model)),
        )

    def prompt(self, model: nn.Module, inputs: Mapping[str, Any]) -> HostPrompt | None:
        return packed_prompt(model, inputs)

    def grids(self, model: nn.Module, inputs: Mapping[str, Any], prompt: HostPrompt) -> list[FrameGrid]:
        grids = packed_grids(model, inputs, prompt)
        _check_frames(cast(Any, model).config, prompt, grids)
        return grids

    def encode(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        grids: Sequence[FrameGrid],
        clips: Sequence[int],
        visitor: FrameVisitor,
    ) -> Tensor:
        visual, aside = cast(Any, model).model.visual, _deepstack_layers(model)
        patches = clip_patches(model, inputs, grids, clips)
        hidden = visual.patch_embed(patches.type(visual.dtype))
        layout = _layout(visual, grids[clips[0]], hidden)
        if visitor.plan.fingerprint:
            visitor.receive_pixels(patches.unflatten(0, (-1, layout.patches)))
        learned = _learned_positions(visual, grids[clips[0]], hidden.device)
        hidden = (hidden.unflatten(0, (-1, layout.patches)) + learned.to(hidden.dtype)).flatten(0, 1)
        earlier: list[Tensor] = []
        for index, block in enumerate(visual.blocks):
            hidden = run_block(block, index, hidden, layout, visitor, whole=True)
            frames, earlier = visitor.after_layer(index, hidden.unflatten(0, (-1, layout.patches)), earlier)
            hidden = frames.flatten(0, 1)
            if index in aside:
                earlier = [*earlier, frames]
        last = hidden.unflatten(0, (-1, layout.patches))
        return torch.cat([last, *(states.to(last.device) for states in earlier)], dim=-1)

    def project(self, model: nn.Module, hidden: Tensor, grid: FrameGrid) -> Tensor:
        visual = cast(Any, model).model.visual
        order = visual.config.deepstack_visual_indexes
        mergers = [visual.merger, *(visual.deepstack_merger_list[order.index(n)] for n in _deepstack_layers(model))]
        parts = hidden.flatten(0, 1).chunk(len(mergers), dim=-1)
        projected = [merger(part.contiguous()) for merger, part in zip(mergers, parts, strict=True)]
        # Of a model spread over several devices, each merger may lie on its own.
        together = [part.to(projected[0].device) for part in projected]
        return torch.cat(together, dim=-1).unflatten(0, (hidden.shape[0], -1))

    def project_tokens(self, model: nn.Module, hidden: Tensor) -> Tensor:
        raise ModelError("Qwen3-VL projects blocks of 2x2 patches, which merged tokens are not")

    def pool_attention(self, model: nn.Module, attention: Tensor, grid: FrameGrid) -> Tensor:
        return mean_of_patches(attention, _layout(cast(Any, model).model.visual, grid, attention))

    def assemble(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        prompt: HostPrompt,
        grids: Sequence[FrameGrid],
        kept: Sequence[KeptTokens],
    ) -> PrefillInputs:
        config = cast(Any, model).config
        width = config.get_text_config().hidden_size
        kept, counts = by_frame(kept, grids)
        is_video = prompt.ids == config.video_token_id
        short = shorten_prompt(_keep_frames(config, prompt, grids, counts), is_video, pad_right=prompt.right_padded)
        final = [replace(tokens, features=tokens.features[:, :width]) for tokens in kept]
        images = _image_features(cast(Any, model), inputs)

        def with_images(short_ids: Tensor, embeds: Tensor) -> Tensor:
            if images is None:
                return embeds
            is_image = (short_ids == config.image_token_id).unsqueeze(-1).to(embeds.device)
            return embeds.masked_scatter(is_image, images[:, :width].to(embeds))

        prepared = assemble_prompt(model, inputs, prompt, grids, final, short, with_images)
        if not _deepstack_layers(model):
            return prepared
        videos = torch.cat([tokens.features[:, width:] for tokens in kept])
        further = None if images is None else images[:, width:].to(videos)
        arguments = _deepstack_arguments(config, prompt, short, videos, further, width)
        return replace(prepared, language_arguments=arguments)

    def earliest_reduction(self, model: nn.Module) -> int:
        # The n-th DeepStack features are added behind the n-th layer, to as many tokens as entered.
        return max(1, len(_deepstack_layers(model)))


def _deepstack_layers(model: nn.Module) -> list[int]:
    """The encoder layers whose output is set aside, ascending, which is the order in which the features are added."""
    vision = cast(Any, model).config.vision_config
    return sorted({index for index in vision.deepstack_visual_indexes if 0 <= index < vision.depth})


def _layout(visual: Any, grid: FrameGrid, like: Tensor) -> FrameLayout:
    """The sequence of one frame, from stock's own arithmetic on a clip of a single frame."""
    from transformers.vision_utils import get_vision_position_ids

    merge = visual.config.spatial_merge_size
    positions = get_vision_position_ids(frame_shape(grid, merge), merge).to(like.device, non_blocking=True)
    cos, sin = visual.rotary_pos_emb(like, positions)
    patches = grid.tokens_per_frame * merge**2
    return FrameLayout(patches=patches, unit=merge**2, order=None, windows=(patches,), cosines=cos, sines=sin)


def _learned_positions(visual: Any, grid: FrameGrid, device: torch.device) -> Tensor:
    """[L, D] the learned position embedding, resampled to the patches of one frame as stock does."""
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights

    merge = visual.config.spatial_merge_size
    indices, weights = get_vision_interpolation_indices_and_weights(
        frame_shape(grid, merge),
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=merge,
    )
    rows = visual.pos_embed(indices.to(device, non_blocking=True))
    return cast(Tensor, (rows * weights.to(device, non_blocking=True)[:, :, None]).sum(1))


def _check_frames(config: Any, prompt: HostPrompt, grids: Sequence[FrameGrid]) -> None:
    """Raises `CompressionError` unless each frame's placeholders stand together, between start and end of vision."""
    length, ids = prompt.ids.shape[1], prompt.ids.flatten()
    for number, (clip, grid) in enumerate(
        zip(clip_positions(prompt.ids == config.video_token_id, grids), grids, strict=True)
    ):
        runs = clip.view(grid.frames, grid.tokens_per_frame)
        first, last = runs[:, 0], runs[:, -1]
        together = (last - first == grid.tokens_per_frame - 1) & (first // length == last // length)
        inside = (first % length > 0) & (last % length < length - 1)
        opened = ids[(first - 1).clamp_min(0)] == config.vision_start_token_id
        closed = ids[(last + 1).clamp_max(len(ids) - 1)] == config.vision_end_token_id
        if not bool((together & inside & opened & closed).all()):
            raise CompressionError(
                f"the prompt must hold the placeholders of each of the {grid.frames} temporal grids of video {number} "
                f"together, {grid.tokens_per_frame} between a vision_start (id {config.vision_start_token_id}) and a "
                f"vision_end (id {config.vision_end_token_id}) of its own; pass the processor's input_ids unchanged"
            )


def _keep_frames(
    config: Any, prompt: HostPrompt, grids: Sequence[FrameGrid], counts: Sequence[Sequence[int]]
) -> Tensor:
    """[B, S] bool: what stays of the prompt; of each frame as many placeholders as it has tokens left.

    A frame without any goes from behind the end of the frame before it to its own end, with its timestamp.
    """
    is_video = prompt.ids == config.video_token_id
    keep = torch.ones(prompt.ids.numel(), dtype=torch.bool)
    for clip, grid, left in zip(clip_positions(is_video, grids), grids, counts, strict=True):
        firsts: list[int] = clip[:: grid.tokens_per_frame].tolist()
        behind_previous = _first_timestamp(config, prompt, firsts[0] - 1)
        for first, count in zip(firsts, left, strict=True):
            end = first + grid.tokens_per_frame
            if count:
                keep[first + count : end] = False
            else:
                keep[behind_previous : end + 1] = False
            behind_previous = end + 1
    return keep.view_as(is_video)


def _first_timestamp(config: Any, prompt: HostPrompt, start: int) -> int:
    """Where the timestamp begins that stands before ``start``, the vision_start of a clip's first frame.

    That is behind a vision_start around the whole clip: one that nothing has ended yet. Otherwise ``start`` itself.
    """
    row = start - start % prompt.ids.shape[1]
    before = prompt.ids.flatten()[row:start]
    opened = before == config.vision_start_token_id
    marks = (opened | (before == config.vision_end_token_id)).nonzero().flatten().tolist()
    return row + marks[-1] + 1 if marks and bool(opened[marks[-1]]) else start


def _image_features(model: Any, inputs: Mapping[str, Any]) -> Tensor | None:
    """[I, C * (1 + n)] features of the images of the same prompt, from stock; the DeepStack ones behind the final."""
    if inputs.get("pixel_values") is None:
        return None
    output = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    # Some releases of transformers split these by image, others do not.
    sets = (output.pooler_output, *output.deepstack_features)
    return torch.cat([part if isinstance(part, Tensor) else torch.cat(list(part)) for part in sets], dim=-1)


def _deepstack_arguments(
    config: Any, prompt: HostPrompt, short: ShortPrompt, videos: Tensor, images: Tensor | None, width: int
) -> dict[str, Callable[[int], Any]]:
    """What the language model gets to add behind its first layers; see `PrefillInputs.language_arguments`.

    Args:
        config: of the model.
        prompt: on the host.
        short: what stays of it.
        videos: [V, width * n] features of the kept tokens, in the order of the prompts.
        images: [I, width * n] those of images, or ``None``.
        width: of the language model.
    """
    ids = short.take(prompt.ids, 0)
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
