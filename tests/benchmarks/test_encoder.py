"""The encoder benchmark runs from end to end on a tiny model, and its verdicts follow from the numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import _encoder_report
import encoder


@pytest.mark.slow
def test_runs_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "encoder.json"
    command = ["--size", "tiny", "--frames", "6", "--repeats", "2", "--scenes", "static", "--output", str(output)]
    others = ["holitom:retention=0.25", "tome:retention=0.25"]
    assert encoder.main([*command, "--methods", *others]) == 0
    written = json.loads(output.read_text())
    names = ["vanilla", "earlytom 10%", "earlytom 25%", "earlytom official 10%", "published 10%", *others]
    assert list(written["results"]) == names
    for result in written["results"].values():
        assert len(result["total_ms"]["values"]) == 2
        stages = sum(sum(times["values"]) for times in result["stages_ms"].values())
        assert stages == pytest.approx(sum(result["total_ms"]["values"]), rel=1e-3)
    assert (
        written["results"]["earlytom official 10%"]["visual_tokens"]
        == (written["results"]["published 10%"]["visual_tokens"])
    )
    assert written["reference_test"] == "passed"
    assert written["environment"]["versions"]["torch"]
    assert "vanilla/it" in capsys.readouterr().out


def test_refuses_on_a_red_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "disagreements", lambda *_: ["visual tokens differ"])
    output = tmp_path / "encoder.json"
    assert encoder.main(["--size", "tiny", "--output", str(output)]) == 1
    assert not output.exists()


def _result(total: float, **stages: float) -> dict[str, Any]:
    def times(value: float) -> dict[str, float]:
        return {"median": value, "lower_quartile": 0.99 * value, "upper_quartile": 1.01 * value}

    return {
        "total_ms": times(total),
        "stages_ms": {name: times(value) for name, value in stages.items()},
        "peak_bytes": None,
        "frames_after_merge_layers": {"6": 5},
        "encoder_share": 0.7,
        "visual_tokens": 10,
        "visual_tokens_uncompressed": 100,
    }


def test_goals_follow_the_numbers() -> None:
    results = {
        "vanilla": _result(1500, encoder=1000, prefill=500),
        "earlytom 10%": _result(1000, encoder=900, merging=5, selection=4, prefill=91),
        "official": _result(1000, encoder=900, merging=50, prefill=50),
        "published": _result(1200, encoder=1100, merging=40, prefill=50.1),
    }
    text, goals = _encoder_report.report(results, "official", "published", [0.1])
    speed, stages, overhead = goals.values()
    assert speed["met"]
    assert speed["value"] == 1.5
    assert not stages["met"]
    assert stages["slower"] == ["merging"]
    assert overhead["met"]
    assert overhead["value"] == 0.009
    assert "NOT MET" in text


def test_other_work_is_not_like_for_like() -> None:
    official, published = _result(1000, encoder=900), _result(1200, encoder=1100)
    published["visual_tokens"] = 11
    _, goals = _encoder_report.report({"official": official, "published": published}, "official", "published", [0.1])
    assert not goals["no stage slower than the published way"]["met"]
