"""The benchmark of reading: what becomes of readers that fail, and the wait with the processor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import reading
from _recordings import Recording

TINY = Recording(name="tiny", width=64, height=48, seconds=2, keyframe_seconds=1, megabits=0.2, grain=1.0)
# An interpreter that has a decord which fails the third time, no torchcodec, and an OpenCV that is killed.
INTERPRETER = """#!{python}
import json, os, pathlib, sys
reader = sys.argv[2]
if reader == "torchcodec":
    print(json.dumps({{"exception": "ModuleNotFoundError", "package": "torchcodec"}}))
    sys.exit(1)
if reader == "opencv":
    print("/home/somebody/lib: no codec", file=sys.stderr)
    os.kill(os.getpid(), 9)
seen = pathlib.Path(__file__).with_name("seen")
seen.write_text(seen.read_text() + "x" if seen.exists() else "x")
print("a library says hello")
if len(seen.read_text()) == 3:
    print(json.dumps({{"exception": "DECORDError", "package": "decord"}}))
    sys.exit(1)
print(json.dumps({{"wall": 2.0, "cpu": 3.0, "indices": [0], "version": "9", "decoded": None, "deviations": []}}))
"""


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    path = tmp_path / "other" / "python"
    path.parent.mkdir()
    path.write_text(INTERPRETER.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small recording."""
    monkeypatch.setattr(reading, "RECORDINGS", (TINY,))


def told(wall: float, **others: Any) -> dict[str, Any]:
    return {
        "wall": wall,
        "cpu": wall,
        "indices": [0, 5],
        "version": "1",
        "decoded": 7,
        "deviations": [0.5, 0.0],
    } | others


def run(tmp_path: Path, interpreter: Path, *options: str) -> dict[str, Any]:
    output = tmp_path / "reading.json"
    reading.main(["--python", str(interpreter), "--folder", str(tmp_path), "--output", str(output), *options])
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def test_a_reader_that_fails_is_recorded_and_finished_rounds_are_written(
    tmp_path: Path, interpreter: Path, quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, turns = reading._run, iter(range(100))

    def answers(command: list[str], *rest: Any) -> dict[str, Any]:
        if command[0] == str(interpreter):
            return real(command, *rest)
        if "--near" in command:
            return told(1.0)
        return told(4.0, processor={"wall": 0.5 + next(turns), "cpu": 1.0})

    monkeypatch.setattr(reading, "_run", answers)
    found = run(tmp_path, interpreter, "--repeats", "3", "--near", "0.25")
    (recording,) = found["recordings"]
    assert recording["not_measured"] == {
        "torchcodec": "ModuleNotFoundError (torchcodec)", "opencv": "exit code -9, without a result",
    }  # fmt: skip
    assert recording["failed"] == {"decord": "DECORDError (decord)"}
    walls = {name: values["wall_seconds"]["values"] for name, values in recording["readers"].items()}
    assert walls == {"exact": [4.0] * 3, "near 0.25": [1.0] * 3, "decord": [2.0]}
    assert recording["processor"]["wall_seconds"]["values"] == [1.5, 2.5, 3.5]  # behind the try
    waits = {name: values["wait_seconds"]["values"] for name, values in recording["readers"].items()}
    assert waits == {"exact": [5.5, 6.5, 7.5], "near 0.25": [2.5, 3.5, 4.5], "decord": [3.5]}
    exact = recording["readers"]["exact"]
    assert (exact["decoded"], exact["frames"], exact["seconds_off"]) == (7, 2, {"mean": 0.25, "largest": 0.5})
    assert found["settings"]["processor"] == "llava-onevision-0.5b"
    assert "/home/somebody" not in json.dumps(found)
    said = capsys.readouterr().out
    assert "decord failed: DECORDError (decord)" in said
    assert "torchcodec failed: ModuleNotFoundError (torchcodec)" in said


def test_an_interpreter_that_is_not_there_is_named_without_its_place(tmp_path: Path) -> None:
    arguments = reading._arguments([])
    reason = reading._missing([str(tmp_path / "nowhere" / "python")], arguments)
    assert reason == "the interpreter cannot be started: FileNotFoundError"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "failure"),
    [
        ("earlytom", {"exception": "VideoError", "package": "earlytom"}),
        ("decord", {"exception": "ModuleNotFoundError", "package": "decord"}),
    ],
)
def test_readers_say_how_they_fail(reader: str, failure: dict[str, str]) -> None:
    without_decord = (
        "import sys, runpy; sys.modules['decord'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", without_decord, str(reading.READERS), reader, "--file", "nowhere.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout) == failure
    assert "Traceback" in done.stderr


@pytest.mark.slow
def test_the_package_s_own_readers_run_from_end_to_end(tmp_path: Path, interpreter: Path, quick: None) -> None:
    found = run(tmp_path, interpreter, "--repeats", "1", "--near", "0.5", "--frames", "4", "--threads", "1")
    (recording,) = found["recordings"]
    assert {"exact", "near 0.5"} <= set(recording["readers"])
    exact, near = (recording["readers"][name] for name in ("exact", "near 0.5"))
    assert exact["frames"] == near["frames"] == 4
    processor = recording["processor"]["wall_seconds"]["median"]
    assert processor > 0
    assert near["wait_seconds"]["median"] == pytest.approx(near["wall_seconds"]["median"] + processor, abs=0.002)
