"""LLaVA-OneVision."""

from __future__ import annotations

import torch

from conftest import batch, clip, tiny_model
from families import FamilyCase


def stock_features(model, inputs):
    features = model.model.get_video_features(inputs["pixel_values_videos"]).pooler_output
    if torch.is_tensor(features) and features.dim() == 3:
        newline = model.model.image_newline
        side = model.model.vision_tower.config.image_size // model.model.vision_tower.config.patch_size // 2
        clips, tokens = features.shape[0], features.shape[1]
        if tokens % (side * side) == 0:  # transformers before 5.18 adds the newline later
            features = torch.cat([features, newline.expand(clips, 1, -1)], dim=1)
    return features.reshape(-1, features.shape[-1])


CASE = FamilyCase(
    build=tiny_model,
    clip=lambda frames, seed: clip(frames, seed),
    batch=batch,
    stock_features=stock_features,
)
