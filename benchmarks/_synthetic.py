"""A clip made of tensors instead of a model: what methods are given, at real sizes, without the model's own work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from _harness import Outcome, Variant
from earlytom.methods.base import Method
from earlytom.ops import pool_bilinear
from earlytom.stages import ClipSession, FrameBatch, SessionBatch
from earlytom.trace import Stopwatch, VideoTrace
from earlytom.types import EncoderShape, FrameGrid, KeptTokens, LanguageStates

DEPTH, LANGUAGE_DEPTH = 26, 28
"""Layers of the SigLIP tower and of the 7B language model of LLaVA-OneVision."""
_HEAD_WIDTH = 72
_SCENE = 8
# Drift from frame to frame, and the share of tokens that change wholly: about as much stays the same as changes.
_DRIFT, _MOVING = 0.15, 0.3


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Shape of a clip.

    Attributes:
        frames: sampled frames.
        rows: of pooled tokens.
        columns: of pooled tokens.
        width: of the language model.
        side: patches along each side of a frame inside the encoder.
        encoder_width: of the encoder.
    """

    frames: int
    rows: int
    columns: int
    width: int
    side: int
    encoder_width: int

    @property
    def grid(self) -> FrameGrid:
        return FrameGrid(frames=self.frames, rows=self.rows, columns=self.columns)

    @property
    def name(self) -> str:
        return f"{self.frames} x {self.rows * self.columns}"


def scenes(frames: int, tokens: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[frames, tokens, width]: scenes of eight frames that drift, and tokens that change from frame to frame."""
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, width, generator=generator, device=device)

    still = random(-(-frames // _SCENE), tokens)
    made = torch.empty(frames, tokens, width, device=device, dtype=dtype)
    for frame in range(frames):
        moving = torch.rand(tokens, 1, generator=generator, device=device) < _MOVING
        made[frame] = torch.where(moving, random(tokens), still[frame // _SCENE] + _DRIFT * random(tokens)).to(dtype)
    return made


class SyntheticClip:
    """Stands for a clip in a vision encoder that computes nothing, and only shows what a method would see."""

    def __init__(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> None:
        self.sizes, patches = sizes, sizes.side**2
        self.states = scenes(sizes.frames, patches, sizes.encoder_width, device, dtype)
        self.tokens = scenes(sizes.frames, sizes.rows * sizes.columns, sizes.width, device, dtype)
        self.descriptions = scenes(sizes.frames, 1, sizes.encoder_width, device, dtype)[:, 0]
        self.keys = self.states[:, :, :_HEAD_WIDTH].float().contiguous()
        self.attention = torch.rand(sizes.frames, patches, device=device).softmax(dim=1)

    def keep(self, method: Method, clock: Stopwatch) -> tuple[KeptTokens, VideoTrace]:
        """The tokens that a method keeps, by the stages' own code."""
        session = ClipSession(method, self.sizes.grid, EncoderShape(depth=DEPTH))
        batch = SessionBatch([session], clock)
        with clock.stage("encoder"):
            hidden = self._encode(batch).hidden
        if batch.leaves_unpooled:
            (kept,) = batch.keep_unpooled(self.tokens[:, : hidden.shape[1]], self._pool)
        else:
            (kept,) = batch.select(self.tokens[: hidden.shape[0]], self._pool)
        return kept, session.trace

    def _encode(self, visitor: SessionBatch) -> FrameBatch:
        batch = FrameBatch(hidden=self.states, grids_per_clip=visitor.grids_per_clip)
        if visitor.requests.fingerprint:
            visitor.receive_pixels(self.states)
        for layer in range(DEPTH):
            batch = visitor.after_layer(layer, self._run_layer(layer, batch, visitor))
        if visitor.requests.pooling_head:
            frames = batch.hidden.shape[0]
            visitor.receive_pooling(lambda: (self.attention[:frames], self.descriptions[:frames]))
        return batch

    def _run_layer(self, layer: int, batch: FrameBatch, visitor: SessionBatch) -> FrameBatch:
        requests, (frames, tokens) = visitor.requests, batch.hidden.shape[:2]
        if layer in requests.attention_layers:
            visitor.receive_attention(layer, lambda: self.attention[:frames, :tokens])
        if layer in requests.key_layers:
            visitor.receive_keys(layer, lambda: self.keys[:frames, :tokens])
        if layer in requests.token_layers:
            batch = visitor.merge_tokens(layer, batch, self.keys[:frames, :tokens])
        return batch

    def _pool(self, attention: Tensor) -> Tensor:
        return pool_bilinear(attention, side=self.sizes.side, pooled=(self.sizes.rows, self.sizes.columns))


def processing(clip: SyntheticClip, method: Method, device: torch.device) -> Variant:
    """What a method does with a clip, through the stages' own code: merging, selection, reduction in the LLM."""

    def call() -> tuple[Stopwatch, int, Sequence[int]]:
        clock = Stopwatch(device)
        kept, trace = clip.keep(method, clock)
        features, left = kept.features, []
        with clock.stage("language"):
            for layer in method.llm_plan(LANGUAGE_DEPTH).reduce_before:
                states = LanguageStates(
                    features=features,
                    attention=features[:, 0].float(),
                    entered=trace.tokens,
                    depth=LANGUAGE_DEPTH,
                )
                reduction = method.reduce_in_llm(states, layer)
                features = features if reduction is None else reduction.apply(features)
                left.append(features.shape[0])
        return clock, trace.tokens, left

    def read(result: tuple[Stopwatch, int, Sequence[int]]) -> Outcome:
        clock, tokens, left = result
        spent = clock.milliseconds()
        stages = {name: spent.get(name, 0.0) for name in ("merging", "selection", "language")}
        return stages, {"method": method.describe(), "visual_tokens": tokens, "inside_the_language_model": left}

    return Variant(call, read)
