"""The benchmark of the command's start: turns, labels, and what is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import startup


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The source trees in the order in which they ran; each run takes longer than the one before."""
    seen: list[str] = []

    def run(source: Path, video: str) -> tuple[float, float]:
        seen.append("other" if source.name == "secret" else "ours")
        return float(len(seen)), 10.0 * len(seen)

    monkeypatch.setattr(startup, "run", run)
    return seen


def test_trees_take_turns_and_are_told_by_their_labels(
    sources: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "startup.json"
    video = tmp_path / "clip.mp4"
    startup.main([
        "--against", str(tmp_path / "secret"), "--label", "before", "--video", str(video), "--rounds", "2",
        "--output", str(output),
    ])  # fmt: skip
    assert sorted(sources[:2]) == sorted(sources[2:4]) == sorted(sources[4:]) == ["other", "ours"]
    assert sources[2] != sources[4]
    found: dict[str, Any] = json.loads(output.read_text())
    results = {result["name"]: result for result in found["results"]}
    expected = {
        name: [float(place) for place, source in enumerate(sources, 1) if source == kind and place > 2]
        for name, kind in {"this tree": "ours", "before": "other"}.items()
    }
    assert {name: result["wall_seconds"]["values"] for name, result in results.items()} == expected
    assert results["before"]["cpu_seconds"]["median"] == 10 * results["before"]["wall_seconds"]["median"]
    assert found["settings"] == {"rounds": 2, "video": "clip.mp4"}
    assert {"device", "versions", "load_at_start", "load_at_end", "commit"} <= set(found["environment"])
    said = capsys.readouterr().out
    assert "before: " in said
    assert str(tmp_path) not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--label", "this tree"), "--label must be another name"), (("--rounds", "0"), "--rounds must be at least 1")],
)
def test_wrong_options_are_told(
    options: tuple[str, ...], message: str, sources: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        startup.main(list(options))
    assert message in capsys.readouterr().err
    assert sources == []


@pytest.mark.slow
def test_a_whole_command_is_run(tmp_path: Path) -> None:
    startup.main(["--rounds", "1", "--output", str(tmp_path / "startup.json")])
    (result,) = json.loads((tmp_path / "startup.json").read_text())["results"]
    assert result["wall_seconds"]["median"] > 0
    assert result["cpu_seconds"]["median"] > 0
