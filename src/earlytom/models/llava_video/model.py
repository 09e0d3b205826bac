"""LLaVA-Video (``lmms-lab/LLaVA-Video-7B-Qwen2``) as a model of its own, put together from stock transformers modules.

transformers has no class for it. It differs from LLaVA-OneVision in what becomes of a frame behind the projector: the
pooling, and a newline embedding after every row. Loaded by `earlytom.models.llava_video.conversion`, or by
``from_pretrained`` from what ``save_pretrained`` wrote.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from earlytom.errors import ModelError
from earlytom.models.llava_video.layout import VideoLayout
from earlytom.types import FrameGrid

__all__ = ["LlavaVideoConfig", "LlavaVideoForConditionalGeneration", "LlavaVideoModel", "text_embeddings"]

_NO_IMAGES = "images are not supported with LLaVA-Video; give a video of one frame instead"


class LlavaVideoConfig(LlavaOnevisionConfig):  # type: ignore[misc]  # transformers carries no annotations
    """The configuration of `LlavaVideoForConditionalGeneration`.

    Attributes:
        spatial_pool_mode: ``"average"``, ``"max"`` or ``"bilinear"``.
        spatial_pool_stride: patches that become one token, along each side.
        newline_position: ``"grid"``, ``"frame"``, ``"one_token"`` or ``"no_token"``; see `VideoLayout`.
    """

    model_type = "llava_video"

    spatial_pool_mode: str = "bilinear"
    spatial_pool_stride: int = 2
    newline_position: str = "grid"


class LlavaVideoModel(LlavaOnevisionModel):  # type: ignore[misc]
    """Vision tower, projector, pooling, newlines and language model; videos only."""

    config_class = LlavaVideoConfig

    def __init__(self, config: LlavaVideoConfig) -> None:
        layout, vision = VideoLayout.of(config), config.vision_config
        layout.pooled(vision.image_size // vision.patch_size)
        super().__init__(config)

    def get_image_features(self, pixel_values: Tensor | None = None, **kwargs: Any) -> Any:
        """Refused: raises `ModelError`."""
        raise ModelError(_NO_IMAGES)

    def get_video_features(self, pixel_values_videos: Tensor | None = None, **kwargs: Any) -> Any:
        """What stands in the prompt for some clips.

        Args:
            pixel_values_videos: [V, T, 3, H, W] pixels. (transformers before 5.18 calls it ``pixel_values``.)
            **kwargs: what transformers passes besides; without effect.

        Returns:
            An output whose ``pooler_output`` is [V, S, C], newlines included, and ``last_hidden_state``
            [V * T, L, D], what the encoder gave.

        Raises:
            ModelError: no pixels, or features of another layer than the last are asked for.
        """
        pixels = kwargs.pop("pixel_values", None) if pixel_values_videos is None else pixel_values_videos
        if pixels is None:
            raise ModelError("pixel_values_videos is missing")
        if kwargs.pop("vision_feature_layer", None) not in (None, -1):
            raise ModelError("LLaVA-Video takes the last layer's output; vision_feature_layer must be -1")
        if kwargs.pop("vision_feature_select_strategy", None) not in (None, "full"):
            raise ModelError("LLaVA-Video takes all patches; vision_feature_select_strategy must be 'full'")
        tower = self.vision_tower
        hidden = tower.encoder(inputs_embeds=tower.embeddings(pixels.flatten(0, 1))).last_hidden_state
        features = self.apply_pooling(self.multi_modal_projector(hidden))
        clips, layout = features.unflatten(0, pixels.shape[:2]), VideoLayout.of(self.config)
        side = layout.pooled(self._side)
        grid = FrameGrid(frames=pixels.shape[1], rows=side, columns=side)
        places = torch.arange(grid.tokens)
        sequences = [layout.sequence(clip.flatten(0, 1), places, grid, self.image_newline) for clip in clips]
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=torch.stack(sequences))

    def apply_pooling(self, image_features: Tensor) -> Tensor:
        """[F, L, C] projected features to [F, P, C], by the configuration's pooling."""
        return VideoLayout.of(self.config).pool(image_features, self._side)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Like the stock model's forward, for prompts with videos.

        Raises:
            ModelError: there are images, or the placeholders do not match the videos.
        """
        if pixel_values is not None:
            raise ModelError(_NO_IMAGES)
        video = (mm_encoder_outputs or {}).get("video")
        if video is None and pixel_values_videos is not None:
            video = self.get_video_features(pixel_values_videos)
        if inputs_embeds is None and input_ids is not None:
            inputs_embeds = text_embeddings(self, input_ids)
        if video is not None:
            if input_ids is None or inputs_embeds is None:
                raise ModelError("a video needs input_ids, which hold its placeholders")
            inputs_embeds = self._with_video(input_ids, inputs_embeds, video.pooler_output)
        return super().forward(inputs_embeds=inputs_embeds, **kwargs)

    @property
    def _side(self) -> int:
        vision = self.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def _with_video(self, ids: Tensor, embeds: Tensor, features: Tensor) -> Tensor:
        """Put [V, S, C] features in the place of the placeholders."""
        places = (ids == self.config.video_token_id).to(embeds.device)
        found, expected = int(places.sum()), features.shape[0] * features.shape[1]
        if found != expected:
            raise ModelError(
                f"the prompt holds {found} video placeholder tokens, but its {features.shape[0]} video(s) need "
                f"{expected}"
            )
        return embeds.masked_scatter(places.unsqueeze(-1), features.to(embeds))


class LlavaVideoForConditionalGeneration(LlavaOnevisionForConditionalGeneration):  # type: ignore[misc]
    """`LlavaVideoModel` with its language model head."""

    config_class = LlavaVideoConfig

    def __init__(self, config: LlavaVideoConfig) -> None:
        # Past the stock class, which would build the stock model first.
        super(LlavaOnevisionForConditionalGeneration, self).__init__(config)
        text = config.text_config
        self.model = LlavaVideoModel(config)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()


def text_embeddings(model: Any, ids: Tensor) -> Tensor:
    """Embeddings of [B, S] ids. Those of placeholders mean nothing: there need not be a row for them."""
    return model.get_input_embeddings()(ids.masked_fill(ids == model.config.video_token_id, 0))
