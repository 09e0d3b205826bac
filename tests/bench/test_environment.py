"""What was measured on."""

from __future__ import annotations

import json
import sys

import torch

import earlytom
from earlytom.bench.environment import describe_environment, machine_load


def test_it_is_plain_data_that_tells_versions_and_the_checkout(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/earlytom", "bench", "--video", "a b.mp4"])
    found = describe_environment(torch.device("cpu"))
    json.dumps(found)
    assert found["command"] == "earlytom bench --video 'a b.mp4'"
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["earlytom"] == earlytom.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["device"]
    assert found["cuda"] is None
    assert found["commit"] is None or len(found["commit"]) == 40
    assert (found["commit"] is None) == (found["uncommitted_changes"] is None)


def test_scripts_are_told_as_python_runs_them(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/encoder.py", "--frames", "4"])
    assert describe_environment(torch.device("cpu"))["command"] == "python benchmarks/encoder.py --frames 4"


def test_load_is_a_number_where_the_system_tells() -> None:
    load = machine_load()
    assert load is None or load >= 0
