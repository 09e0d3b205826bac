"""Prompts in which every temporal grid stands behind its timestamp, as those of Qwen3-VL.

``<0.5 seconds><|vision_start|> ... <|vision_end|>``. A kept token stays in its own grid, and a grid with no token left
goes together with its timestamp. That of a clip's first grid begins behind the ``<|vision_start|>`` that the chat
template puts around the whole clip; without one it cannot be told from the text before the clip, and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.layouts.prompt import clip_positions
from earlytom.types import FrameGrid

__all__ = ["VisionTokens", "check_grids", "keep_grids"]


@dataclass(frozen=True, kw_only=True)
class VisionTokens:
    """The ids of the placeholder of a video, and of what stands around the placeholders of a grid."""

    video: int
    start: int
    end: int


def check_grids(ids: Tensor, tokens: VisionTokens, grids: Sequence[FrameGrid]) -> None:
    """Raise `CompressionError` unless each grid's placeholders stand together, between start and end of vision."""
    length, clips, ids = ids.shape[1], clip_positions(ids == tokens.video, grids), ids.flatten()
    for number, (clip, grid) in enumerate(zip(clips, grids, strict=True)):
        runs = clip.view(grid.frames, grid.tokens_per_frame)
        first, last = runs[:, 0], runs[:, -1]
        together = (last - first == grid.tokens_per_frame - 1) & (first // length == last // length)
        inside = (first % length > 0) & (last % length < length - 1)
        opened = ids[(first - 1).clamp_min(0)] == tokens.start
        closed = ids[(last + 1).clamp_max(len(ids) - 1)] == tokens.end
        if not bool((together & inside & opened & closed).all()):
            raise CompressionError(
                f"the prompt must hold the placeholders of each of the {grid.frames} temporal grids of video {number} "
                f"together, {grid.tokens_per_frame} between a vision_start (id {tokens.start}) and a "
                f"vision_end (id {tokens.end}) of its own; pass the processor's input_ids unchanged"
            )


def keep_grids(
    ids: Tensor, tokens: VisionTokens, grids: Sequence[FrameGrid], counts: Sequence[Sequence[int]]
) -> Tensor:
    """[B, S] bool: what stays of the prompt; of each grid as many placeholders as it has tokens left.

    A grid without any goes from behind the end of the grid before it to its own end, with its timestamp.
    """
    is_video = ids == tokens.video
    keep = torch.ones(ids.numel(), dtype=torch.bool)
    for clip, grid, left in zip(clip_positions(is_video, grids), grids, counts, strict=True):
        firsts: list[int] = clip[:: grid.tokens_per_frame].tolist()
        behind_previous = _first_timestamp(ids, tokens, firsts[0] - 1)
        for first, count in zip(firsts, left, strict=True):
            end = first + grid.tokens_per_frame
            if count:
                keep[first + count : end] = False
            else:
                keep[behind_previous : end + 1] = False
            behind_previous = end + 1
    return keep.view_as(is_video)


def _first_timestamp(ids: Tensor, tokens: VisionTokens, start: int) -> int:
    """Where the timestamp begins that stands before ``start``, the vision_start of a clip's first grid.

    That is behind a vision_start around the whole clip: one that nothing has ended yet. Otherwise ``start`` itself.
    """
    row = start - start % ids.shape[1]
    before = ids.flatten()[row:start]
    opened = before == tokens.start
    marks = (opened | (before == tokens.end)).nonzero().flatten().tolist()
    return row + marks[-1] + 1 if marks and bool(opened[marks[-1]]) else start
