"""Medians and quartiles."""

from __future__ import annotations

import pytest

from earlytom import EarlyTomError
from earlytom.bench.quartiles import Quartiles


def test_quartiles_lie_linearly_between_the_values() -> None:
    found = Quartiles((4.0, 1.0, 2.0, 3.0))
    assert (found.lower, found.median, found.upper) == (1.75, 2.5, 3.25)
    assert found.to_dict() == {
        "median": 2.5,
        "lower_quartile": 1.75,
        "upper_quartile": 3.25,
        "values": [4.0, 1.0, 2.0, 3.0],
    }


def test_one_value_is_all_three() -> None:
    found = Quartiles((7.1234567,))
    assert (found.lower, found.median, found.upper) == (7.1234567,) * 3
    assert found.to_dict()["median"] == 7.123


def test_what_was_not_measured_has_none() -> None:
    assert Quartiles.of([]) is None
    assert Quartiles.of([1.0, None]) is None
    assert Quartiles.of(iter([1.0, 2.0])) == Quartiles((1.0, 2.0))
    with pytest.raises(EarlyTomError, match="at least one value"):
        Quartiles(())
