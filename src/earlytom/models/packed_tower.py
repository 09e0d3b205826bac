"""Vision encoders of the Qwen-VL families: stock blocks, run on the packed sequence that `GridLayout` speaks of."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import ModelError, shown
from earlytom.layouts.packed_vision import CutLayout, GridLayout, mean_of_patches
from earlytom.models.attention import captured_outputs
from earlytom.models.base import Host, Tower
from earlytom.models.wrapping import uncompiled
from earlytom.ops import received_attention
from earlytom.stages import CellLayout, CellLayouts, FrameBatch, FrameVisitor
from earlytom.types import FrameGrid

__all__ = ["PackedTower", "check_rotations", "run_block"]

# Values of the joint projection that are rotated at once, in float32 (64 MiB).
_CHUNK_VALUES = 1 << 24


class PackedTower(Tower):
    """Implements the part of `earlytom.models.base.Tower` that these encoders have in common."""

    def __init__(self, host: Host, grid: FrameGrid) -> None:
        super().__init__(host, grid)
        self.visual = host.model.model.visual
        self._layout: GridLayout | None = None
        self.cells = CellLayouts(self._make_cells)
        self._cut: tuple[Tensor, CutLayout] | None = None  # of the cells that were left last

    def layout(self, like: Tensor) -> GridLayout:
        """The sequence of one grid, made once, with rotary embeddings of the kind and the device of ``like``."""
        if self._layout is None:
            self._layout = self.make_layout(like)
        return self._layout

    @abstractmethod
    def make_layout(self, like: Tensor) -> GridLayout:
        """See `layout`; from stock's own arithmetic on a clip of a single grid."""

    def patches(self, pixels: Tensor) -> Tensor:
        """[F, L, D] embedded patches of [F, L, values] pixels."""
        hidden: Tensor = self.visual.patch_embed(pixels.flatten(0, 1).type(self.visual.dtype))
        return hidden.unflatten(0, pixels.shape[:2])

    def sequence(self, batch: FrameBatch) -> GridLayout | CutLayout:
        """The sequence of the grids of a batch, of each of which only some cells may be left."""
        layout = self.layout(batch.hidden)
        if batch.cells is None:
            return layout
        if self._cut is None or self._cut[0] is not batch.cells:
            cells, kept = batch.layout, batch.cells.shape[1]
            windows = [count * layout.unit for count in cells.kept_of_windows(kept) or (kept,)]
            self._cut = batch.cells, layout.cut(cells.patches(batch.cells), windows)
        return self._cut[1]

    def _make_cells(self) -> CellLayout:
        if self._layout is None:
            raise ModelError("where cells lie is known once a layer has run")
        layout, cells = self._layout, self.grid.tokens_per_frame
        there = torch.arange(cells, device=layout.cosines.device) if layout.raster is None else layout.raster
        support = there[:, None] * layout.unit + torch.arange(layout.unit, device=there.device)
        return CellLayout(
            support=support,
            weight=torch.full(support.shape, 1 / layout.unit, dtype=torch.float32, device=there.device),
            order=layout.order,
            windows=None if layout.order is None else tuple(size // layout.unit for size in layout.windows),
        )

    def pool_attention(self, attention: Tensor) -> Tensor:
        return mean_of_patches(attention, self.layout(attention))


def check_rotations(model: Any, *, split: bool) -> None:
    """Raise `ModelError` naming the field of a Qwen-VL configuration by which heads could not be rotated.

    Args:
        model: the stock model.
        split: whether its language model splits frequencies by ``mrope_section``, which then has to add up.
    """
    vision = model.config.vision_config
    if vision.hidden_size // vision.num_heads % 4:
        raise ModelError(
            f"vision_config.num_heads must leave a multiple of 4 to each head, got {vision.num_heads} heads for a "
            f"width of {vision.hidden_size}"
        )
    rotary = model.model.language_model.rotary_emb
    sections: Any = getattr(rotary, "mrope_section", None)
    frequencies = rotary.inv_freq.numel()
    good = isinstance(sections, (list, tuple)) and len(sections) == 3 and all(map(_is_count, sections))
    if not good or (split and sum(sections) != frequencies):
        raise ModelError(
            "text_config.rope_parameters.mrope_section must be three integers, for time, height and width, that add up "
            f"to {frequencies}, half of the width of a head; got {shown(sections)}"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def run_block(
    block: Any,
    index: int,
    batch: FrameBatch,
    layout: GridLayout | CutLayout,
    visitor: FrameVisitor,
    *,
    whole: bool,
) -> FrameBatch:
    """Run one stock block on the packed sequence; the visitor gets the attention that it asked for.

    Lengths stay on the host except for flash attention, whose kernel reads them on the device; elsewhere stock splits
    the sequence by them on the host.
    """
    grids, hidden = batch.hidden.shape[0], batch.hidden.flatten(0, 1)
    flash = "flash" in block.attn.config._attn_implementation
    lengths = layout.lengths(grids, whole, hidden.device if flash else torch.device("cpu"))
    arguments = {**lengths, "position_embeddings": layout.rotary(grids)}
    if index not in visitor.requests.attention_layers:
        return batch.with_hidden(block(hidden, **arguments).view_as(batch.hidden))
    with captured_outputs(block.attn.qkv) as captured:
        output = uncompiled(block)(hidden, **arguments)
    heads, scale = block.attn.num_heads, float(block.attn.scaling)
    visitor.receive_attention(index, partial(_received, captured[0], layout, heads, scale))
    if index in visitor.requests.key_layers:
        visitor.receive_keys(index, partial(_mean_keys, captured[0], layout, heads))
    return batch.with_hidden(output.view_as(batch.hidden))


def _split_heads(projected: Tensor, layout: GridLayout | CutLayout, heads: int) -> tuple[Tensor, Tensor]:
    """Queries and keys, [F, H, L, E] each, of a joint projection's [F * L, 3 * D] output."""
    queries, keys, _ = projected.view(-1, layout.patches, 3, heads, projected.shape[-1] // (3 * heads)).unbind(2)
    return queries.transpose(1, 2), keys.transpose(1, 2)


def _received(projected: Tensor, layout: GridLayout | CutLayout, heads: int, scale: float) -> Tensor:
    """Attention received by each patch, [F, L] float32; some grids at a time, whose copies need bounded memory."""
    step = max(1, _CHUNK_VALUES // (layout.patches * projected.shape[-1]))
    scores = []
    for number, part in enumerate(projected.split(step * layout.patches)):
        angles = layout.angles(slice(number * step, (number + 1) * step))
        queries, keys = (_rotate(states, *angles) for states in _split_heads(part, layout, heads))
        scores.append(received_attention(queries, keys, scale=scale))
    return torch.cat(scores)


def _mean_keys(projected: Tensor, layout: GridLayout | CutLayout, heads: int) -> Tensor:
    """Keys before their rotation, mean over the heads: what a patch shows, not where it is; [F, L, E] float32."""
    return _split_heads(projected, layout, heads)[1].mean(dim=1, dtype=torch.float32)


def _rotate(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate [F, H, L, E] queries or keys; in float32, as stock does."""
    wide = states.float()
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    cos, sin = cosines.to(wide), sines.to(wide)
    return (wide * cos + turned * sin).to(states.dtype)
