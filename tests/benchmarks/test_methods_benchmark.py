"""The benchmark of the methods runs from end to end on a small clip, and refuses to report what is wrong."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = ["--clips", "8x4x4", "6x2x4", "--width", "16", "--encoder", "6x24", "--repeats", "2", "--warmup", "0"]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """Loaded under a name of its own: ``methods`` is a folder of tests."""
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("methods_benchmark", BENCHMARKS / "methods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_is_measured_and_written(benchmark, tmp_path, capsys) -> None:
    output = tmp_path / "methods.json"
    assert benchmark.main([*SMALL, "--output", str(output)]) == 0
    written = json.loads(output.read_text())
    assert list(written["results"]) == ["8 x 16", "6 x 8"]
    for results in written["results"].values():
        assert list(results) == list(benchmark.METHODS)
        for result in results.values():
            assert len(result["total_ms"]["values"]) == 2
            assert set(result["stages_ms"]) == {"merging", "selection", "language", "rest"}
    first = written["results"]["8 x 16"]
    assert {first[name]["visual_tokens"] for name in ("earlytom", "fastvid", "dycoke", "random")} == {32}
    assert first["none"]["visual_tokens"] == 128
    assert first["earlytom"]["stages_ms"]["merging"]["median"] > 0
    assert first["inner-merging"]["inside_the_language_model"] == [64]
    assert written["environment"]["versions"]["torch"]
    printed = capsys.readouterr().out
    assert "8 x 16 tokens of width 16, 128 in all" in printed
    assert "over earlytom" in printed


def test_methods_may_be_chosen_with_options(benchmark, capsys) -> None:
    assert benchmark.main([*SMALL, "--methods", "holitom:retention=0.1", "earlytom+visionzip"]) == 0
    assert "holitom:retention=0.1" in capsys.readouterr().out


def test_refuses_on_a_red_reference(benchmark, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(benchmark, "disagreements", lambda device: ["holitom: other tokens are kept"])
    output = tmp_path / "methods.json"
    assert benchmark.main([*SMALL, "--output", str(output)]) == 1
    assert not output.exists()
    assert "holitom: other tokens are kept" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--clips", "8x4"], ["--repeats", "0"], ["--encoder", "0x5"]])
def test_unreadable_options_are_refused(benchmark, arguments) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(arguments)
