"""No compression: the plain model through the same code path, so that comparisons measure nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from earlytom.errors import MethodError
from earlytom.methods.base import Method

__all__ = ["Uncompressed"]


@dataclass(frozen=True, kw_only=True)
class Uncompressed(Method):
    """Keeps every visual token; ``retention`` can only be 1."""

    name: ClassVar[str] = "none"
    summary: ClassVar[str] = "no compression (the baseline)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retention != 1.0:
            raise MethodError(f"method 'none' keeps every token, so retention must be 1, got {self.retention!r}")
