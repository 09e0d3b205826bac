"""`FrameSimilarity`: how alike the frames of a clip are, as far apart as somebody reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from earlytom.errors import MethodError

__all__ = ["FrameSimilarity", "SimilarityRow", "SimilarityTable", "block_starts"]

# Frames compared together in a long clip. On a CPU the product of all frames with all is as fast up to two such blocks,
# narrow or wide (benchmarks/long_clips.py), and beyond this loses to it.
_BLOCK = 64
# Each block repeats `span` frames of the one before it, which should be few of them.
_BLOCK_OF_SPAN = 8


class SimilarityRow(Protocol):
    """The similarities of one frame to others, by the number of the other."""

    def __getitem__(self, frame: int, /) -> float: ...


SimilarityTable = Sequence[SimilarityRow]
"""Row i holds the similarities of frame i: ``table[i][j]``; lists of lists are one."""


def block_starts(frames: int, span: int | None) -> tuple[list[int], int]:
    """The first frames of the blocks in which a clip is compared with itself, and how many frames each block has.

    Frames at most ``span`` apart are together in one block at least. All blocks have one size, so that equal pairs of
    frames are equal in all of them; the last one ends with the clip.

    Args:
        frames: N.
        span: how far apart frames are that are compared; ``None``: all are.
    """
    size = frames if span is None else max(_BLOCK, _BLOCK_OF_SPAN * span)
    if frames <= 2 * size or span is None:
        return [0], frames
    return [*range(0, frames - size, size - span), frames - size], size


@dataclass(frozen=True, eq=False)
class FrameSimilarity:
    """Similarity of the N frames (temporal grids) of a clip to those at most ``span`` away, on the host.

    Attributes:
        blocks: [K, B, B] float32, the tables of `block_starts`.
        frames: N.
        span: what is farther apart may be in no block.

    Raises:
        MethodError: the blocks are not those of ``block_starts(frames, span)``.
    """

    blocks: Tensor
    frames: int
    span: int

    def __post_init__(self) -> None:
        starts, size = block_starts(self.frames, self.span)
        if tuple(self.blocks.shape) != (len(starts), size, size):
            raise MethodError(
                f"the similarity of {self.frames} frames at most {self.span} apart must be "
                f"{[len(starts), size, size]}, got {tuple(self.blocks.shape)}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N), that of the table which `rows` stands for."""
        return self.frames, self.frames

    def rows(self) -> SimilarityTable:
        """``rows()[i][j]`` is the similarity of frames i and j, host data; linear in N.

        Reading what is more than ``span`` apart raises `MethodError` in clips of several blocks.
        """
        if self.blocks.shape[0] == 1:
            whole: list[list[float]] = self.blocks[0].tolist()
            return whole
        band = self._band()
        return [_BandRow(frame, band, self.span) for frame in range(self.frames)]

    def _band(self) -> list[list[float]]:
        """For each frame its similarity to itself and to as many as ``span`` behind it."""
        starts, size = block_starts(self.frames, self.span)
        frame, first = torch.arange(self.frames), torch.tensor(starts)
        number = torch.bucketize(frame, first, right=True) - 1
        row = (frame - first[number])[:, None]
        column = (row + torch.arange(self.span + 1)).clamp_max_(size - 1)
        band: list[list[float]] = self.blocks[number[:, None], row, column].tolist()
        return [values[: self.frames - start] for start, values in enumerate(band)]


@dataclass(frozen=True)
class _BandRow:
    """A row of a table of which only a band around the diagonal is known."""

    frame: int
    band: list[list[float]]
    span: int

    def __getitem__(self, frame: int, /) -> float:
        first, last = (self.frame, frame) if frame > self.frame else (frame, self.frame)
        if first < 0 or last - first > self.span or last >= len(self.band):
            raise MethodError(
                f"the similarity of frames {self.frame} and {frame} is not known: of the {len(self.band)} frames of "
                f"the clip those at most {self.span} apart were compared (EncoderPlan.similarity_span; None: all)"
            )
        return self.band[first][last - first]
