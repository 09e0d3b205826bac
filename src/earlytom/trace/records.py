"""What happened to one clip, and to the tokens inside the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earlytom.errors import EarlyTomError

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.reduction import Reduction
    from earlytom.types import FrameGrid

__all__ = ["CellRecord", "LanguageReduction", "MergeRecord", "TokenMergeRecord", "VideoTrace"]


@dataclass(frozen=True, kw_only=True)
class MergeRecord:
    """One merge layer.

    Attributes:
        layer: the 0-based encoder layer after which temporal grids merged.
        grids_before: temporal grids that came to the layer.
        grids_after: temporal grids that were left behind it.
        details: what the method says about it (segments, threshold).
    """

    layer: int
    grids_before: int
    grids_after: int
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def frames_before(self) -> int:
        """`grids_before`, under its former name."""
        return self.grids_before

    @property
    def frames_after(self) -> int:
        """`grids_after`, under its former name."""
        return self.grids_after


@dataclass(frozen=True, kw_only=True)
class TokenMergeRecord:
    """One encoder layer in which tokens merged: tokens of each temporal grid before and after."""

    layer: int
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """Where only some cells of each temporal grid went on through the vision encoder.

    Attributes:
        layer: the 0-based encoder layer behind which they went on alone.
        cells_before: cells of a temporal grid, each of which becomes one visual token.
        cells_after: those of each grid that went on.
        details: what the method says about it.
    """

    layer: int
    cells_before: int
    cells_after: int
    details: Mapping[str, object] = field(default_factory=dict)


# eq=False, here as everywhere: a generated __eq__ would ask tensors for one truth value.
@dataclass(kw_only=True, eq=False)
class VideoTrace:
    """What happened to one clip.

    What the vision encoder takes as one is a temporal grid: one sampled frame, or a pair of them in the Qwen families.
    A trace counts in temporal grids; sampled frames are called so.

    Attributes:
        grid: the uncompressed clip.
        budget: visual tokens that were promised to the language model.
        stepped_aside: why the clip was left alone, or ``None``.
        merges: the merge layers, in order.
        token_merges: the encoder layers in which tokens merged inside their temporal grid, in order.
        cells: where only some cells of each temporal grid went on, or ``None``.
        origin: from the B input grids to the N that are left.
        selection: from the N * P pooled tokens to the kept ones; ``None`` when all were kept.
        attention: [N, P] attention received, pooled, as selection saw it, 0 for cells that had left before; ``None``
            when it was not needed.
        details: what the method says about selection (refined segments, dynamic grids, tokens of each grid).
        source: where the frames came from: file, decoder, frame indices (filled in by `earlytom.VideoQA`).
    """

    grid: FrameGrid
    budget: int
    stepped_aside: str | None
    origin: Reduction
    merges: list[MergeRecord] = field(default_factory=list)
    token_merges: list[TokenMergeRecord] = field(default_factory=list)
    cells: CellRecord | None = None
    selection: Reduction | None = None
    attention: Tensor | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    source: Mapping[str, object] = field(default_factory=dict)

    @property
    def temporal_grids_left(self) -> int:
        """N, the temporal grids that came out of the encoder."""
        return self.origin.outputs

    @property
    def frames_left(self) -> int:
        """The same as `temporal_grids_left`, under its former name."""
        return self.temporal_grids_left

    @property
    def sampled_frames(self) -> int | None:
        """How many frames were sampled; ``None`` where ``source`` does not tell."""
        indices = self.source.get("frame_indices")
        return len(indices) if isinstance(indices, Sized) else None

    @property
    def tokens(self) -> int:
        """Visual tokens that went into the language model (newline embeddings not counted)."""
        merged = self.temporal_grids_left * self.grid.tokens_per_frame
        return merged if self.selection is None else self.selection.outputs

    def kept_tokens(self) -> list[tuple[int, int]]:
        """(temporal grid among those left, token in raster order) of every kept token."""
        per_frame = self.grid.tokens_per_frame
        indices = range(self.tokens) if self.selection is None else self.selection.survivors().tolist()
        return [divmod(index, per_frame) for index in indices]

    def sources(self) -> list[list[int]]:
        """For each temporal grid that is left the input grids it was made of."""
        return [[source for source, _ in row] for row in self.origin.to_rows()]

    def frames_of_grids(self, frames: int) -> list[list[int]]:
        """The sampled frames, from 0, that the encoder took as each input grid.

        Args:
            frames: how many were sampled.

        Returns:
            Equally many for each grid. Where there were too few for the last one its processor repeated the last
            frame, and so does this.

        Raises:
            EarlyTomError: so many sampled frames do not make the grids of this clip.
        """
        grids, known = self.grid.temporal_grids, self.sampled_frames
        if known not in (None, frames):
            raise EarlyTomError(f"the trace is of {known} sampled frames, got {frames}")
        each = -(-frames // grids)
        if each < 1 or -(-frames // each) != grids:
            raise EarlyTomError(
                f"the trace is of {grids} temporal grids, got {frames} sampled frames, which do not make so many"
            )
        return [[min(frame, frames - 1) for frame in range(each * grid, each * (grid + 1))] for grid in range(grids)]

    def sampled_sources(self, frames: int) -> list[list[int]]:
        """For each temporal grid that is left the sampled frames, from 0, that it was made of, ascending.

        Args:
            frames: how many were sampled.

        Raises:
            EarlyTomError: so many sampled frames do not make the grids of this clip.
        """
        shown = self.frames_of_grids(frames)
        return [sorted({frame for grid in grids for frame in shown[grid]}) for grids in self.sources()]


@dataclass(frozen=True, kw_only=True)
class LanguageReduction:
    """Visual tokens of each sample before and after a reduction inside the language model."""

    layer: int
    tokens_before: tuple[int, ...]
    tokens_after: tuple[int, ...]


def video_to_dict(video: VideoTrace) -> dict[str, object]:
    """As plain data, for JSON."""
    return {
        "sampled_frames": video.sampled_frames,
        "temporal_grids": video.grid.temporal_grids,
        "temporal_grids_left": video.temporal_grids_left,
        # Grids too, here and below, under the names that they had before.
        "frames": video.grid.temporal_grids,
        "frames_left": video.temporal_grids_left,
        "tokens_uncompressed": video.grid.tokens,
        "tokens": video.tokens,
        "budget": video.budget,
        "stepped_aside": video.stepped_aside,
        "merges": [
            {
                "layer": merge.layer,
                "grids_before": merge.grids_before,
                "grids_after": merge.grids_after,
                "frames_before": merge.grids_before,
                "frames_after": merge.grids_after,
                **merge.details,
            }
            for merge in video.merges
        ],
        "token_merges": [
            {"layer": merge.layer, "tokens_before": merge.tokens_before, "tokens_after": merge.tokens_after}
            for merge in video.token_merges
        ],
        "cells": _cells_to_dict(video.cells),
        "selection": dict(video.details),
        "sources": video.sources(),
        "source": dict(video.source),
    }


def _cells_to_dict(record: CellRecord | None) -> dict[str, object] | None:
    if record is None:
        return None
    counts = {"layer": record.layer, "cells_before": record.cells_before, "cells_after": record.cells_after}
    return {**counts, **record.details}
