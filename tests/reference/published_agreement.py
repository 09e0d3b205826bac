"""The published reference against ``EarlyTom(compat="official")`` through the runtime, for tests and benchmarks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earlytom import compress
from earlytom.methods.earlytom import EarlyTom
from earlytom.trace import Stopwatch
from reference.one_clip import encode_clip
from reference.published_earlytom import PublishedSettings, published_generate, published_tokens


def official(settings: PublishedSettings) -> EarlyTom:
    """Our method with the same settings."""
    return EarlyTom(
        retention=settings.retention,
        tau_seg=settings.tau_seg,
        merge_layers=settings.merge_layers,
        ema=settings.ema,
        max_window=settings.max_window,
        compat="official",
        inner_merging=False,
    )


@torch.no_grad()
def disagreements(
    model: Any, pixels: Tensor, settings: PublishedSettings, recorded: Tensor | None = None, tolerance: float = 1e-4
) -> list[str]:
    """Compare frames, segments, counts and visual tokens; an empty list when all agree.

    Args:
        model: stock model in float32.
        pixels: [T, 3, H, W].
        recorded: [K + 1, C] visual tokens of the authors' code, compared with the reference where given.
        tolerance: largest difference of the visual tokens, over the largest of their values (over 1 if that is less).
    """
    reference = published_tokens(model, pixels, settings)
    kept, trace = encode_clip(model, pixels, official(settings), Stopwatch(pixels.device))
    ours = torch.cat([kept.features, model.model.image_newline[None]])
    found = []
    frames = tuple(merge.grids_after for merge in trace.merges)
    if frames != reference.frames_after:
        found.append(f"frames after the merge layers: ours {frames}, published {reference.frames_after}")
    if trace.details["segments"] != reference.segments:
        found.append(f"segments: ours {trace.details['segments']}, published {reference.segments}")
    found += _difference("visual tokens", ours, reference.tokens, tolerance)
    if recorded is not None:
        found += _difference("recorded visual tokens", reference.tokens, recorded, tolerance)
    return found


def logits_disagreements(
    model: Any, inputs: dict[str, Tensor], settings: PublishedSettings, tolerance: float = 1e-4
) -> list[str]:
    """Compare the logits of the first token, one through ``compress``, the other the published way."""
    options: dict[str, Any] = {
        "max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True,
    }  # fmt: skip
    published, _ = published_generate(model, inputs, settings, **options)
    with compress(model, official(settings)):
        ours = model.generate(**inputs, **options)
    return _difference("logits", ours.logits[0], published.logits[0], tolerance)


def _difference(name: str, ours: Tensor, other: Tensor, tolerance: float) -> list[str]:
    if ours.shape != other.shape:
        return [f"{name}: shape {tuple(ours.shape)} against {tuple(other.shape)}"]
    scale = max(1.0, float(other.abs().max()))
    largest = float((ours.double() - other.double()).abs().max()) / scale
    return [] if largest <= tolerance else [f"{name}: differ by {largest:.2e} of the largest, allowed {tolerance:.0e}"]
