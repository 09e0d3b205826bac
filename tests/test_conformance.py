"""The recorded reference cases, and that their runner notices when something is wrong."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import conformance
from conftest import shared


@pytest.mark.parametrize(("folder", "least"), [("earlytom", 30), ("peers", 24), ("end_to_end", 1)])
def test_the_reference_cases_pass(folder, least, capsys) -> None:
    code = conformance.main([str(shared(f"reference_cases/{folder}"))])
    output = capsys.readouterr().out
    passed = int(output.splitlines()[-1].split()[0])
    assert (code, output.splitlines()[-1]) == (0, f"{passed} passed, 0 failed"), output
    assert passed >= least


def copied(folder: str, number: int, target: Path, change: str) -> Path:
    """One case of a folder, with one array changed."""
    source = shared(f"reference_cases/{folder}")
    target = target / folder
    target.mkdir()
    case = json.loads((source / "cases.json").read_text())[number]
    (target / "cases.json").write_text(json.dumps([case]))
    arrays = dict(np.load(source / f"{case['case']}.npz"))
    if change:
        arrays[change] = arrays[change].copy()
        arrays[change].flat[-1] += 1 if arrays[change].dtype.kind == "i" else 1e-3
    np.savez(target / f"{case['case']}.npz", **arrays)
    return target


def test_a_copied_case_passes(tmp_path, capsys) -> None:
    assert conformance.main([str(copied("earlytom", 2, tmp_path, ""))]) == 0
    assert capsys.readouterr().out.endswith("1 passed, 0 failed\n")


@pytest.mark.parametrize(
    ("folder", "array", "name"),
    [
        ("earlytom", "y1", "y1"), ("earlytom", "a1", "a1"), ("earlytom", "y2", "y2"), ("earlytom", "a2", "a2"),
        ("earlytom", "kept", "kept tokens"), ("peers", "inner_out", "inner_out"),
        ("peers", "inner_keep", "kept positions"), ("peers", "visionzip_dominant", "visionzip_dominant"),
        ("peers", "visionzip_contextual", "visionzip_contextual"), ("peers", "holitom", "holitom"),
    ],
)  # fmt: skip
def test_a_corrupted_array_is_reported(folder, array, name, tmp_path, capsys) -> None:
    assert conformance.main([str(copied(folder, 2, tmp_path, array))]) == 1
    output = capsys.readouterr().out
    assert "FAILED" in output
    assert f": {name}: " in output
    assert output.endswith(", 1 failed\n")  # a case of peers holds several methods, the others pass


def test_wrong_segments_are_reported(tmp_path, capsys) -> None:
    folder = copied("earlytom", 2, tmp_path, "")
    cases = json.loads((folder / "cases.json").read_text())
    cases[0]["segments_pass2_refined"][-1][0] -= 1
    (folder / "cases.json").write_text(json.dumps(cases))
    assert conformance.main([str(folder)]) == 1
    assert "refined segments" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "name"), [("segments", [[0, 31]], "windows"), ("reduced_tokens", 1, "tokens merged along time")]
)
def test_wrong_windows_are_reported(key, value, name, tmp_path, capsys) -> None:
    folder = copied("peers", 2, tmp_path, "")
    cases = json.loads((folder / "cases.json").read_text())
    cases[0]["holitom"][key] = value
    (folder / "cases.json").write_text(json.dumps(cases))
    assert conformance.main([str(folder)]) == 1
    assert f"holitom 002: {name}" in capsys.readouterr().out


def test_a_corrupted_checkpoint_case_is_reported(tmp_path, capsys) -> None:
    folder = shutil.copytree(shared("reference_cases/end_to_end"), tmp_path / "end_to_end")
    settings = json.loads((folder / "1.json").read_text())
    settings["kept"] += 1
    (folder / "1.json").write_text(json.dumps(settings))
    assert conformance.main([str(folder)]) == 1
    assert "kept tokens" in capsys.readouterr().out


def test_the_command_ends_with_the_count_and_a_failing_exit_code(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["conformance.py", str(copied("earlytom", 2, tmp_path, "y2"))])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(conformance.__file__, run_name="__main__")
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed"


def test_nothing_to_run_is_not_a_success(tmp_path, capsys) -> None:
    assert conformance.main([str(tmp_path)]) == 1
    assert conformance.main([]) == 2
    assert conformance.main([str(tmp_path / "absent")]) == 2
    capsys.readouterr()
