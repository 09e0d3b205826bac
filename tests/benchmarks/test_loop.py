"""The benchmark of the encoder's loop runs from end to end on a tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import loop


@pytest.mark.slow
def test_runs_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "loop.json"
    command = ["--size", "tiny", "--frames", "5", "--dtype", "float32", "--repeats", "2", "--output", str(output)]
    assert loop.main([*command, "--grids-at-once", "2", "3"]) == 0
    written = json.loads(output.read_text())
    assert list(written["results"]) == [
        "stock",
        "stock again",
        "own loop",
        "own loop, 2 at once",
        "own loop, 3 at once",
    ]
    assert written["largest_difference"] == 0
    assert written["over_stock"] == loop.over_stock(written["results"])
    stock = written["over_stock"]
    assert min(stock["stock"], stock["stock again"]) <= 1 <= max(stock["stock"], stock["stock again"])
    assert {result["visual_tokens"] for result in written["results"].values()} == {5 * 16}
    assert "of stock" in capsys.readouterr().out
