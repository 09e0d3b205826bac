"""The plots: a panel for each skill, a line for each method, bars for the intervals; labels are in `eval/plot/`."""

from __future__ import annotations

import dataclasses

import pytest

from earlytom.eval.rows import Row

pytest.importorskip("matplotlib")

from earlytom.eval.plot import draw, draw_over_ttft
from earlytom.viz.inspect import write_png

SKILLS = ("all", "colour", "brief")


def row(method: str, retention: float, skill: str, accuracy: float) -> Row:
    return Row(
        method=method,
        retention=retention,
        skill=skill,
        form="any",
        n=40,
        clips=5,
        accuracy=accuracy,
        low=accuracy - 0.1,
        high=accuracy + 0.05,
        chance=0.3,
        visual_tokens=100.0,
        tokens_per_layer=100.0,
        frames_left=9.0,
        ttft=0.05,
    )


def rows(methods: int, retentions: tuple[float, ...] = (0.25, 0.1)) -> list[Row]:
    made = [row("none", 1.0, skill, 0.9) for skill in SKILLS]
    for number in range(methods):
        made += [
            row(f"method{number}", retention, skill, 0.6 + retention) for retention in retentions for skill in SKILLS
        ]
    return made + [dataclasses.replace(entry, form="letters", accuracy=0.0) for entry in made]


def panels(figure) -> dict:
    return {axes.get_title().split("  ")[0]: axes for axes in figure.axes if axes.get_title()}


def lines(axes) -> dict:
    return {line.get_label(): line for line in axes.get_lines()}


def test_every_skill_has_a_panel_with_a_line_for_every_method() -> None:
    shown = panels(draw(rows(2), title="title"))
    assert set(shown) == {"all skills", "colour", "brief"}
    for axes in shown.values():
        drawn = lines(axes)
        assert set(drawn) == {"no compression", "chance", "method0", "method1"}
        assert list(drawn["method0"].get_ydata()) == pytest.approx([70.0, 85.0])  # ascending retention, in percent
        assert list(drawn["no compression"].get_ydata()) == pytest.approx([90.0, 90.0])
        assert len(axes.collections) == 2  # bars for each method
        assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "25"]


@pytest.mark.parametrize(("methods", "retentions"), [(7, (0.25, 0.1)), (1, (0.25,)), (0, ())])
def test_many_methods_one_retention_and_none_at_all(methods, retentions, tmp_path) -> None:
    figure = draw(rows(methods, retentions), title="a title that is long " * 20)
    for axes in panels(figure).values():
        assert len(lines(axes)) == 2 + methods
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["no compression", "chance", *(f"method{number}" for number in range(methods))]
    write_png(figure, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_methods_can_be_told_apart_without_colour() -> None:
    drawn = lines(panels(draw(rows(6), title=""))["brief"])
    looks = {(drawn[f"method{number}"].get_marker(), drawn[f"method{number}"].get_color()) for number in range(6)}
    assert len(looks) == len({marker for marker, _ in looks}) == len({colour for _, colour in looks}) == 6


def test_accuracy_over_ttft_has_a_line_a_method_through_its_retentions() -> None:
    made = rows(2, retentions=(0.25, 0.2, 0.1))
    timed = [dataclasses.replace(entry, ttft=0.02 + 0.1 * (entry.retention or 1.0)) for entry in made]
    (axes,) = draw_over_ttft(timed, title="title").axes
    drawn = lines(axes)
    assert set(drawn) == {"no compression", "method0", "method1"}
    assert list(drawn["method0"].get_xdata()) == pytest.approx([30.0, 40.0, 45.0])
    assert list(drawn["method0"].get_ydata()) == pytest.approx([70.0, 80.0, 85.0])
    assert list(drawn["no compression"].get_xdata()) == pytest.approx([120.0])
    assert sorted(text.get_text() for text in axes.texts) == ["10%", "10%", "25%", "25%"]
    colours = {line.get_color() for line in drawn.values()}
    assert len(colours) == 3


def test_numbers_of_tokens_stand_at_the_share_that_was_kept() -> None:
    made = [dataclasses.replace(row("none", 1.0, skill, 0.9), visual_tokens=400.0) for skill in SKILLS]
    for name in ("method0:visual_tokens={}", "one+two@tokens:visual_tokens={},ema=0.5"):
        for number in (40, 100):
            shown = (row(name.format(number), 0.0, skill, 0.6) for skill in SKILLS)
            made += [dataclasses.replace(entry, retention=None, visual_tokens=float(number)) for entry in shown]
    drawn = lines(panels(draw(made, title="title"))["brief"])
    assert set(drawn) == {"no compression", "chance", "method0", "one+two@tokens:ema=0.5"}
    assert list(drawn["method0"].get_xdata()) == pytest.approx([0.1, 0.25], rel=0.06)
    (axes,) = draw_over_ttft(made, title="title").axes
    assert sorted(text.get_text() for text in axes.texts) == ["10%", "10%", "25%", "25%"]


def test_nothing_is_drawn_over_ttft_where_nothing_was_timed() -> None:
    untimed = [dataclasses.replace(entry, ttft=None) for entry in rows(1)]
    assert draw_over_ttft(untimed, title="title") is None


def test_what_keeps_every_token_stands_at_the_end_of_a_cut_axis_beside_what_does_not() -> None:
    whole = [row("whole", 1.0, skill, 0.9) for skill in SKILLS]
    axes = panels(draw(rows(1) + whole, title="title"))["all skills"]
    assert set(lines(axes)) == {"no compression", "chance", "method0", "whole"}
    (place,) = lines(axes)["whole"].get_xdata()
    assert 0.25 * 1.2 < place < 0.5  # not so far away that all others stand on one spot
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "25", "100"]
    assert [text.get_text() for text in axes.texts] == ["//"]
    axes = panels(draw(rows(0) + whole, title="title"))["all skills"]
    assert list(lines(axes)["whole"].get_xdata()) == pytest.approx([1.0])
    assert not axes.texts


def test_a_method_looks_the_same_in_both_plots() -> None:
    """One that lets every token in has its own place and must not shift the looks of those after it."""
    whole = [row("whole", 1.0, skill, 0.88) for skill in SKILLS]
    both = [*rows(2)[:3], *whole, *rows(2)[3:]]
    over_retention = lines(panels(draw(both, title=""))["all skills"])
    over_ttft = lines(draw_over_ttft(both, title="").axes[0])
    for method in ("method0", "method1", "whole"):
        for look in ("color", "marker", "linestyle"):
            of_one, of_other = (getattr(drawn[method], f"get_{look}")() for drawn in (over_retention, over_ttft))
            assert of_one == of_other


def test_no_compression_is_dashed_in_every_plot() -> None:
    """It is the only one that is, so that a dashed line means the same everywhere."""
    for axes in (*panels(draw(rows(12), title="")).values(), *draw_over_ttft(rows(12), title="").axes):
        dashed = {label for label, line in lines(axes).items() if line.get_linestyle() == "--"}
        assert dashed == {"no compression"}


def test_a_method_without_a_retention_stands_at_the_share_that_it_kept() -> None:
    made = [dataclasses.replace(entry, visual_tokens=400.0) for entry in rows(1)]
    own = [dataclasses.replace(row("own", 0.0, skill, 0.7), retention=None, visual_tokens=80.0) for skill in SKILLS]
    axes = panels(draw(made + own, title=""))["colour"]
    assert list(lines(axes)["own"].get_xdata()) == pytest.approx([0.2], rel=0.1)


def test_shares_that_lie_close_together_are_not_all_written() -> None:
    axes = panels(draw(rows(1, retentions=(0.25, 0.248, 0.24, 0.1)), title=""))["colour"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "25"]
    assert len(lines(axes)["method0"].get_xdata()) == 4


def test_everything_lies_within_the_axes() -> None:
    """The smallest share too, where it is too near to the next one to be written on the axis."""
    for axes in panels(draw(rows(5, retentions=(0.25, 0.105, 0.1)), title="")).values():
        low, high = axes.get_xlim()
        for line in lines(axes).values():
            if line.get_marker() != "None":
                assert low < min(line.get_xdata()) < max(line.get_xdata()) < high
                assert axes.get_ylim()[0] < min(line.get_ydata()) < max(line.get_ydata()) < axes.get_ylim()[1]
