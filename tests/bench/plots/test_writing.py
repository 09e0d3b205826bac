"""The files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from bench.documents import document
from earlytom.bench.plots import draw_ttft, write_figure, write_plots
from earlytom.errors import EarlyTomError


def test_every_plot_that_there_are_numbers_for(tmp_path: Path) -> None:
    names = [path.name for path in write_plots(document(frames=(8, 32)), tmp_path)]
    assert names == [f"{name}.{kind}" for name in ("ttft", "wait", "throughput", "frames") for kind in ("svg", "png")]
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)
    made = document(retentions=(0.1,))
    for entry in made["results"]:
        entry["milliseconds"]["wait"] = entry["flops"] = None
    assert [path.name for path in write_plots(made, tmp_path)] == ["ttft.svg", "ttft.png"]


def test_the_same_document_gives_the_same_svg(tmp_path: Path) -> None:
    made = document(retentions=(0.1,))
    texts = [write_figure(draw_ttft(made), tmp_path, name)[0].read_text() for name in ("one", "two")]
    assert texts[0] == texts[1]


def test_files_that_cannot_be_written_and_no_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = draw_ttft(document(retentions=(0.1,)))
    with pytest.raises(EarlyTomError, match=r"missing/ttft: cannot be written: No such file"):
        write_figure(figure, tmp_path / "missing", "ttft")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EarlyTomError, match=r"pip install earlytom\[eval\]"):
        write_plots(document(), tmp_path)
