"""Frames that go through the encoder's layers some at a time, so that memory is bounded; at barriers all come together.

In parts and whole differ by rounding, since matrix products over another batch size round differently: ties may be
decided otherwise. So all at once stays the default (ADR 0003).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from earlytom.errors import CompressionError, shown
from earlytom.stages import FrameBatch, LayerRequests, PassiveVisitor

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.models.base import Tower
    from earlytom.stages import FrameVisitor
    from earlytom.trace import Stopwatch

__all__ = ["check_grids_at_once", "encode_in_parts"]


def check_grids_at_once(grids: object, requests: LayerRequests) -> None:
    """Raise `CompressionError` unless so many temporal grids can pass the layers at a time; ``None`` is all of them."""
    if grids is None:
        return
    if not isinstance(grids, int) or isinstance(grids, bool) or grids < 1:
        raise CompressionError(f"grids_at_once must be an integer of at least 1, or None for all, got {shown(grids)}")
    if requests.token_layers:
        raise CompressionError(
            f"grids_at_once ({grids}) does not go with a method that merges tokens inside the layers of the vision "
            "encoder, where all temporal grids are together; leave it out"
        )


def encode_in_parts(
    tower: Tower,
    pixels: Tensor,
    visitor: FrameVisitor,
    grids_per_clip: tuple[int, ...],
    grids_at_once: int,
    clock: Stopwatch,
) -> FrameBatch:
    """What `Tower.run` makes of the embedded pixels, with at most ``grids_at_once`` temporal grids in a layer.

    Args:
        tower: for grids of this size.
        pixels: [F, ...] of all clips.
        visitor: is told what it would be told of all grids together, but of layers only at barriers.
        grids_per_clip: the temporal grids of each clip.
        grids_at_once: at least 1.
        clock: gets the time that scores take.
    """
    batch = _gathered((tower.embed(part, (part.shape[0],)) for part in pixels.split(grids_at_once)), grids_per_clip)
    borders = [0, *(layer + 1 for layer in visitor.requests.barriers), tower.depth]
    for start, stop in pairwise(dict.fromkeys(borders)):
        listener = _Parts(visitor.requests, clock)
        batch = _run(tower, batch, range(start, stop), listener, grids_at_once)
        listener.hand_on(visitor)
        batch = visitor.after_layer(stop - 1, batch)
    if visitor.requests.pooling_head:
        visitor.receive_pooling(partial(_pooling_head, tower, batch, grids_at_once))
    return batch


def _run(tower: Tower, batch: FrameBatch, layers: range, listener: FrameVisitor, grids_at_once: int) -> FrameBatch:
    """Layers between two barriers; afterwards ``batch`` may hold what came of it."""
    parts = (tower.run(part, layers, listener) for part in batch.parts(grids_at_once))
    return _gathered(parts, batch.grids_per_clip, batch)


def _gathered(
    parts: Iterator[FrameBatch], grids_per_clip: tuple[int, ...], over: FrameBatch | None = None
) -> FrameBatch:
    """All parts together; where no gradients are recorded the whole never exists twice."""
    if torch.is_grad_enabled():
        return FrameBatch.joined(list(parts), grids_per_clip)
    return FrameBatch.gathered(parts, grids_per_clip, over)


def _pooling_head(tower: Tower, batch: FrameBatch, grids_at_once: int) -> tuple[Tensor, Tensor]:
    """What the head makes of the grids that are left behind the last layer."""
    attention, descriptions = zip(*map(tower.pooling_head, batch.parts(grids_at_once)), strict=True)
    return torch.cat(attention), torch.cat(descriptions)


class _Parts(PassiveVisitor):
    """A visitor of the parts between two barriers: keeps what they tell, for all of them together."""

    def __init__(self, requests: LayerRequests, clock: Stopwatch) -> None:
        # The pooling head comes behind whatever merges after the last layer.
        super().__init__(replace(requests, pooling_head=False))
        self._clock = clock
        self._attention: dict[int, list[Tensor]] = {}
        self._keys: dict[int, list[Tensor]] = {}

    def receive_attention(self, layer: int, compute: Callable[[], Tensor]) -> None:
        with self._clock.stage("attention"), torch.no_grad():
            self._attention.setdefault(layer, []).append(compute())

    def receive_keys(self, layer: int, compute: Callable[[], Tensor]) -> None:
        with self._clock.stage("attention"), torch.no_grad():
            self._keys.setdefault(layer, []).append(compute())

    def hand_on(self, visitor: FrameVisitor) -> None:
        """Tell another visitor what the parts told, as of all grids together."""
        for layer, parts in self._attention.items():
            visitor.receive_attention(layer, partial(torch.cat, parts))
        for layer, parts in self._keys.items():
            visitor.receive_keys(layer, partial(torch.cat, parts))
