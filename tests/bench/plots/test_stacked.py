"""Stacked times, judged by their bars and texts."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import to_hex

from bench.documents import BEFORE, PARTS, document, result
from earlytom.bench.plots.bars import PARTS as LOOKS
from earlytom.bench.plots.stacked import draw_ttft, draw_ttft_beside_paper, draw_wait

COLOURS = {part.colour.lower(): name for name, part in LOOKS.items()}


def bars_of(axes: Any) -> dict[str, dict[str, float]]:
    """Name of each row -> its parts and their lengths."""
    names = [label.get_text() for label in axes.get_yticklabels()]
    rows: dict[str, dict[str, float]] = {name: {} for name in names}
    for patch in axes.patches:
        row = names[round(patch.get_y() + patch.get_height() / 2)]
        rows[row][COLOURS[to_hex(patch.get_facecolor())]] = patch.get_width()
    return rows


def texts_of(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def arrows_of(axes: Any) -> list[Any]:
    return [text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]


def test_a_panel_for_each_retention_with_the_plain_model_on_top() -> None:
    figure = draw_ttft(document())
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"{kept}% of the visual tokens" for kept in (10, 15, 20, 25)
    ]
    for axes in figure.axes:
        assert list(bars_of(axes)) == ["no compression", "VisionZip", "HoliTom", "EarlyTom"]
    assert figure.axes[-1].get_xlabel() == "time to the first token (ms)"


def test_parts_are_as_long_as_their_medians_and_end_to_end() -> None:
    made = document(retentions=(0.1,))
    (axes,) = draw_ttft(made).axes
    found = bars_of(axes)["EarlyTom"]
    times = next(entry for entry in made["results"] if entry["label"] == "earlytom")["milliseconds"]
    assert found == {name: pytest.approx(times[name]["median"]) for name in PARTS}
    ends = sorted(patch.get_x() + patch.get_width() for patch in axes.patches if round(patch.get_y()) == 3)
    assert ends[-1] == pytest.approx(times["ttft"]["median"])


def test_arrows_and_figures_tell_the_speed_up() -> None:
    made = document(retentions=(0.1,))
    (axes,) = draw_ttft(made).axes
    times = {entry["label"]: entry["milliseconds"]["ttft"]["median"] for entry in made["results"]}
    texts = texts_of(axes)
    assert texts[0] == f"{times['none']:.0f} ms"
    assert texts[-1] == f"{times['earlytom']:.0f} ms  {times['none'] / times['earlytom']:.2f}\N{MULTIPLICATION SIGN}"
    for arrow in arrows_of(axes):
        assert arrow.xyann[0] == pytest.approx(times["none"])
        assert arrow.xy[0] < times["none"]
    assert len(arrows_of(axes)) == 3


def test_what_is_slower_has_a_figure_below_one_and_no_arrow() -> None:
    made = document(retentions=(0.1,), methods=("holitom",))
    made["results"][0]["milliseconds"]["ttft"]["median"] = 100.0
    (axes,) = draw_ttft(made).axes
    assert arrows_of(axes) == []
    assert float(texts_of(axes)[1].split()[-1].rstrip("\N{MULTIPLICATION SIGN}")) < 1
    assert [text.get_fontweight() for text in axes.texts] == ["normal", "normal"]


def test_without_a_plain_model_nothing_is_compared() -> None:
    made = document(retentions=(0.1,))
    (axes,) = draw_ttft({**made, "results": made["results"][1:]}).axes
    assert arrows_of(axes) == []
    assert not any("\N{MULTIPLICATION SIGN}" in text for text in texts_of(axes))


def test_the_plain_model_alone_has_one_panel() -> None:
    (axes,) = draw_ttft(document(methods=())).axes
    assert axes.get_title(loc="left") == "no compression"


def test_numbers_of_tokens_have_a_panel_of_their_own() -> None:
    made = document(retentions=(0.1,))
    made["results"].append(result("mine", None, 32))
    assert [axes.get_title(loc="left") for axes in draw_ttft(made).axes][1] == "kept by number of tokens"


def test_the_wait_has_what_comes_before_the_model_and_a_diamond_for_an_open_file() -> None:
    made = document(retentions=(0.1,), attentions=("sdpa", "eager"))
    figure = draw_wait(made)
    (axes,) = figure.axes
    rows = bars_of(axes)
    assert list(rows)[:2] == ["no compression, sdpa", "no compression, eager"]
    assert list(rows["EarlyTom"]) == [*BEFORE, *PARTS]
    (times,) = [entry["milliseconds"] for entry in made["results"] if entry["label"] == "earlytom"]
    diamonds = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "D"]
    assert diamonds[-1] == times["wait_open"]["median"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-2:] == ["quartiles", "file already open"]


def test_long_times_are_told_in_seconds() -> None:
    made = document(retentions=(0.1,), methods=("earlytom",))
    for entry in made["results"]:
        for value in entry["milliseconds"].values():
            value.update({name: 100 * value[name] for name in ("median", "lower_quartile", "upper_quartile")})
    (axes,) = draw_ttft(made).axes
    assert axes.get_xlabel() == "time to the first token (s)"
    assert texts_of(axes)[0] == f"{made['results'][0]['milliseconds']['ttft']['median'] / 1000:.3g} s"


def test_a_time_whose_parts_are_not_known_is_one_bar() -> None:
    made = document(retentions=(0.1,), methods=("earlytom",))
    for entry in made["results"]:
        entry["milliseconds"] = {"ttft": entry["milliseconds"]["ttft"], "prefill": None}
    (axes,) = draw_ttft(made).axes
    assert list(bars_of(axes)["EarlyTom"]) == ["whole"]


def test_nothing_timed_nothing_drawn() -> None:
    made = document()
    for entry in made["results"]:
        entry["milliseconds"] = {"ttft": None}
    assert draw_ttft(made) is None
    assert draw_wait(made) is None
    assert draw_ttft_beside_paper(made, "llava-onevision-7b") is None
    assert draw_ttft({**made, "results": []}) is None


def test_the_paper_s_numbers_stand_in_panels_of_their_own() -> None:
    measured, published = draw_ttft_beside_paper(document(), "llava-onevision-7b").subfigs
    assert "measured here" in measured.get_suptitle()
    assert published.get_suptitle().split() == [
        "as",
        "published,",
        "NVIDIA",
        "A100;",
        "parts",
        "read",
        "off",
        "its",
        "bars",
    ]
    assert [axes.get_title(loc="left") for axes in published.axes] == [
        axes.get_title(loc="left") for axes in measured.axes
    ]
    assert texts_of(published.axes[0])[-1] == "336 ms  2.65\N{MULTIPLICATION SIGN}"
    assert bars_of(published.axes[0])["EarlyTom"] == {"vision_encoding": 240, "token_processing": 35, "prefill": 58}
    assert bars_of(published.axes[1])["EarlyTom"] == {"whole": 390.6}
    assert list(bars_of(published.axes[3])) == ["no compression", "VisionZip", "HoliTom", "EarlyTom"]


def test_fewer_measured_retentions_than_published_ones() -> None:
    measured, published = draw_ttft_beside_paper(document(retentions=(0.1,)), "llava-onevision-0.5b").subfigs
    assert [axes.axison for axes in measured.axes] == [True, False, False, False]
    assert [axes.axison for axes in published.axes] == [True] * 4
    assert measured.axes[0].get_xlabel() == published.axes[3].get_xlabel() == "time to the first token (ms)"
