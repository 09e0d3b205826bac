"""Encoder and selection of a LLaVA-OneVision on one clip, by the runtime, to be compared with what others keep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earlytom.methods.base import Method
from earlytom.models import open_model
from earlytom.runtime.encode import encode_videos
from earlytom.runtime.plans import Plans
from earlytom.trace import Stopwatch, VideoTrace
from earlytom.types import KeptTokens


def encode_clip(model: Any, pixels: Tensor, method: Method, clock: Stopwatch) -> tuple[KeptTokens, VideoTrace]:
    """The kept tokens of a clip, no newline among them, and what happened to it.

    Args:
        model: a LLaVA-OneVision.
        pixels: [T, 3, H, W].
        method: the method.
        clock: gets the times.
    """
    vision = model.config.vision_config
    side = -(-(vision.image_size // vision.patch_size) // 2)
    ids = torch.full((1, pixels.shape[0] * side * side + 1), model.config.video_token_id, device=pixels.device)
    host = open_model(model)
    call = host.open({"input_ids": ids, "pixel_values_videos": pixels[None]})
    if call is None:
        raise ValueError("the prompt of a clip was taken for one without")
    (kept,), (trace,) = encode_videos(call, method, Plans.of(method, host).encoder, clock)
    return kept, trace
