"""Small tables on their way from the device to the host: in one copy, waited for once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from earlytom.ops import packed_frame_similarity

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
    """The similarity of all temporal grids of each clip, [N, L, D] each, on its way to the host in one copy."""

    def __init__(self, clips: Sequence[Tensor]) -> None:
        self._grids = [features.shape[0] for features in clips]
        self._copy = HostCopy(packed_frame_similarity(clips)) if clips else None

    def read(self) -> list[Tensor]:
        """[N, N] float32 each, on the host."""
        if self._copy is None:
            return []
        tables = self._copy.read().split([grids**2 for grids in self._grids])
        return [table.view(grids, grids) for table, grids in zip(tables, self._grids, strict=True)]
