"""Several measurements of one thing, as their median and quartiles."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from earlytom.errors import EarlyTomError

__all__ = ["Quartiles"]

_DIGITS = 3


@dataclass(frozen=True)
class Quartiles:
    """Measured values, in the order they were measured.

    Raises:
        EarlyTomError: there are none.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise EarlyTomError("quartiles are of at least one value, got none")

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Quartiles | None:
        """The quartiles of what was measured; ``None`` where some value, or every one, is missing."""
        found = tuple(values)
        measured = tuple(value for value in found if value is not None)
        return cls(measured) if measured and len(measured) == len(found) else None

    @property
    def median(self) -> float:
        """The middle value, or the mean of the two in the middle."""
        return self._cuts[1]

    @property
    def lower(self) -> float:
        """The lower quartile, linear between the values."""
        return self._cuts[0]

    @property
    def upper(self) -> float:
        """The upper quartile, likewise."""
        return self._cuts[2]

    @property
    def _cuts(self) -> list[float]:
        if len(self.values) == 1:
            return [self.values[0]] * 3
        return statistics.quantiles(self.values, n=4, method="inclusive")

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON, three digits behind the point."""
        return {
            "median": round(self.median, _DIGITS),
            "lower_quartile": round(self.lower, _DIGITS),
            "upper_quartile": round(self.upper, _DIGITS),
            "values": [round(value, _DIGITS) for value in self.values],
        }
