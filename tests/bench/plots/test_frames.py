"""Cost over frames, judged by its lines."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("matplotlib")

from bench.documents import document
from earlytom.bench.plots.frames import draw_over_frames

FRAMES = (8, 32, 128)


def lines_of(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.get_lines()}


def test_times_and_memory_over_frames() -> None:
    made = document(frames=FRAMES, methods=("earlytom",))
    figure = draw_over_frames(made)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "first token (ms)",
        "from the file (s)",
        "memory of the call (GiB)",
    ]
    for axes in figure.axes:
        drawn = lines_of(axes)
        assert list(drawn) == ["no compression", "EarlyTom 10%"]  # the lowest of the retentions
        assert list(drawn["EarlyTom 10%"].get_xdata()) == list(FRAMES)
    plain = [entry for entry in made["results"] if entry["label"] == "none"]
    times = [entry["milliseconds"]["ttft"]["median"] for entry in plain]
    assert list(lines_of(figure.axes[0])["no compression"].get_ydata()) == times
    sizes = [entry["peak_bytes"]["all"] / 2**30 for entry in plain]
    assert list(lines_of(figure.axes[2])["no compression"].get_ydata()) == sizes
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["8", "32", "128"]


def test_another_retention() -> None:
    figure = draw_over_frames(document(frames=FRAMES, methods=("earlytom",)), retention=0.2)
    assert "EarlyTom 20%" in lines_of(figure.axes[0])


def test_what_was_not_measured_has_no_panel() -> None:
    made = document(frames=FRAMES)
    for entry in made["results"]:
        entry["peak_bytes"] = {"all": None}
        entry["milliseconds"]["wait"] = None
    assert len(draw_over_frames(made).axes) == 1
    for entry in made["results"]:
        entry["milliseconds"]["ttft"] = None
    assert draw_over_frames(made) is None


def test_a_method_that_failed_at_many_frames_ends_before() -> None:
    made = document(frames=FRAMES, methods=("earlytom",))
    kept = [entry for entry in made["results"] if (entry["label"], entry["frames"]) != ("none", 128)]
    drawn = lines_of(draw_over_frames({**made, "results": kept}).axes[0])
    assert list(drawn["no compression"].get_xdata()) == [8, 32]


def test_one_number_of_frames_is_no_line() -> None:
    assert draw_over_frames(document()) is None
