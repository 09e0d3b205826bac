"""The benchmark of conversations runs from end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import sessions


def test_runs_and_writes_json(tmp_path, capsys) -> None:
    output = tmp_path / "sessions.json"
    command = ["--model", "tiny", "--frames", "4", "8", "--rounds", "2", "--device", "cpu", "--dtype", "float32"]
    sessions.main([*command, "--output", str(output)])
    short, long = json.loads(output.read_text())["results"]
    assert (short["frames"], long["frames"]) == (4, 8)
    assert 0 < short["visual_tokens"] < long["visual_tokens"]
    assert long["cache_bytes"] - short["cache_bytes"] == 2 * 4 * 4 * 2 * 16 * (
        long["visual_tokens"] - short["visual_tokens"]
    )
    # The second question prefills its own words, and those between the two, whatever the number of frames.
    assert short["prefilled_for_the_second"] == long["prefilled_for_the_second"] < 3 * sessions.WORDS
    assert len(long["second_question_ms"]["values"]) == len(long["text_ms"]["values"]) == 2
    assert "second/first" in capsys.readouterr().out
