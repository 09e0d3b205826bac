"""Where rows stand on an axis of retentions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from earlytom.eval.rows import Row
from earlytom.eval.variants import BASELINE

__all__ = ["by_share", "share"]

_NUMBER = re.compile(r":visual_tokens=\d+(,?)")


def by_share(rows: Sequence[Row]) -> list[Row]:
    """The rows; those of methods without a retention, or with a number of tokens, with the share that they kept.

    A number of tokens leaves the name, so that a method's numbers make one line.
    """
    whole = {(row.skill, row.form): row.visual_tokens for row in rows if row.method == BASELINE}
    return [_with_share(row, whole.get((row.skill, row.form))) for row in rows]


def share(row: Row) -> float:
    """The row's retention; all of the tokens where nothing is known of it."""
    return 1.0 if row.retention is None else row.retention


def _with_share(row: Row, whole: float | None) -> Row:
    method, numbers = _NUMBER.subn(lambda found: ":" if found[1] else "", row.method)
    if whole is None or (row.retention is not None and not numbers):
        return row
    return dataclasses.replace(row, method=method, retention=row.visual_tokens / whole)
