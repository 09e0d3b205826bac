"""InternVL: stock ``InternVLForConditionalGeneration`` with a Qwen2 or Qwen3 language model (InternVL3, InternVL3.5).

A tower with a CLS token, pixel shuffle (each block of 2x2 patches becomes one token), an MLP projector. Frames are the
batch dimension of the tower, so frames that merge simply leave it, each with its CLS token. Tokens cannot merge inside
the layers: the CLS token must stay out of it, and pixel shuffle joins neighbours, which merged tokens no longer have.

Which pictures are frames
    The processor hands over all pictures as one ``pixel_values``: a tile of an image and a frame of a clip look alike.
    What tells them apart is the text that it writes around a clip, and never around an image:
    ``Frame1: <img>...</img>``, a line break, ``Frame2: <img>...</img>``, and so on. Qwen's vocabulary, which all these
    checkpoints have, always writes it with the same ids: each label between two special tokens, one id a digit. So a
    clip is a series of single pictures with exactly these labels and nothing else between them, which count from one.
    Every other picture is an image, however many stand in a row. Labels that are these very words but do not count in
    this way (a second frame without a first, text between two frames, a frame of several tiles) were not written by
    the processor, and are refused. Who labels images of a single tile by hand in exactly the processor's words has
    written a video: not even the model can tell the two apart.

    Only the first word may have grown together with the user's text in front of it (a space, a full stop, ...); what
    the vocabulary has for that is known, anything else in front of a second frame is refused, too.

What is removed
    A kept token stays between the ``<img>`` and ``</img>`` of its own frame, whose label stays, too. A frame that keeps
    no token leaves with its whole text, label and line break included; only a first one whose word has grown together
    with the user's text stays, as ``Frame1: <img></img>``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from earlytom.errors import CompressionError, ModelError
from earlytom.models.attention import captured_outputs, heads_mean, heads_received_attention
from earlytom.models.base import FrameVisitor
from earlytom.models.language_model import StockLanguageModel
from earlytom.models.prompt import HostPrompt, by_frame, prefill_inputs, shorten_prompt
from earlytom.types import EncoderShape, FrameGrid, KeptTokens, PrefillInputs

__all__ = ["InternVLAdapter"]

# Qwen's vocabulary, the same from Qwen2 on. Digits are ids of their own; a label always ends in a colon and a space.
_LANGUAGE_MODELS = ("qwen2", "qwen3", "qwen3_moe")
_LINE_BREAK, _FRAME, _COLON, _SPACE, _ZERO = 198, 4369, 25, 220, 15
# " Frame", ".Frame", "_Frame", "(Frame": what can become of the first label's word behind other text.
_GROWN_FRAMES = (16321, 36434, 68403, 91008)

# Arguments of stock generate() and forward() that are used up here: the prompt leaves with its features in place.
_CONSUMED = ("pixel_values", "image_sizes", "vision_feature_layer", "vision_feature_select_strategy", "inputs_embeds")
# Overrides that stock accepts per call; the adapter follows the configuration only.
_OVERRIDES = ("vision_feature_layer", "vision_feature_select_strategy")


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One ``<img>...</img>`` of a prompt: a frame, or an image with all its tiles.

    Attributes:
        row: the sample.
        start: position of its first placeholder.
        stop: the position behind its last one.
        tile: number of its first picture in ``pixel_values``.
        tiles: number of its pictures.
        number: what its label counts, when it has the label of a frame; 0 otherwise.
        label: position of the label's first token; ``None`` where that belongs to the user's text as well.
        follows: whether there is only a line break between the picture before and the label.
    """

    row: int
    start: int
    stop: int
    tile: int
    tiles: int
    number: int = 0
    label: int | None = None
    follows: bool = False


@dataclass(frozen=True)
class _Pictures:
    """The pictures of a batch in their order: the frames of each clip, and all images."""

    clips: list[list[_Run]]
    images: list[_Run]

    def frames(self) -> list[_Run]:
        """Those of all clips, behind one another."""
        return [run for clip in self.clips for run in clip]


class InternVLAdapter(StockLanguageModel):
    """Implements `earlytom.models.base.ModelAdapter`."""

    # The first dimension of pixel_values counts pictures, not clips.
    clip_arguments: tuple[str, ...] = ()
    sequential_positions = True

    def check(self, model: nn.Module) -> None:
        config = cast(Any, model).config
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
        layers = len(cast(Any, model).model.vision_tower.encoder.layer)
        if not isinstance(layer, int) or not -layers <= layer <= layers or layer == 0:
            raise ModelError(f"vision_feature_layer must be one of the {layers} layers' outputs, got {layer!r}")
        (height, width), block = _patches(config), _block(config)
        if height != width or height % block:
            raise ModelError(
                f"the tower must see squares whose side is a multiple of {block} patches, got {height} x {width}"
            )

    def encoder(self, model: nn.Module) -> EncoderShape:
        return EncoderShape(depth=self._depth(model), token_merging=False, pooling_head=False)

    def prompt(self, model: nn.Module, inputs: Mapping[str, Any]) -> HostPrompt | None:
        ids, pixels, config = inputs.get("input_ids"), inputs.get("pixel_values"), cast(Any, model).config
        if ids is None and pixels is not None:
            raise CompressionError("pixel_values was given without input_ids; pass the processor's whole output")
        if ids is None or (pixels is None and inputs.get("inputs_embeds") is not None):
            return None
        if not (ids == config.image_token_id).any():
            return None
        host = ids.cpu()
        if not _read_pictures(host, config).clips:
            return None
        if pixels is None:
            raise CompressionError(
                "the prompt holds the frames of a video but pixel_values is missing, so nothing could be compressed; "
                "call model.generate(**inputs) inside the block with the processor's whole output (for a further "
                "turn: the whole history with its video, not the cache of a compressed call)"
            )
        _check_call(inputs, pixels, tuple(config.vision_config.image_size))
        mask = inputs.get("attention_mask")
        if mask is not None and mask.shape != ids.shape:
            raise CompressionError(f"attention_mask must be {tuple(ids.shape)} like input_ids, got {tuple(mask.shape)}")
        if cast(Any, model).model.vision_tower.embeddings.cls_token.is_meta:
            raise ModelError("a model with offloaded weights cannot be compressed; load it whole")
        return HostPrompt(ids=host, mask=torch.ones_like(host) if mask is None else mask.cpu())

    def grids(self, model: nn.Module, inputs: Mapping[str, Any], prompt: HostPrompt) -> list[FrameGrid]:
        config = cast(Any, model).config
        pictures, per_tile = _read_pictures(prompt.ids, config), _tokens_per_tile(config)
        lengths = [run.stop - run.start for run in (*pictures.frames(), *pictures.images)]
        given = inputs["pixel_values"].shape[0]
        if sum(lengths) != given * per_tile or any(length % per_tile for length in lengths):
            raise CompressionError(
                f"the prompt holds {sum(lengths)} placeholder tokens, but the {given} pictures in pixel_values need "
                f"{per_tile} each; pass the processor's input_ids and pixel_values together, unchanged"
            )
        side = _patches(config)[0] // _block(config)
        return [FrameGrid(frames=len(clip), rows=side, columns=side) for clip in pictures.clips]

    def encode(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        grids: Sequence[FrameGrid],
        clips: Sequence[int],
        visitor: FrameVisitor,
    ) -> Tensor:
        """The visitor gets the patches; the CLS token of each frame goes along, and merges with its frame.

        The attention received is that of the whole layer, in which CLS attends and is attended to, but only the
        patches' part of it is reported, so that it sums to less than one.
        """
        inner, layers = cast(Any, model).model, self._depth(model)
        # All frames have one size here, so that ``clips`` are all the clips there are.
        pixels = self._frames(model, inputs, grids)
        if visitor.plan.fingerprint:
            visitor.receive_pixels(pixels)
        hidden = inner.vision_tower.embeddings(pixels.to(inner.dtype))
        for index, layer in enumerate(inner.vision_tower.encoder.layer[:layers]):
            if index == visitor.plan.attention_layer:
                attention = layer.attention
                with captured_outputs(attention.q_norm, attention.k_norm) as captured:
                    hidden = layer(hidden)
                heads, scale = attention.num_heads, attention.scale
                received = partial(heads_received_attention, *captured, heads=heads, scale=scale)
                visitor.receive_attention(_of_patches(received))
                if visitor.plan.keys:
                    visitor.receive_keys(_of_patches(partial(heads_mean, captured[1], heads=heads)))
            else:
                hidden = layer(hidden)
            patches = hidden[:, 1:]
            left, (cls,) = visitor.after_layer(index, patches, [hidden[:, :1]])
            if left is not patches:
                hidden = torch.cat((cls, left), dim=1)
        if cast(Any, model).config.vision_feature_layer == -1:
            hidden = inner.vision_tower.layernorm(hidden)
        return hidden[:, 1:]

    def project(self, model: nn.Module, hidden: Tensor, grid: FrameGrid) -> Tensor:
        inner, config = cast(Any, model).model, cast(Any, model).config
        maps = hidden.reshape(hidden.shape[0], *_patches(config), hidden.shape[-1])
        shuffled = inner.pixel_shuffle(maps, scale_factor=config.downsample_ratio)
        return cast(Tensor, inner.multi_modal_projector(shuffled.flatten(1, 2)))

    def project_tokens(self, model: nn.Module, hidden: Tensor) -> Tensor:
        raise ModelError("InternVL's projector takes blocks of neighbouring patches, which merged tokens are not")

    def pool_attention(self, model: nn.Module, attention: Tensor, grid: FrameGrid) -> Tensor:
        block = _block(cast(Any, model).config)  # of patches that pixel shuffle makes one token: their mean
        return attention.reshape(-1, grid.rows, block, grid.columns, block).mean(dim=(2, 4)).flatten(1)

    def assemble(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        prompt: HostPrompt,
        grids: Sequence[FrameGrid],
        kept: Sequence[KeptTokens],
    ) -> PrefillInputs:
        pictures = _read_pictures(prompt.ids, cast(Any, model).config)
        keep = torch.ones_like(prompt.ids, dtype=torch.bool)
        is_video = torch.zeros_like(keep)
        for run in pictures.frames():
            is_video[run.row, run.start : run.stop] = True
        ordered, counts = by_frame(kept, grids)
        for clip, left in zip(pictures.clips, counts, strict=True):
            _leave_out(keep, clip, left)
        short = shorten_prompt(keep, is_video, pad_right=prompt.right_padded)
        device = inputs["input_ids"].device
        embeds = cast(Any, model).get_input_embeddings()(short.take(prompt.ids, 0).to(device, non_blocking=True))
        embeds = _put(embeds, short.take(is_video, 0), torch.cat([tokens.features for tokens in ordered]))
        if pictures.images:
            pixels = inputs["pixel_values"][_tiles(pictures.images)]
            of_images = cast(Any, model).model.get_image_features(pixels, return_dict=True).pooler_output
            is_image = (prompt.ids == cast(Any, model).config.image_token_id) & ~is_video
            embeds = _put(embeds, short.take(is_image, 0), of_images)
        return prefill_inputs(inputs, prompt, short, embeds, _CONSUMED)

    @staticmethod
    def _depth(model: nn.Module) -> int:
        """Layers that run for the features in use (transformers counts hidden states from the end or the start)."""
        layer = int(cast(Any, model).config.vision_feature_layer)
        return layer if layer > 0 else len(cast(Any, model).model.vision_tower.encoder.layer) + 1 + layer

    @staticmethod
    def _frames(model: nn.Module, inputs: Mapping[str, Any], grids: Sequence[FrameGrid]) -> Tensor:
        """The frames of all clips, behind one another; without images that is every picture there is."""
        pixels: Tensor = inputs["pixel_values"]
        if sum(grid.frames for grid in grids) == pixels.shape[0]:
            return pixels
        pictures = _read_pictures(inputs["input_ids"].cpu(), cast(Any, model).config)
        return pixels[_tiles(pictures.frames())]


def _check_call(inputs: Mapping[str, Any], pixels: Any, size: tuple[int, ...]) -> None:
    """Raise `CompressionError` for what cannot go with a video that is to be compressed."""
    for name in ("inputs_embeds", "mm_encoder_outputs", "labels"):
        if inputs.get(name) is not None:
            raise CompressionError(f"{name} cannot be given together with a video that is to be compressed")
    for name in _OVERRIDES:
        if inputs.get(name) is not None:
            raise CompressionError(f"{name} cannot be overridden per call while compressing; set it in model.config")
    shape = tuple(getattr(pixels, "shape", ()))
    if len(shape) != 4 or 0 in shape or shape[-2:] != size:
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


def _tiles(runs: Sequence[_Run]) -> list[int]:
    """Numbers of all pictures of some runs."""
    return [tile for run in runs for tile in range(run.tile, run.tile + run.tiles)]


def _read_pictures(ids: Tensor, config: Any) -> _Pictures:
    """Tell the clips of a batch from its images, by the rule at the head of this module.

    Args:
        ids: [B, S] int64 on the host.
        config: of the model.

    Raises:
        CompressionError: labels of frames that are no clip as the processor writes one.
    """
    pictures, per_tile, tile = _Pictures(clips=[], images=[]), _tokens_per_tile(config), 0
    for row, values in enumerate(ids.tolist()):
        earlier: _Run | None = None
        for start, stop in _spans(ids[row] == config.image_token_id):
            run = _Run(row=row, start=start, stop=stop, tile=tile, tiles=(stop - start) // per_tile)
            run = _labelled(run, values, earlier)
            single = stop - start == per_tile
            if run.number == 0:
                pictures.images.append(run)
            elif single and run.number == 1:
                pictures.clips.append([run])
            elif single and run.follows and earlier is not None and 0 < earlier.number == run.number - 1:
                pictures.clips[-1].append(run)
            else:
                raise CompressionError(
                    f"picture {tile} of the prompt ({stop - start} placeholder tokens in sample {row}) is labelled "
                    f"'Frame{run.number}: ', but not as the processor labels a video: 'Frame1: <img>...</img>', a line "
                    f"break, 'Frame2: <img>...</img>' and so on, {per_tile} placeholder tokens each. Give the "
                    "processor the video as such, behind a line break where there is text before it; label images in "
                    "other words"
                )
            earlier, tile = run, tile + run.tiles
    return pictures


def _spans(marked: Tensor) -> list[tuple[int, int]]:
    """Start and stop of each run of true values in a [S] bool."""
    edge = marked.new_zeros(1)
    edges = torch.cat((edge, marked, edge)).to(torch.int8).diff().nonzero().flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _labelled(run: _Run, values: Sequence[int], earlier: _Run | None) -> _Run:
    """Read the label of a frame in front of a picture, where there is one, from the ids of its sample."""
    floor = -1 if earlier is None else earlier.stop  # that is where </img> stands
    place = run.start - 4  # behind it stand the colon, the space and <img>
    if place <= floor or list(values[place + 1 : place + 3]) != [_COLON, _SPACE]:
        return run
    digits = ""
    while place > floor and 0 <= values[place] - _ZERO <= 9:
        digits, place = f"{values[place] - _ZERO}{digits}", place - 1
    if place <= floor or not digits or digits[0] == "0" or values[place] not in (_FRAME, *_GROWN_FRAMES):
        return run
    if values[place] != _FRAME:
        return replace(run, number=int(digits))
    follows = earlier is not None and place == earlier.stop + 2 and values[place - 1] == _LINE_BREAK
    return replace(run, number=int(digits), label=place, follows=follows)


def _put(embeds: Tensor, places: Tensor, features: Tensor) -> Tensor:
    """``embeds`` [B, S, C] with ``features`` in the ``places`` [B, S], in their order."""
    return embeds.masked_scatter(places.unsqueeze(-1).to(embeds.device), features.to(embeds))


def _leave_out(keep: Tensor, clip: Sequence[_Run], counts: Sequence[int]) -> None:
    """Mark in the [B, S] ``keep`` what goes from one clip: placeholders, and the text of frames without any left."""
    begun = False
    for run, count in zip(clip, counts, strict=True):
        keep[run.row, run.start + count : run.stop] = False
        gone = count == 0 and run.label is not None
        if gone:
            keep[run.row, run.label : run.stop + 1] = False
        if run.label is not None and run is not clip[0] and (gone or not begun):
            keep[run.row, run.label - 1] = False  # the line break, which stands between two frames that are left
        begun = begun or not gone
