"""What a method decided is looked at before it is applied: a row out of range would end a CUDA process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earlytom.errors import CompressionError
from earlytom.methods.compose import Composition

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.reduction import Reduction

__all__ = ["checked"]


def checked(method: Method, reduction: Reduction, rows: int) -> Reduction:
    """Return ``reduction``, which is to be applied to ``rows`` rows.

    Values that lie on the host were looked at when it was made. Those on a device are read only where a method of
    somebody else made them, since reading waits for the device.

    Raises:
        CompressionError: it is for another number of rows.
        MethodError: a value is out of range.
    """
    if reduction.inputs != rows:
        raise CompressionError(
            f"method {method.name!r} decided about {reduction.inputs} rows where there are {rows} to decide about"
        )
    if reduction.source.device.type != "cpu" and not _is_ours(method):
        reduction.check_values()
    return reduction


def _is_ours(method: Method) -> bool:
    parts = [part for part, _ in method.parts()] if isinstance(method, Composition) else [method]
    return all(type(part).__module__.partition(".")[0] == "earlytom" for part in parts)
