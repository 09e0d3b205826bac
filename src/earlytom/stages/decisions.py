"""What a method decided is looked at before it is applied: a row out of range would end a CUDA process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.reduction import Reduction
from earlytom.types import Decision

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.types import CellStates

__all__ = ["checked", "checked_cells", "decided"]


def checked(method: Method, reduction: Reduction, rows: int, *, distinct: bool = False) -> Reduction:
    """Return ``reduction``, which is to be applied to ``rows`` rows, ``distinct``: into a place of its own each.

    Values that lie on the host were looked at when it was made. Those on a device are read only where a method of
    somebody else made them, since reading waits for the device.

    Raises:
        CompressionError: it is none, is for another number of rows, leaves none or more than there were, or two in one
            place.
        MethodError: a value is out of range.
    """
    if not isinstance(reduction, Reduction):
        raise CompressionError(f"method {method.name!r} must decide by an earlytom.Reduction, got {reduction!r}")
    if not 1 <= reduction.outputs <= rows:
        raise CompressionError(
            f"method {method.name!r} left {reduction.outputs} of {rows} rows, where 1 to {rows} can be left"
        )
    if reduction.inputs != rows:
        raise CompressionError(
            f"method {method.name!r} decided about {reduction.inputs} rows where there are {rows} to decide about"
        )
    on_host, ours = reduction.source.device.type == "cpu", _is_ours(method)
    if not on_host and not ours:
        reduction.check_values()
    if distinct and not ours and reduction.survivors().unique().shape[0] != reduction.outputs:
        raise CompressionError(f"method {method.name!r} left two tokens in one place: each must have one of its own")
    return reduction


def decided(method: Method, decision: Decision) -> Decision:
    """Return ``decision``. Raises `CompressionError` for what is none."""
    if not isinstance(decision, Decision):
        raise CompressionError(f"method {method.name!r} must return an earlytom.types.Decision, got {decision!r}")
    return decision


def checked_cells(method: Method, decision: Decision, states: CellStates) -> Tensor:
    """The [N, K] int64 cells of each grid that a decision of `Method.select_cells` keeps, by number in raster order.

    Values that lie on a device are read only where a method of somebody else chose them.

    Raises:
        CompressionError: they are not as many as promised of each grid, and of each window, or do not ascend.
        MethodError: a value is out of range.
    """
    grids, cells = states.features.shape[:2]
    reduction = decided(method, decision).reduction
    if reduction is None:
        raise CompressionError(
            f"method {method.name!r} promised {states.kept} of the {cells} cells of each temporal grid and chose none"
        )
    rows = checked(method, reduction, grids * cells).source
    if reduction.weight is not None:
        raise CompressionError(f"method {method.name!r} must keep cells as they are, but gave them weights")
    if rows.shape[0] != grids * states.kept:
        raise CompressionError(
            f"method {method.name!r} kept {rows.shape[0]} cells of {grids} temporal grids, where it had promised "
            f"{states.kept} of each"
        )
    kept = rows.view(grids, states.kept) - torch.arange(grids, device=rows.device)[:, None] * cells
    if rows.device.type == "cpu" or not _is_ours(method):
        _check_kept(method, kept, states)
    return kept


def _check_kept(method: Method, kept: Tensor, states: CellStates) -> None:
    """Raise `CompressionError` for [N, K] cells that do not ascend inside their grid, or fill windows otherwise."""
    kept = kept.cpu()  # one wait, where it is one
    if bool(((kept < 0) | (kept >= states.features.shape[1])).any()) or bool((kept.diff(dim=1) < 1).any()):
        raise CompressionError(
            f"method {method.name!r} must keep {states.kept} different cells of each temporal grid, ascending"
        )
    if states.windows is None:
        return
    of = states.windows.of.cpu()[kept]
    wanted = torch.tensor(states.windows.kept, dtype=torch.int64, device="cpu")
    counts = kept.new_zeros(len(kept), len(wanted)).scatter_add_(1, of, torch.ones_like(of))
    if bool((counts != wanted).any()):
        raise CompressionError(
            f"method {method.name!r} must keep {states.windows.kept} cells of the attention windows of each temporal "
            "grid, but kept others"
        )


def _is_ours(method: Method) -> bool:
    return all(type(part).__module__.partition(".")[0] == "earlytom" for part in method.deciding_methods())
