"""Positions with three axes (time, row, column): what stays of them when visual tokens go.

Kept tokens keep the positions that they have in the uncompressed prompt (of merged grids those of the earliest), and so
does the text behind them, from which decoding goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.layouts.prompt import ShortPrompt

__all__ = ["given_positions", "next_positions", "short_positions", "text_positions"]


def given_positions(given: Tensor, shape: Sequence[int]) -> Tensor:
    """The [3, B, S] positions of [3 or 4, B, S] that a caller gives, text positions in front of four.

    Raises:
        CompressionError: they have another shape.
    """
    if given.dim() != 3 or given.shape[0] not in (3, 4) or given.shape[1:] != torch.Size(shape):
        raise CompressionError(
            f"position_ids must be [3, {', '.join(map(str, shape))}] or the same with text positions in front, got "
            f"{tuple(given.shape)}"
        )
    return given[-3:]


def short_positions(
    positions: Tensor, clips: Sequence[Tensor], places: Sequence[Tensor], short: ShortPrompt, device: torch.device
) -> Tensor:
    """What stays of ``positions``. Which tokens of a clip these are is only known on the device.

    Args:
        positions: [3, B, S] int64, of the uncompressed prompts, on the host.
        clips: for each clip the places of its placeholders in the flattened prompts, on the host.
        places: for each clip the [K] places in the clip of the tokens that are kept.
        short: what stays of the prompts.
        device: of the result.

    Returns:
        [3, B, S'] int64.
    """
    batch, length = positions.shape[1:]
    source = (short.index + torch.arange(batch)[:, None] * length).to(device, non_blocking=True)
    width = short.index.shape[1]
    visual = [row * width + place for row, row_places in enumerate(short.visual_positions) for place in row_places]
    chosen = [
        clip.to(device, non_blocking=True)[kept.to(device, non_blocking=True)]
        for clip, kept in zip(clips, places, strict=True)
    ]
    source.view(-1)[torch.tensor(visual).to(device, non_blocking=True)] = torch.cat(chosen)
    gathered = positions.flatten(1).to(device, non_blocking=True)[:, source.flatten()].view(3, batch, width)
    return gathered.masked_fill(short.filler.to(device, non_blocking=True), 0)


def text_positions(mask: Tensor) -> Tensor:
    """[B, S] int64: numbers of tokens in their sample, which tell packed sequences apart; padding has 0."""
    return (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)


def next_positions(positions: Tensor, mask: Tensor) -> Tensor:
    """[B, 1] int64: where decoding goes on, behind the highest of [3, B, S] positions that [B, S] ``mask`` shows.

    That may be the position of a token that is gone.
    """
    return positions.masked_fill(mask == 0, -1).amax(dim=(0, 2))[:, None] + 1
