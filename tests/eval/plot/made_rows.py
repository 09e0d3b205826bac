"""Rows as an evaluation makes them, of many methods, on which plots are tried."""

from __future__ import annotations

import random
from collections.abc import Sequence

from earlytom.eval.rows import Row
from earlytom.methods import METHODS

SKILLS = ("all", "colour", "shape", "direction", "count", "order", "brief", "position")
RETENTIONS = (0.25, 0.2, 0.15, 0.1)


def make_rows(
    methods: Sequence[str] = tuple(METHODS), retentions: Sequence[float] = RETENTIONS, *, seed: int = 0
) -> list[Row]:
    """Rows of ``none`` and of every method at every retention; times so alike that points crowd."""
    draw = random.Random(seed)
    made = [row("none", 1.0, skill, 0.95, 0.25) for skill in SKILLS]
    for method in methods:
        start = 0.1 if method == "tome" else 0.17
        for retention in retentions if method != "none" else ():
            time = start + 0.1 * retention + draw.gauss(0.0, 0.003)
            made += [row(method, retention, skill, draw.uniform(0.5, 0.9) + 0.3 * retention, time) for skill in SKILLS]
    return made


def row(method: str, retention: float | None, skill: str, accuracy: float, ttft: float) -> Row:
    """One line of results, over all forms of questions."""
    return Row(
        method=method, retention=retention, skill=skill, form="any", n=154, clips=100, accuracy=min(accuracy, 1.0),
        low=accuracy - 0.03, high=min(accuracy + 0.03, 1.0), chance=0.3, visual_tokens=576 * (retention or 1.0),
        tokens_per_layer=576 * (retention or 1.0), frames_left=16.0, ttft=ttft,
    )  # fmt: skip
