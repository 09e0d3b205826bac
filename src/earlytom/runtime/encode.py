"""Stages I and II for the clips of one call: a model's tower drives the clips' sessions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from earlytom.runtime.in_parts import encode_in_parts
from earlytom.stages import ClipSession, SessionBatch
from earlytom.trace import Stopwatch, VideoTrace
from earlytom.types import EncoderPlan, KeptTokens

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import VideoCall

__all__ = ["encode_videos"]


def encode_videos(
    call: VideoCall, method: Method, plan: EncoderPlan, clock: Stopwatch, grids_at_once: int | None = None
) -> tuple[list[KeptTokens], list[VideoTrace]]:
    """Encode, merge, project and select; clips whose frames have one size go through the encoder together.

    Clips whose frames are to be left with other numbers of cells go through it by themselves. One clip that is given
    several times is encoded once.

    Args:
        call: the opened call.
        method: the method.
        plan: what it wants from the vision encoder.
        clock: gets the times of the stages.
        grids_at_once: temporal grids that are in a layer of the encoder together, at most; ``None``: all.

    Returns:
        The kept tokens of each clip, and what happened to it.

    Raises:
        CompressionError: the method kept another number of tokens than it promised.
        MethodError: the method does not fit a clip.
        ModelError: the model has been changed since the plan was made, and cannot give what it asks for any more.
    """
    call.host.check_plan(plan)
    grids = call.grids[:1] if call.repeats_one_clip else call.grids
    clips = [ClipSession(method, grid, call.host.shape, plan) for grid in grids]
    alike: dict[tuple[int, int, int | None], list[int]] = {}
    for number, clip in enumerate(clips):
        alike.setdefault((clip.grid.rows, clip.grid.columns, clip.cells), []).append(number)
    kept: dict[int, KeptTokens] = {}
    for numbers in alike.values():
        batch = SessionBatch([clips[number] for number in numbers], clock)
        kept.update(zip(numbers, _encode(call, numbers, batch, clock, grids_at_once), strict=True))
    tokens, traces = [kept[number] for number in range(len(clips))], [clip.trace for clip in clips]
    if len(clips) == len(call.grids):
        return tokens, traces
    # A trace may be written to by whoever gets it, so each prompt has its own.
    return tokens * len(call.grids), [dataclasses.replace(traces[0]) for _ in call.grids]


def _encode(
    call: VideoCall, numbers: Sequence[int], batch: SessionBatch, clock: Stopwatch, grids_at_once: int | None
) -> list[KeptTokens]:
    """The kept tokens of some clips, whose frames have one size."""
    with clock.stage("encoder"):
        tower, pixels = call.host.tower(call.grids[numbers[0]]), call.pixels(numbers)
        if batch.requests.fingerprint:
            batch.receive_pixels(pixels)
        grids = batch.grids_per_clip
        if grids_at_once is None or grids_at_once >= sum(grids):
            encoded = tower.run(tower.embed(pixels, grids), range(tower.depth), batch)
        else:
            encoded = encode_in_parts(tower, pixels, batch, grids, grids_at_once, clock)
    if batch.leaves_unpooled:
        with clock.stage("projection"):
            return batch.keep_unpooled(tower.project_tokens(encoded), tower.pool_attention)
    with clock.stage("projection"):
        features = tower.project(encoded)
    return batch.select(features, tower.pool_attention)
