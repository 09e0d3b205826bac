"""Plots drawn again from a folder of results."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from earlytom.errors import EarlyTomError
from earlytom.eval.report import write_report
from eval.plot.made_rows import make_rows
from redraw import main


def test_every_plot_is_drawn_again_and_nothing_else_is_touched(tmp_path, capsys) -> None:
    kept = write_report(tmp_path, make_rows(("earlytom",)), [("model", "a model"), ("data", "2 clips")])
    before = [path.read_bytes() for path in kept]
    main([str(tmp_path)])
    plots = [f"{name}.{suffix}" for suffix in ("png", "svg") for name in ("accuracy", "ttft", "front")]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in plots]
    assert {path.name for path in tmp_path.iterdir()} == {"rows.json", "report.md", *plots}
    assert [path.read_bytes() for path in kept] == before
    for name in plots:
        start = b"\x89PNG" if name.endswith("png") else b"<?xml"
        assert (tmp_path / name).read_bytes().startswith(start)


def test_a_folder_without_results_is_named(tmp_path) -> None:
    with pytest.raises(EarlyTomError, match=r"rows\.json: cannot be read"):
        main([str(tmp_path)])
