"""Vision encoders of the Qwen-VL families: the patches of all frames in one packed sequence, frame behind frame.

Attention never crosses a frame, so that frames leave the sequence as blocks; what goes with it (rotary embeddings,
lengths of frames and windows) is that of one frame, repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from earlytom.models.attention import captured_outputs
from earlytom.models.base import FrameVisitor
from earlytom.ops import received_attention
from earlytom.types import FrameGrid

# Values of the joint projection that are rotated at once, in float32 (64 MiB).
_CHUNK_VALUES = 1 << 24

__all__ = ["FrameLayout", "mean_of_patches", "run_block"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameLayout:
    """The sequence of one frame.

    Attributes:
        patches: L, patches of a frame.
        unit: patches that are merged into one token of the language model; they lie behind one another.
        order: [P] int64, which merge unit in raster order stands at each place of the sequence; ``None``: they stand in
            raster order.
        windows: patches of each attention window of a frame, in the order of the sequence.
        cosines, sines: [L, E] float32, the rotary embedding.
    """

    patches: int
    unit: int
    order: Tensor | None
    windows: tuple[int, ...]
    cosines: Tensor
    sines: Tensor

    @cached_property
    def raster(self) -> Tensor | None:
        """[P] int64: the place in the sequence of each merge unit in raster order."""
        return None if self.order is None else torch.argsort(self.order)

    @cached_property
    def _tables(self) -> dict[int, tuple[Tensor, Tensor]]:
        """The last rotary embedding asked for: layers ask for the same one until frames merge."""
        return {}

    def to_sequence(self, patches: Tensor) -> Tensor:
        """Bring [F * L, D] patches into the order of the sequence."""
        if self.order is None:
            return patches
        units = patches.view(-1, self.patches // self.unit, self.unit, patches.shape[-1])
        return units[:, self.order.to(patches.device)].view(patches.shape)

    def to_raster(self, tokens: Tensor) -> Tensor:
        """Bring [F, P, ...] merge units from the order of the sequence into raster order."""
        return tokens if self.raster is None else tokens[:, self.raster.to(tokens.device)]

    def rotary(self, frames: int) -> tuple[Tensor, Tensor]:
        """The rotary embedding of a sequence of frames, [frames * L, E] each."""
        if frames not in self._tables:
            self._tables.clear()
            self._tables[frames] = (self.cosines.repeat(frames, 1), self.sines.repeat(frames, 1))
        return self._tables[frames]

    def lengths(self, frames: int, whole: bool, device: torch.device) -> dict[str, Any]:
        """The arguments that tell a block where attention ends: at frames (``whole``) or at windows."""
        sizes: Sequence[int] = [self.patches] * frames if whole else self.windows * frames
        ends = torch.tensor([0, *sizes], dtype=torch.int64).cumsum(0).to(torch.int32)
        return {"cu_seqlens": ends.to(device, non_blocking=True), "max_seqlen": max(sizes)}


def run_block(
    block: Any, index: int, hidden: Tensor, layout: FrameLayout, visitor: FrameVisitor, *, whole: bool
) -> Tensor:
    """Run one stock block on [F * L, D] patches; the visitor gets the attention that it asked for.

    Lengths stay on the host except for flash attention, whose kernel reads them on the device; elsewhere stock splits
    the sequence by them on the host.
    """
    frames = hidden.shape[0] // layout.patches
    flash = "flash" in block.attn.config._attn_implementation
    arguments = layout.lengths(frames, whole, hidden.device if flash else torch.device("cpu"))
    cos, sin = layout.rotary(frames)
    arguments["position_embeddings"] = (cos, sin)
    if index != visitor.plan.attention_layer:
        output: Tensor = block(hidden, **arguments)
        return output
    with captured_outputs(block.attn.qkv) as captured:
        output = block(hidden, **arguments)
    heads, scale = block.attn.num_heads, float(block.attn.scaling)
    visitor.receive_attention(partial(_received, captured[0], layout, heads, scale))
    if visitor.plan.keys:
        visitor.receive_keys(partial(_mean_keys, captured[0], layout, heads))
    return output


def mean_of_patches(scores: Tensor, layout: FrameLayout) -> Tensor:
    """Mean over the patches of each merge unit, [F, L] in the order of the sequence to [F, P] in raster order."""
    return layout.to_raster(scores.unflatten(1, (-1, layout.unit)).mean(dim=2))


def _split_heads(projected: Tensor, layout: FrameLayout, heads: int) -> tuple[Tensor, Tensor]:
    """Queries and keys, [F, H, L, E] each, of a joint projection's [F * L, 3 * D] output."""
    queries, keys, _ = projected.view(-1, layout.patches, 3, heads, projected.shape[-1] // (3 * heads)).unbind(2)
    return queries.transpose(1, 2), keys.transpose(1, 2)


def _received(projected: Tensor, layout: FrameLayout, heads: int, scale: float) -> Tensor:
    """Attention received by each patch, [F, L] float32; some frames at a time, whose copies need bounded memory."""
    step = max(1, _CHUNK_VALUES // (layout.patches * projected.shape[-1])) * layout.patches
    scores = []
    for part in projected.split(step):
        queries, keys = (_rotate(states, layout) for states in _split_heads(part, layout, heads))
        scores.append(received_attention(queries, keys, scale=scale))
    return torch.cat(scores)


def _mean_keys(projected: Tensor, layout: FrameLayout, heads: int) -> Tensor:
    """Keys before their rotation, mean over the heads: what a patch shows, not where it is; [F, L, E] float32."""
    return _split_heads(projected, layout, heads)[1].mean(dim=1, dtype=torch.float32)


def _rotate(states: Tensor, layout: FrameLayout) -> Tensor:
    """Rotate [F, H, L, E] queries or keys; in float32, as stock does."""
    wide = states.float()
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    cos, sin = layout.cosines.to(wide), layout.sines.to(wide)
    return (wide * cos + turned * sin).to(states.dtype)


def frame_shape(grid: FrameGrid, merge: int) -> Tensor:
    """One frame of a clip as stock's ``grid_thw`` [1, 3], on the host."""
    return torch.tensor([[1, grid.rows * merge, grid.columns * merge]])
