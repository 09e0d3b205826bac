"""The front: what no other point beats, as a staircase, named."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("matplotlib")

from matplotlib.patches import StepPatch

from earlytom.eval.plot import draw_front, pareto_front
from eval.plot.made_rows import make_rows, row


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nothing_beats(seed: int) -> None:
    points = [(entry.ttft or 0.0, entry.accuracy) for entry in make_rows(seed=seed) if entry.skill == "all"]
    best = pareto_front(points)
    assert best == sorted(best, key=lambda number: points[number])
    for number, (cost, worth) in enumerate(points):
        beaten = any(
            (c < cost and w >= worth) or (c <= cost and w > worth)
            for other, (c, w) in enumerate(points)
            if other != number
        )
        assert beaten != (number in best)
    assert all(points[one][1] < points[two][1] for one, two in itertools.pairwise(best))


def test_equal_points_are_both_on_the_front() -> None:
    assert pareto_front([(2.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 0.5), (3.0, 2.0)]) == [1, 2, 4]


def test_the_front_is_a_staircase_whose_points_are_named() -> None:
    rows = [
        row("none", 1.0, "all", 0.9, 0.25),
        row("earlytom", 0.25, "all", 0.8, 0.2),
        row("earlytom", 0.1, "all", 0.7, 0.1),
        row("tome", 0.25, "all", 0.6, 0.15),
    ]
    (axes,) = draw_front(rows, title="").axes
    assert sorted(text.get_text() for text in axes.texts) == ["earlytom 10%", "earlytom 25%", "no compression"]
    (stairs,) = (patch for patch in axes.patches if isinstance(patch, StepPatch))
    values, edges, _ = stairs.get_data()
    assert list(values) == pytest.approx([70.0, 80.0, 90.0])
    assert list(edges) == pytest.approx([100.0, 200.0, 250.0, 250.0])
    pale = [line for line in axes.get_lines() if line.get_alpha() is not None and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in pale] == [[pytest.approx(150.0)]]
