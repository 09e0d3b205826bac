"""The benchmark of long clips runs from end to end on small ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import long_clips


def test_runs_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setitem(long_clips.WIDTHS, "narrow", (4, 16, 16, long_clips.torch.float32))
    output = tmp_path / "long.json"
    command = ["--narrow", "40", "150", "--true", "--planned", "140", "--encoded", "9", "--grids-at-once", "4"]
    assert long_clips.main([*command, "--repeats", "1", "--output", str(output)]) == 0
    written = json.loads(output.read_text())
    short, long = written["token_processing"].values()
    assert short["same_tokens"]
    assert long["same_tokens"]
    assert short["largest_difference_of_similarity"] == 0
    assert long["largest_difference_of_similarity"] < 1e-6
    assert list(long["results"]) == list(written["planning"]["140"]) == ["blocks", "all pairs"]
    assert list(written["encoder_in_parts"]["9"]) == ["all at once", "4 at once"]
    assert "150 frames, narrow width: blocks" in capsys.readouterr().out
