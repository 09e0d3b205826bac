"""Floating-point operations from pixels to the first token, counted on the model's own blocks, without weights or data.

A vision encoder works on every frame by itself, so one frame is counted, layer by layer, and weighed with the frames
that enter each layer. The layers of a language model are counted for each number of tokens that some of them get.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from earlytom.errors import CompressionError
from earlytom.models import open_model
from earlytom.models.base import Host, Tower
from earlytom.stages import FrameBatch, LayerRequests, PassiveVisitor
from earlytom.trace import CallTrace

__all__ = ["Flops", "count_call", "count_flops"]


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
    """A visitor that notes what has been counted after each layer, and cuts frames to so many tokens inside some.

    Behind some layers it leaves so many cells of a frame.
    """

    def __init__(
        self, total: Callable[[], int], tokens_after: Mapping[int, int], cells_after: Mapping[int, int]
    ) -> None:
        super().__init__(LayerRequests(token_layers=frozenset(tokens_after)))
        self._total, self._tokens_after, self._cells_after = total, tokens_after, cells_after
        self.totals: list[int] = []

    def merge_tokens(self, layer: int, batch: FrameBatch, keys: Tensor) -> FrameBatch:
        left, tokens = self._tokens_after[layer], batch.patches.shape[1]
        if not 1 <= left <= tokens:
            raise CompressionError(
                f"tokens_after must be from 1 to the {tokens} tokens that enter layer {layer}, got {left}"
            )
        return batch.changed(lambda rows: rows[:, :left])

    def after_layer(self, layer: int, batch: FrameBatch) -> FrameBatch:
        self.totals.append(self._total())
        if layer not in self._cells_after:
            return batch
        left, cells = self._cells_after[layer], batch.layout.support.shape[0]
        if not 1 <= left <= cells:
            raise CompressionError(f"cells_after must be from 1 to the {cells} cells of a frame, got {left}")
        return batch.only(torch.arange(left, device=batch.hidden.device)[None])


def count_flops(
    model: nn.Module,
    inputs: Mapping[str, Any],
    *,
    frames: int,
    prefill_tokens: int,
    frames_after: Mapping[int, int] | None = None,
    tokens_after: Mapping[int, int] | None = None,
    cells_after: Mapping[int, int] | None = None,
    pooled: bool = True,
    prefill_after: Mapping[int, int] | None = None,
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
        tokens_after: patches of each frame that are left in each encoder layer inside which some merge, between its
            attention and its MLP; none merge if ``None``.
        cells_after: cells of each frame that go on alone behind an encoder layer (one layer at most); all if ``None``.
        pooled: whether the features of all patches are projected and pooled. If not, the patches that are left are
            projected, and nothing is pooled, as after token merging.
        prefill_after: tokens of the prompt that are left before each language layer where some leave.

    Raises:
        ModelError: the model is not supported.
        CompressionError: the clip has not one frame, or the numbers cannot be.
    """
    host, tower, pixels = _open_one_frame(model, inputs)
    merging, cells, leaving = tokens_after or {}, cells_after or {}, prefill_after or {}
    entering = _falling("frames_after", frames, frames_after or {}, range(tower.depth), "the encoder")
    _check_token_layers(host, merging)
    _check_cell_layers(host, cells)
    below = range(1, len(host.language.layers))
    lengths = _falling("prefill_after", prefill_tokens, leaving, below, "behind its first, the language model")
    with torch.no_grad():
        costs, encoded = _count_encoder(tower, pixels, merging, cells)
        if pooled and merging:  # patches take all their places again
            encoded = _count_encoder(tower, pixels, {}, {})[1]
        projection = _counted(lambda: tower.project(encoded) if pooled else tower.project_tokens(encoded))
        prefill = _count_prefill(host, lengths)
    encoder = sum(count * cost for count, cost in zip(entering, costs, strict=False))
    return Flops(encoder=encoder, projection=entering[-1] * projection, prefill=prefill)


def count_call(model: nn.Module, inputs: Mapping[str, Any], call: CallTrace) -> Flops:
    """Count the operations of a call that has run: a prompt with one clip, batch 1.

    Args:
        model: the model's double on the meta device.
        inputs: the processor's output for a clip of a single frame of the same size, its pixels on the meta device.
        call: what happened in the call, which says how many frames and tokens each layer got.

    Raises:
        ModelError: the model is not supported.
        CompressionError: the call had not one clip.
    """
    if len(call.videos) != 1:
        raise CompressionError(f"operations are counted of calls with one clip, got one with {len(call.videos)}")
    clip = call.videos[0]
    tokens_after = {record.layer: record.tokens_after for record in clip.token_merges}
    left = clip.temporal_grids_left * (clip.token_merges[-1].tokens_after if clip.token_merges else 0)
    prefill_after, length = {}, call.prefill_tokens
    for step in call.language:
        length -= sum(step.tokens_before) - sum(step.tokens_after)
        prefill_after[step.layer] = length
    return count_flops(
        model,
        inputs,
        frames=clip.grid.temporal_grids,
        prefill_tokens=call.prefill_tokens,
        frames_after={record.layer: record.grids_after for record in clip.merges},
        tokens_after=tokens_after,
        cells_after={} if clip.cells is None else {clip.cells.layer: clip.cells.cells_after},
        pooled=left != clip.tokens,
        prefill_after=prefill_after,
    )


def _open_one_frame(model: nn.Module, inputs: Mapping[str, Any]) -> tuple[Host, Tower, Tensor]:
    """The opened model, its tower for the one frame of ``inputs``, and that frame's pixels."""
    host = open_model(model)
    call = host.open(inputs)
    if call is None:
        raise CompressionError("operations are counted on a clip of one frame, got a prompt without any")
    if [grid.frames for grid in call.grids] != [1]:
        counts = ", ".join(str(grid.frames) for grid in call.grids)
        raise CompressionError(f"operations are counted on a clip of one frame, got {counts}")
    return host, host.tower(call.grids[0]), call.pixels([0])


def _check_token_layers(host: Host, tokens_after: Mapping[int, int]) -> None:
    if tokens_after and not host.shape.token_merging:
        raise CompressionError(
            f"tokens_after is given, but tokens cannot merge in the encoder of {type(host.model).__name__}"
        )
    _check_layers("tokens_after", tokens_after, range(host.shape.depth), "the encoder")


def _check_cell_layers(host: Host, cells_after: Mapping[int, int]) -> None:
    if cells_after and not host.shape.cells:
        raise CompressionError(
            f"cells_after is given, but frames go through the encoder of {type(host.model).__name__} whole"
        )
    if len(cells_after) > 1:
        raise CompressionError(f"cells_after must name one layer at most, got {sorted(cells_after)}")
    _check_layers("cells_after", cells_after, range(host.shape.depth), "the encoder")


def _check_layers(name: str, after: Mapping[int, int], layers: range, owner: str) -> None:
    wrong = [layer for layer in after if layer not in layers]
    if wrong:
        raise CompressionError(f"{name} names layer {wrong[0]}, {owner} has layers {layers.start} to {layers.stop - 1}")


def _falling(name: str, count: int, after: Mapping[int, int], layers: range, owner: str) -> list[int]:
    """A count at first, and what is left of it at each layer."""
    _check_layers(name, after, layers, owner)
    left = [count]
    for layer in layers:
        left.append(after.get(layer, left[-1]))
    if left != sorted(left, reverse=True) or left[-1] < 1:
        raise CompressionError(f"{name} must fall from at most {count} to at least 1, got {dict(after)}")
    return left


def _count_encoder(
    tower: Tower, pixels: Tensor, tokens_after: Mapping[int, int], cells_after: Mapping[int, int]
) -> tuple[list[int], FrameBatch]:
    """The operations of each layer on one frame, embedding in the first, and what leaves the last."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        visitor = _LayerByLayer(counter.get_total_flops, tokens_after, cells_after)
        encoded = tower.run(tower.embed(pixels, (1,)), range(tower.depth), visitor)
    return [after - before for before, after in pairwise([0, *visitor.totals])], encoded


def _count_prefill(host: Host, lengths: Sequence[int]) -> int:
    """The language model on a prompt, of which each layer gets another length."""
    counted = {length: _prefill(host, length) for length in set(lengths)}
    whole, layers = counted[lengths[0]]
    return whole - sum(layers) + sum(counted[length][1][layer] for layer, length in enumerate(lengths))


def _prefill(host: Host, length: int) -> tuple[int, list[int]]:
    """All operations on a prompt of ``length`` tokens, and those of each layer."""
    from torch.utils.flop_counter import FlopCounterMode

    model: Any = host.model
    embedding = model.get_input_embeddings().weight
    embeds = embedding.new_empty(1, length, embedding.shape[1])
    # A ready mask is taken as it is; stock would look into another one, which holds nothing here.
    mask = embedding.new_empty(1, 1, length, length)
    totals: list[int] = []
    with FlopCounterMode(display=False) as counter, ExitStack() as hooks:
        for layer in host.language.layers:
            for register in (layer.register_forward_pre_hook, layer.register_forward_hook):
                hooks.enter_context(register(lambda *_: totals.append(counter.get_total_flops())))
        states = model.model.language_model(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
        model.lm_head(states.last_hidden_state[:, -1:])
    layers = [after - before for before, after in zip(totals[::2], totals[1::2], strict=True)]
    return counter.get_total_flops(), layers


def _counted(run: Callable[[], object]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
