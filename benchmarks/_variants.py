"""The variants of `encoder.py`: what each one runs, and how its time is split by stage.

All call ``generate(max_new_tokens=1)`` on tensors that are ready on the device. Stages, in milliseconds:

``encoder``
    vision tower: patch embedding and layers, attention maps included where a variant makes them.
``received``
    attention received at the last merge layer. Ours: computed from the layer's queries and keys. Published:
    only the mean over maps that the encoder made and merged. Compare ``encoder`` and ``received`` together.
``merging``
    frame similarity, segmentation, plan, and applying it to hidden states and attention; refined segments.
``projection``
    projector and pooling of features (and of attention).
``selection``
    choosing and gathering tokens.
``assembly``
    building the language model's input embeddings.
``prefill``
    from the language model's first layer to the first token.
``rest``
    everything else of the time to first token: host work of ``generate``, copying the prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from _harness import Outcome, Variant
from earlytom import compress
from earlytom.methods.base import Method
from earlytom.trace import Stopwatch, VideoTrace
from reference.published_earlytom import PublishedSettings, published_generate

STAGES = ("encoder", "received", "merging", "projection", "selection", "assembly", "prefill", "rest")
_ONE_TOKEN: dict[str, Any] = {"max_new_tokens": 1, "do_sample": False}


def vanilla(model: Any, inputs: dict[str, Tensor]) -> Variant:
    """The stock model with its fast attention."""

    def call() -> Stopwatch:
        clock = Stopwatch(model.device)
        with _vanilla_stages(model, clock), _prefill_stage(model, clock):
            model.generate(**inputs, **_ONE_TOKEN)
        return clock

    def read(clock: Stopwatch) -> Outcome:
        frames = inputs["pixel_values_videos"].shape[1]
        return clock.milliseconds(), _details(model, inputs, frames, [], [], _placeholders(model, inputs) - 1)

    return Variant(call, read)


def ours(model: Any, inputs: dict[str, Tensor], method: Method) -> Variant:
    """Our path with a method, as a user runs it."""

    def call() -> tuple[Stopwatch, Any]:
        clock = Stopwatch(model.device)
        with _prefill_stage(model, clock), compress(model, method) as trace:
            model.generate(**inputs, **_ONE_TOKEN)
        return clock, trace

    def read(result: tuple[Stopwatch, Any]) -> Outcome:
        clock, trace = result
        stages = trace.last.milliseconds | clock.milliseconds()
        stages["received"] = stages.pop("attention", 0.0)
        del stages["ttft"]  # the harness takes it, for all variants alike
        stages["encoder"] -= stages.get("merging", 0.0) + stages["received"]
        video = trace.videos[0]
        layers, left = [merge.layer for merge in video.merges], [merge.grids_after for merge in video.merges]
        details = _details(model, inputs, video.grid.frames, layers, left, video.tokens)
        found = [merge.details.get("tau_seg") for merge in video.merges]
        thresholds = [round(float(str(threshold)), 4) for threshold in found if threshold is not None]
        if video.cells is not None:
            spared = _spared_by_cells(video, len(model.model.vision_tower.encoder.layers))
            details |= {
                "cells_after": {str(video.cells.layer): video.cells.cells_after},
                "encoder_share": round(details["encoder_share"] - spared, 4),
            }
        return stages, details | {"method": trace.method, "tau_seg": thresholds}

    return Variant(call, read)


def published(model: Any, inputs: dict[str, Tensor], settings: PublishedSettings) -> Variant:
    """The method as published, see ``tests/reference/published_earlytom.py``."""

    def call() -> tuple[Stopwatch, Any]:
        clock = Stopwatch(model.device)
        with _prefill_stage(model, clock):
            _, visual = published_generate(model, inputs, settings, clock, **_ONE_TOKEN)
        return clock, visual

    def read(result: tuple[Stopwatch, Any]) -> Outcome:
        clock, visual = result
        frames = inputs["pixel_values_videos"].shape[1]
        left, tokens = list(visual.frames_after), visual.tokens.shape[0] - 1
        details = _details(model, inputs, frames, list(settings.merge_layers), left, tokens)
        return clock.milliseconds(), details | {"method": f"published {settings}"}

    return Variant(call, read)


def _spared_by_cells(video: VideoTrace, depth: int) -> float:
    """The share of the encoder's frame-layers that the cells spared which did not go on; no merge lies behind them."""
    cells = video.cells
    if cells is None:
        return 0.0
    gone = 1.0 - cells.cells_after / cells.cells_before
    return gone * video.temporal_grids_left * (depth - 1 - cells.layer) / (video.grid.frames * depth)


def _details(
    model: Any, inputs: dict[str, Tensor], frames: int, layers: list[int], left: list[int], tokens: int
) -> dict[str, Any]:
    """Frames after each merge layer, the share of frame-layers that the encoder ran, and visual tokens kept."""
    depth = len(model.model.vision_tower.encoder.layers)
    boundaries = [-1, *layers, depth - 1]
    ran = sum(
        count * (end - start)
        for count, start, end in zip([frames, *left], boundaries[:-1], boundaries[1:], strict=True)
    )
    return {
        "frames": frames,
        "frames_after_merge_layers": dict(zip(map(str, layers), left, strict=True)),
        "encoder_share": round(ran / (frames * depth), 4),
        "visual_tokens": tokens,
        "visual_tokens_uncompressed": _placeholders(model, inputs) - 1,
    }


def _placeholders(model: Any, inputs: dict[str, Tensor]) -> int:
    return int((inputs["input_ids"] == model.config.video_token_id).sum())


@contextmanager
def _prefill_stage(model: Any, clock: Stopwatch) -> Iterator[None]:
    """Time from the language model's start to the end of the block, which holds one ``generate`` of one token."""
    language = model.model.language_model

    def start(*_: object) -> None:
        clock.stop("assembly")
        clock.start("prefill")

    handle = language.register_forward_pre_hook(start)
    try:
        yield
        clock.stop("prefill")
    finally:
        handle.remove()


@contextmanager
def _vanilla_stages(model: Any, clock: Stopwatch) -> Iterator[None]:
    """Hooks on the stock model's parts; ``apply_pooling`` is no module and is shadowed on the instance."""
    base = model.model
    pool = base.apply_pooling

    @functools.wraps(pool)
    def timed_pooling(*args: Any, **kwargs: Any) -> Any:
        pooled = pool(*args, **kwargs)
        clock.stop("projection")
        clock.start("assembly")
        return pooled

    handles = [
        base.vision_tower.register_forward_pre_hook(lambda *_: clock.start("encoder")),
        base.vision_tower.register_forward_hook(lambda *_: clock.stop("encoder")),
        base.multi_modal_projector.register_forward_pre_hook(lambda *_: clock.start("projection")),
    ]
    base.__dict__["apply_pooling"] = timed_pooling
    try:
        yield
    finally:
        del base.__dict__["apply_pooling"]
        for handle in handles:
            handle.remove()


def check_finite(model: Any, inputs: dict[str, Tensor]) -> bool:
    """Whether the random weights give finite logits at this size and dtype."""
    with torch.no_grad():
        output = model.generate(**inputs, **_ONE_TOKEN, output_logits=True, return_dict_in_generate=True)
    return bool(output.logits[0].isfinite().all())
