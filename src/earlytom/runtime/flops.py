"""Floating-point operations from pixels to the first token, counted on the model's own blocks, without weights or data.

A vision encoder works on every frame by itself, so one frame is counted, layer by layer, and weighed with the frames
that enter each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from earlytom.errors import CompressionError
from earlytom.models import open_model
from earlytom.stages import FrameBatch, PassiveVisitor

__all__ = ["Flops", "count_flops"]


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations, two for each multiply-add; attention counts its whole matrix.

    Attributes:
        encoder: the vision encoder.
        projection: projector and pooling.
        prefill: the language model on the prompt, and the logits of its last token.
    """

    encoder: int
    projection: int
    prefill: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.encoder + self.projection + self.prefill


class _LayerByLayer(PassiveVisitor):
    """A visitor that changes nothing and notes what has been counted after each layer."""

    def __init__(self, total: Callable[[], int]) -> None:
        super().__init__()
        self._total = total
        self.totals: list[int] = []

    def after_layer(self, layer: int, batch: FrameBatch) -> FrameBatch:
        self.totals.append(self._total())
        return batch


def count_flops(
    model: nn.Module,
    inputs: Mapping[str, Any],
    *,
    frames: int,
    prefill_tokens: int,
    frames_after: Mapping[int, int] | None = None,
) -> Flops:
    """Count the operations of a prompt with one clip.

    Shapes are enough, so that a model of any size is counted in seconds. What a method's own decisions cost is left out
    (``benchmarks/methods.py`` measures that).

    Args:
        model: a supported model on the meta device.
        inputs: the processor's output for a clip of a single frame, its pixels on the meta device.
        frames: frames that enter the encoder.
        prefill_tokens: tokens that the language model gets: text, kept visual tokens, newlines.
        frames_after: frames that are left after each encoder layer where some merge; none merge if ``None``.

    Raises:
        ModelError: the model is not supported.
        CompressionError: the clip has not one frame, or the numbers cannot be.
    """
    from torch.utils.flop_counter import FlopCounterMode

    host = open_model(model)
    call = host.open(inputs)
    if call is None:
        raise CompressionError("operations are counted on a clip of one frame, got a prompt without any")
    grids = call.grids
    if [grid.frames for grid in grids] != [1]:
        counts = ", ".join(str(grid.frames) for grid in grids)
        raise CompressionError(f"operations are counted on a clip of one frame, got {counts}")
    tower, depth = host.tower(grids[0]), host.shape.depth
    entering = _frames_entering(frames, frames_after or {}, depth)
    counter = FlopCounterMode(display=False)
    visitor = _LayerByLayer(lambda: int(counter.get_total_flops()))
    with torch.no_grad():
        with counter:
            encoded = tower.run(tower.embed(call.pixels([0]), (1,)), range(depth), visitor)
        projection = _counted(lambda: tower.project(encoded))
        prefill = _counted(lambda: _prefill(host.model, prefill_tokens))
    layers = [after - before for before, after in zip([0, *visitor.totals], visitor.totals, strict=False)]
    encoder = sum(count * cost for count, cost in zip(entering[:-1], layers, strict=True))
    return Flops(encoder=encoder, projection=entering[-1] * projection, prefill=prefill)


def _frames_entering(frames: int, frames_after: Mapping[int, int], depth: int) -> list[int]:
    """The frames that enter each layer, and those that leave the last one."""
    wrong = [layer for layer in frames_after if not 0 <= layer < depth]
    if wrong:
        raise CompressionError(f"frames_after names layer {wrong[0]}, the encoder has layers 0 to {depth - 1}")
    left = [frames]
    for layer in range(depth):
        left.append(frames_after.get(layer, left[-1]))
    if left != sorted(left, reverse=True) or left[-1] < 1:
        raise CompressionError(f"frames_after must fall from at most {frames} to at least 1, got {dict(frames_after)}")
    return left


def _prefill(model: Any, length: int) -> Tensor:
    embedding = model.get_input_embeddings().weight
    embeds = embedding.new_empty(1, length, embedding.shape[1])
    # A ready mask is taken as it is; stock would look into another one, which holds nothing here.
    mask = embedding.new_empty(1, 1, length, length)
    states = model.model.language_model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
    logits: Tensor = model.lm_head(states[:, -1:])
    return logits


def _counted(run: Callable[[], object]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
