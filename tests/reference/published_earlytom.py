"""EarlyTom as published, plain and slow: the benchmarks' baseline, and the reference for our official variant.

Written from the specification of what the authors' code does, not from the code. What makes it the published way:

- eager attention in every encoder layer, so a [T, H, L, L] map is made at each of them, and the maps of a merge layer
  are merged like the features; attention received is the mean of the last merge layer's merged maps;
- segmentation and merging frame by frame in Python on 0-dim tensors of the model's dtype: one wait for the device for
  each frame;
- selection frame by frame with ``topk``.

Nothing is slower than it need be within that: one layer's maps are kept at a time, the windows of a frame are taken two
sizes at a time, and where the published way leaves a choice the cheaper one is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Segment = tuple[int, int]


class Clock(Protocol):
    """Times stages: ``encoder``, ``merging``, ``received``, ``projection``, ``selection``, ``assembly``."""

    def stage(self, name: str) -> AbstractContextManager[None]: ...


class NoClock:
    """Times nothing."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()


@dataclass(frozen=True, kw_only=True)
class PublishedSettings:
    """The knobs of the authors' scripts.

    Attributes:
        retention: target share of visual tokens, in (0, 1].
        tau_seg: a segment ends where the smoothed similarity falls below this.
        merge_layers: 0-based encoder layers after which frames merge.
        ema: weight of the newest similarity.
        max_window: a segment has at most ``max_window - 1`` frames.
    """

    retention: float
    tau_seg: float
    merge_layers: tuple[int, ...]
    ema: float = 0.9
    max_window: int = 6


@dataclass(frozen=True, kw_only=True)
class PublishedTokens:
    """What goes into the language model.

    Attributes:
        tokens: [K + 1, C] kept tokens in temporal and raster order, then the newline.
        frames_after: frames left after each merge layer.
        segments: inclusive segments of the merged frames.
    """

    tokens: Tensor
    frames_after: tuple[int, ...]
    segments: list[Segment]


@torch.no_grad()
def published_tokens(
    model: Any, pixels: Tensor, settings: PublishedSettings, clock: Clock | None = None
) -> PublishedTokens:
    """Encode, merge, project and select one clip.

    Args:
        model: stock ``LlavaOnevisionForConditionalGeneration``.
        pixels: [T, 3, H, W] frames, on the model's device and in its dtype.
    """
    clock = clock or NoClock()
    base = model.model
    hidden, maps, frames_after, segments = _encode(base, pixels, settings, clock)
    with clock.stage("received"):
        side = math.isqrt(hidden.shape[1])
        received = maps.mean(dim=(1, 2)).view(-1, 1, side, side)
    with clock.stage("projection"):
        features = base.apply_pooling(base.multi_modal_projector(hidden))
        pooled = (math.ceil(side / 2), math.ceil(side / 2))
        scores = torch.nn.functional.interpolate(received, size=pooled, mode="bilinear").flatten(1)
    with clock.stage("selection"):
        rescaled = min(settings.retention / (features.shape[0] / pixels.shape[0]), 1.0)
        kept = select(features, scores, segments, rescaled)
    with clock.stage("assembly"):
        tokens = torch.cat([kept, base.image_newline[None].to(kept.dtype)])
    return PublishedTokens(tokens=tokens, frames_after=tuple(frames_after), segments=segments)


@torch.no_grad()
def published_generate(
    model: Any, inputs: dict[str, Tensor], settings: PublishedSettings, clock: Clock | None = None, **options: Any
) -> tuple[Any, PublishedTokens]:
    """One clip, one prompt: the visual tokens in place of the placeholders, then stock ``generate``.

    Returns:
        What ``generate`` returned for the embeddings, and the visual tokens.
    """
    clock = clock or NoClock()
    visual = published_tokens(model, inputs["pixel_values_videos"][0], settings, clock)
    with clock.stage("assembly"):
        ids = inputs["input_ids"][0]
        placeholders = (ids == model.config.video_token_id).nonzero().flatten()
        first, last = int(placeholders[0]), int(placeholders[-1])
        embed = model.get_input_embeddings()
        embeds = torch.cat([embed(ids[:first]), visual.tokens, embed(ids[last + 1 :])])[None]
        mask = torch.ones(embeds.shape[:2], dtype=torch.int64, device=embeds.device)
    return model.generate(inputs_embeds=embeds, attention_mask=mask, **options), visual


def _encode(
    base: Any, pixels: Tensor, settings: PublishedSettings, clock: Clock
) -> tuple[Tensor, Tensor, list[int], list[Segment]]:
    """The encoder with eager attention everywhere; merges features and maps after each merge layer."""
    tower = base.vision_tower
    frames_after: list[int] = []
    kept_maps, segments = torch.empty(0), [(0, pixels.shape[0] - 1)]
    with eager_attention(tower.encoder.layers[0].self_attn.config):
        with clock.stage("encoder"):
            hidden = tower.embeddings(pixels)
        for index, block in enumerate(tower.encoder.layers):
            with clock.stage("encoder"):
                hidden, maps = _run_block(block, hidden)
            if index not in settings.merge_layers:
                continue
            with clock.stage("merging"):
                hidden, maps = merge(hidden, maps, segment(hidden, settings))
                frames_after.append(hidden.shape[0])
                if index == settings.merge_layers[-1]:
                    kept_maps, segments = maps, segment(hidden, settings)
    return hidden, kept_maps, frames_after, segments


def _run_block(block: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """A stock SigLIP block with its attention maps [T, H, L, L]."""
    output, maps = block.self_attn(hidden_states=block.layer_norm1(hidden), attention_mask=None)
    hidden = hidden + output
    return hidden + block.mlp(block.layer_norm2(hidden)), maps


@contextmanager
def eager_attention(config: Any) -> Iterator[None]:
    """Switch the stock blocks of this configuration to eager attention for a while."""
    before = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = before


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Mean over the tokens of the cosine of two frames [L, D]; 0-dim, dtype of the frames."""
    return torch.nn.functional.cosine_similarity(first, second, dim=-1).mean()


def segment(frames: Tensor, settings: PublishedSettings) -> list[Segment]:
    """Cut [N, L, D] frames into inclusive segments, one comparison (and one wait) a frame."""
    if frames.shape[0] <= 1:
        return [(0, frames.shape[0] - 1)]
    segments: list[Segment] = []
    start = 0
    smoothed = torch.ones((), dtype=frames.dtype, device=frames.device)
    for index in range(1, frames.shape[0]):
        newest = similarity(frames[start], frames[index])
        smoothed = settings.ema * newest + (1 - settings.ema) * smoothed
        if smoothed < settings.tau_seg or index - start + 1 >= settings.max_window:
            segments.append((start, index - 1))
            start = index
            smoothed = torch.ones_like(smoothed)
    segments.append((start, frames.shape[0] - 1))
    return segments


def merge(frames: Tensor, maps: Tensor, segments: list[Segment]) -> tuple[Tensor, Tensor]:
    """Merge the middle frames of each segment, and the attention maps with the same weights."""
    if frames.shape[0] <= 1:
        return frames, maps
    features_out: list[Tensor] = []
    maps_out: list[Tensor] = []
    for first, last in segments:
        if last - first < 3:
            features_out.extend(frames[first : last + 1])
            maps_out.extend(maps[first : last + 1])
            continue
        features_out.append(frames[first])
        maps_out.append(maps[first])
        for source, weight in _middle(frames, first, last):
            features_out.append(_pair(frames, source, weight))
            maps_out.append(_pair(maps, source, weight))
        features_out.append(frames[last])
        maps_out.append(maps[last])
    return torch.stack(features_out), torch.stack(maps_out)


def _middle(frames: Tensor, first: int, last: int) -> list[tuple[int, Tensor | None]]:
    """(frame, weight) of each output between the ends; ``None`` for a plain copy. The last middle frame vanishes."""
    threshold = similarity(frames[first], frames[last])
    pairs = [similarity(frames[index], frames[index + 1]) for index in range(first + 1, last - 1)]
    outputs: list[tuple[int, Tensor | None]] = []
    number = 0
    while number < len(pairs):
        current = pairs[number]
        following = pairs[number + 1] if number + 1 < len(pairs) else None
        if current > threshold and (following is None or current > following):
            # The last pair takes all of its first frame.
            weight = None if following is None or following == 0 else current / (current + following)
            outputs.append((first + 1 + number, weight))
            number += 2
        else:
            outputs.append((first + 1 + number, None))
            number += 1
    return outputs


def _pair(rows: Tensor, index: int, weight: Tensor | None) -> Tensor:
    return rows[index] if weight is None else weight * rows[index] + (1 - weight) * rows[index + 1]


def select(features: Tensor, scores: Tensor, segments: list[Segment], rescaled: float) -> Tensor:
    """Keep tokens frame by frame: top-k in dynamic frames, the best of each local window in static ones.

    Args:
        features: [N, P, C] pooled tokens.
        scores: [N, P] pooled attention received.
        segments: inclusive segments of the N frames.
        rescaled: r^, in (0, 1].

    Returns:
        [K, C] kept tokens.
    """
    tokens = features.shape[1]
    several, few = math.ceil(tokens * rescaled), max(1, round(tokens * rescaled))
    kept: list[Tensor] = []
    for first, last in segments:
        for frame in range(first, last + 1):
            if frame in (first, last):
                chosen = scores[frame].topk(several).indices.sort().values
            else:
                chosen = _best_of_windows(scores[frame], few)
            kept.append(features[frame, chosen])
    return torch.cat(kept)


def _best_of_windows(scores: Tensor, windows: int) -> Tensor:
    """The best token of each of ``windows`` stretches of the raster sequence, the longer ones first."""
    base, longer = divmod(scores.shape[0], windows)
    edge = longer * (base + 1)
    chosen = []
    for start, stop, size in ((0, edge, base + 1), (edge, scores.shape[0], base)):
        if stop > start:
            best = scores[start:stop].view(-1, size).topk(1).indices.flatten()
            chosen.append(best + torch.arange(start, stop, size, device=scores.device))
    return torch.cat(chosen)
