"""Throughput over operations, judged by its lines, fills and labels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg

from bench.documents import document
from earlytom.bench.plots.throughput import draw_throughput


def lines_of(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_a_line_for_each_method_through_its_retentions() -> None:
    made = document()
    figure = draw_throughput(made)
    drawn = lines_of(figure.axes[0])
    assert list(drawn) == ["no compression", "VisionZip", "HoliTom", "EarlyTom"]
    mine = [entry for entry in made["results"] if entry["label"] == "earlytom"]
    assert list(drawn["EarlyTom"].get_xdata()) == [entry["flops"]["total"] / 1e12 for entry in mine]
    assert list(drawn["EarlyTom"].get_ydata()) == [entry["throughput"]["median"] for entry in mine]
    assert len({line.get_marker() for line in drawn.values()}) == 4
    assert len(figure.axes) == 1  # no scale of accuracies


def test_known_accuracies_fill_the_markers_and_unknown_ones_stay_empty() -> None:
    figure = draw_throughput(document(), {"earlytom 10%": 56.2, "none": 58.4})
    axes, scale = figure.axes
    fills = [line.get_markerfacecolor() for line in axes.get_lines() if line.get_label().startswith("_")]
    assert len(fills) == 2
    assert fills[0] != fills[1]
    assert all(line.get_markerfacecolor() == "white" for line in lines_of(axes).values())
    assert scale.get_ylabel() == "accuracy (%)"
    assert scale.get_ylim() == pytest.approx((56.2, 58.4))


def test_retentions_at_both_ends_of_each_line_and_none_over_another() -> None:
    figure = draw_throughput(document())
    axes = figure.axes[0]
    texts = [text for text in axes.texts if text.get_text()]
    assert sorted(text.get_text() for text in texts) == ["10%"] * 3 + ["25%"] * 3
    figure.draw_without_rendering()
    boxes = [text.get_window_extent(FigureCanvasAgg(figure).get_renderer()) for text in texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_labels_that_find_no_room_are_left_out() -> None:
    made = document(methods=("earlytom",))
    methods = [entry for entry in made["results"] if entry["label"] == "earlytom"] * 12
    crowd = [entry | {"label": f"method{number}"} for number, entry in enumerate(methods)]
    axes = draw_throughput({**made, "results": crowd}).axes[0]
    assert 0 < len(axes.texts) < len(crowd)


def test_two_ways_to_run_without_compression_are_two_lines() -> None:
    drawn = lines_of(draw_throughput(document(attentions=("sdpa", "eager"))).axes[0])
    assert list(drawn)[:2] == ["no compression, sdpa", "no compression, eager"]
    assert all(len(drawn[name].get_xdata()) == 1 for name in list(drawn)[:2])


def test_what_was_not_counted_is_left_out() -> None:
    made = document(methods=("earlytom", "visionzip"))
    for entry in made["results"]:
        if entry["label"] != "earlytom":
            entry["flops"] = None
    assert list(lines_of(draw_throughput(made).axes[0])) == ["EarlyTom"]
    for entry in made["results"]:
        entry["throughput"] = None
    assert draw_throughput(made) is None
