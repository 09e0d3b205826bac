"""LLaVA-Video: `earlytom.models.llava_video.model.LlavaVideoForConditionalGeneration` of any size.

The encoder is LLaVA-OneVision's. What differs is the pooling, and the newline embeddings: with one after each row,
rows of which nothing is left lose theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from earlytom.errors import CompressionError, ModelError
from earlytom.layouts.prompt import HostPrompt, on_host
from earlytom.models.base import Host, Tower, VideoCall
from earlytom.models.llava_onevision import LlavaOnevisionCall, LlavaOnevisionHost, LlavaOnevisionTower
from earlytom.models.llava_video.layout import VideoLayout
from earlytom.models.llava_video.model import LlavaVideoForConditionalGeneration, text_embeddings
from earlytom.types import EncoderShape, FrameGrid, KeptTokens

__all__ = ["LlavaVideoHost"]


class LlavaVideoHost(LlavaOnevisionHost):
    """Implements `earlytom.models.base.Host`."""

    def check(self) -> None:
        if not isinstance(self.model, LlavaVideoForConditionalGeneration):
            raise ModelError(
                f"expected a {LlavaVideoForConditionalGeneration.__name__}, got {type(self.model).__name__}; pass the "
                "model itself, not a part of it (what a wrapper is around: PEFT's model.get_base_model(), others' "
                ".module)"
            )
        super().check()
        layer, vision = self.config.vision_feature_layer, self.config.vision_config
        if layer != -1:
            raise ModelError(f"LLaVA-Video takes the last layer's output: vision_feature_layer must be -1, got {layer}")
        VideoLayout.of(self.config).pooled(vision.image_size // vision.patch_size)

    def encoder_shape(self) -> EncoderShape:
        # The largest of several patches is no mean of them.
        return replace(super().encoder_shape(), cells=VideoLayout.of(self.config).pool_mode != "max")

    def open(self, inputs: Mapping[str, Any]) -> VideoCall | None:
        if inputs.get("pixel_values") is not None:
            raise CompressionError("images are not supported with LLaVA-Video; give a video of one frame instead")
        prompt = self.read_prompt(inputs)
        return None if prompt is None else _LlavaVideoCall(self, inputs, prompt)

    def tower(self, grid: FrameGrid) -> Tower:
        return _LlavaVideoTower(self, grid)


class _LlavaVideoTower(LlavaOnevisionTower):
    def pool_attention(self, attention: Tensor) -> Tensor:
        return VideoLayout.of(self.config).pool(attention[..., None], self._side)[..., 0]


class _LlavaVideoCall(LlavaOnevisionCall):
    def __init__(self, host: Host, inputs: Mapping[str, Any], prompt: HostPrompt) -> None:
        super().__init__(host, inputs, prompt)
        self._layout = VideoLayout.of(self.config)

    def pooled(self, side: int) -> int:
        return self._layout.pooled(side)

    def length(self, grid: FrameGrid) -> int:
        return self._layout.length(grid)

    def sequences(self, kept: Sequence[KeptTokens]) -> list[Tensor]:
        newline = self.model.model.image_newline
        places = [tokens.places for tokens in kept]
        if self._layout.ends_groups:
            places = on_host(places)
        return [
            self._layout.sequence(tokens.features, there, grid, newline)
            for tokens, there, grid in zip(kept, places, self.grids, strict=True)
        ]

    def embed_text(self, ids: Tensor) -> Tensor:
        return text_embeddings(self.model, ids)
