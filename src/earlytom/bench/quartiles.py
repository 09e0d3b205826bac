"""Several measurements of one thing, as their median and quartiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from earlytom.errors import EarlyTomError

__all__ = ["Quartiles", "percentile"]

_DIGITS = 3


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all do not exceed, linear between neighbours.

    Raises:
        EarlyTomError: there are no values, or the share is not within 0 and 1.
    """
    if not values or not 0 <= share <= 1:
        raise EarlyTomError(f"a percentile needs values and a share from 0 to 1, got {len(values)} values and {share}")
    place = share * (len(values) - 1)
    ordered, below = sorted(values), math.floor(place)
    above = min(below + 1, len(values) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


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
        return percentile(self.values, 0.5)

    @property
    def lower(self) -> float:
        """The lower quartile, linear between the values."""
        return percentile(self.values, 0.25)

    @property
    def upper(self) -> float:
        """The upper quartile, likewise."""
        return percentile(self.values, 0.75)

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON, three digits behind the point."""
        return {
            "median": round(self.median, _DIGITS),
            "lower_quartile": round(self.lower, _DIGITS),
            "upper_quartile": round(self.upper, _DIGITS),
            "values": [round(value, _DIGITS) for value in self.values],
        }
