"""Vision encoders run by hand: a visitor that changes nothing, and the loop over the layers that tells it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from earlytom.models import open_model
from earlytom.stages import FrameBatch, FrameVisitor, LayerRequests
from earlytom.types import EncoderPlan, FrameGrid


class Watching:
    """A visitor that changes nothing and remembers what it was shown; it must not be told what it has not asked for."""

    token_sizes: Tensor | None = None

    def __init__(self, plan: EncoderPlan | None = None) -> None:
        self.requests = LayerRequests.of([plan or EncoderPlan()])
        self.layers: list[tuple[int, tuple[int, ...]]] = []
        """Each layer with the shape of the patches behind it."""
        self.attention: Tensor | None = None
        self.keys: Tensor | None = None
        self.descriptions: Tensor | None = None

    def receive_pixels(self, pixels: Tensor) -> None:
        raise AssertionError("whoever hands over the pixels reports them, not the tower")

    def receive_attention(self, layer: int, compute: Callable[[], Tensor]) -> None:
        assert layer in self.requests.attention_layers
        self.attention = compute()

    def receive_keys(self, layer: int, compute: Callable[[], Tensor]) -> None:
        assert layer in self.requests.key_layers
        self.keys = compute()

    def receive_pooling(self, compute: Callable[[], tuple[Tensor, Tensor]]) -> None:
        assert self.requests.pooling_head
        self.attention, self.descriptions = compute()

    def merge_tokens(self, layer: int, batch: FrameBatch, keys: Tensor) -> FrameBatch:
        assert layer in self.requests.token_layers
        return batch

    def after_layer(self, layer: int, batch: FrameBatch) -> FrameBatch:
        self.layers.append((layer, tuple(batch.patches.shape)))
        return batch


@torch.no_grad()
def encode(model: nn.Module, pixels: Tensor, visitor: FrameVisitor, grid: FrameGrid) -> FrameBatch:
    """What leaves the last layer for the [F, ...] pixels of one clip, whose frames have the size of ``grid``."""
    tower = open_model(model).tower(grid)
    return tower.run(tower.embed(pixels, (pixels.shape[0],)), range(tower.depth), visitor)


def project(model: nn.Module, batch: FrameBatch, grid: FrameGrid) -> Tensor:
    """[F, P, C] what projector and pooling make of it."""
    return open_model(model).tower(grid).project(batch)


def frames_of(hidden: Tensor) -> FrameBatch:
    """[F, L, D] hidden states as those of one clip."""
    return FrameBatch(hidden=hidden, grids_per_clip=(hidden.shape[0],))
