"""The decoding benchmark runs from end to end, and static caches give the ids of the dynamic one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import decoding


def test_runs_and_writes_json(tmp_path, capsys) -> None:
    output = tmp_path / "decoding.json"
    command = ["--size", "tiny", "--frames", "4", "--new-tokens", "4", "--rounds", "1", "--output", str(output)]
    decoding.main([*command, "--device", "cpu", "--caches", "dynamic", "static"])
    written = json.loads(output.read_text())
    assert [(one["method"], one["cache"]) for one in written["results"]] == [
        (method, cache) for method in ("none", "earlytom:retention=0.1") for cache in ("dynamic", "static")
    ]
    for one in written["results"]:
        assert one["same_ids_as_first"]
        assert len(one["tokens_per_second"]["values"]) == 1
    assert written["environment"]["versions"]["torch"]
    assert "tokens/s after the first" in capsys.readouterr().out
