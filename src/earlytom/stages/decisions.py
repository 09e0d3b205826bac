"""What a method decided is looked at before it is applied: a row out of range would end a CUDA process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earlytom.errors import CompressionError
from earlytom.reduction import Reduction
from earlytom.types import Decision

if TYPE_CHECKING:
    from earlytom.methods.base import Method

__all__ = ["checked", "decided"]


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


def _is_ours(method: Method) -> bool:
    return all(type(part).__module__.partition(".")[0] == "earlytom" for part in method.deciding_methods())
