"""The bound of what overlapping saves is measured from end to end on a tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import overlap
from earlytom.shipped import sample_videos


@pytest.mark.slow
def test_runs_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "overlap.json"
    video = str(sample_videos()[0])
    command = ["--config", "tiny", "--frames", "4", "--dtype", "float32", "--repeats", "2", "--near", "0", "0.5"]
    assert overlap.main([video, *command, "--output", str(output)]) == 0
    written = json.loads(output.read_text())
    assert list(written["results"]) == ["near=0", "near=0.5"]
    for found in written["results"].values():
        assert list(found) == [
            "decoding, processor",
            "decoding beside processor",
            "decoding, encoder up to layer 3",
            "decoding beside encoder up to layer 3",
        ]
        assert all(len(result["total_ms"]["values"]) == 2 for result in found.values())
    assert "/" not in written["options"]["video"]
    assert "saved" in capsys.readouterr().out
