"""Small tables on their way from the device to the host: in one copy, waited for once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap

import torch
from torch import Tensor

from earlytom.ops import packed_frame_similarity, token_similarity
from earlytom.similarity import FrameSimilarity, block_starts

__all__ = ["HostCopy", "SimilarityTables"]


class HostCopy:
    """A tensor on its way to the host.

    On CUDA the copy is queued, and whoever reads it later waits only for what was queued before it.
    """

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if values.device.type != "cuda":
            self._host = values.cpu()
            return
        self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(values.device))

    def read(self) -> Tensor:
        """The values, on the host."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


class SimilarityTables:
    """How alike the temporal grids of each clip are, [N, L, D] each, on its way to the host in one copy.

    Args:
        clips: may be none.
        spans: for each clip how far apart the grids are that are compared, ``None``: all are.
        own: whether to bring along how alike the tokens of each grid are among themselves.
    """

    def __init__(self, clips: Sequence[Tensor], spans: Sequence[int | None], *, own: bool = False) -> None:
        self._clips = [(features.shape[0], span) for features, span in zip(clips, spans, strict=True)]
        self._own = own
        parts = [packed_frame_similarity(clips, spans)] if clips else []
        parts += [token_similarity(features).to(parts[0].device) for features in clips] if own else []
        self._copy = HostCopy(parts[0] if len(parts) == 1 else torch.cat(parts)) if clips else None

    def read(self) -> list[tuple[Tensor | FrameSimilarity, Tensor | None]]:
        """For each clip, on the host: [N, N] float32 or what is known of it, and [N] float32 where it was asked for."""
        if self._copy is None:
            return []
        shapes = [(len(starts), size) for starts, size in starmap(block_starts, self._clips)]
        sizes = [number * size**2 for number, size in shapes]
        grids = [grids for grids, _ in self._clips] if self._own else []
        found = self._copy.read().split([*sizes, *grids])
        tables = [
            table.view(size, size) if span is None else FrameSimilarity(table.view(number, size, size), frames, span)
            for table, (number, size), (frames, span) in zip(found, shapes, self._clips, strict=False)
        ]
        return list(zip(tables, found[len(sizes) :] if self._own else [None] * len(tables), strict=True))
