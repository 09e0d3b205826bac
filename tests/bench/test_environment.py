"""What was measured on."""

from __future__ import annotations

import json
import platform
import sys

import pytest
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


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--video", "/home/somebody/a b.mp4"], "--video 'a b.mp4'"),
        (["--video=../private/a.mp4", "-o", "runs/secret/"], "--video=a.mp4 -o secret"),
        (["--model", "/models/customer/checkpoint"], "--model checkpoint"),
        (["--model", "~/checkpoint"], "--model checkpoint"),
        (["--model", "../checkpoint"], "--model checkpoint"),
        (["--model", "owner/name", "--frames", "4,8"], "--model owner/name --frames 4,8"),
        (["--model=owner/name"], "--model=owner/name"),
        (["one/a.mp4", "two/b.mp4"], "a.mp4 b.mp4"),
        (
            ["--methods", "earlytom:retention=0.25", "--device", "cuda:0"],
            "--methods earlytom:retention=0.25 --device cuda:0",
        ),
    ],
)
def test_of_paths_only_the_last_part_is_told(given, told, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["earlytom", "bench", *given])
    assert describe_environment(torch.device("cpu"))["command"] == f"earlytom bench {told}"


def test_a_model_that_is_a_folder_is_told_by_its_last_part(monkeypatch, tmp_path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["earlytom", "bench", "--model", "owner/name"])
    assert describe_environment(torch.device("cpu"))["command"] == "earlytom bench --model name"


@pytest.mark.parametrize("script", ["/home/somebody/benchmarks/encoder.py", "../checkout/benchmarks/encoder.py"])
def test_where_a_script_lies_is_not_told(script, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [script])
    assert describe_environment(torch.device("cpu"))["command"] == "python encoder.py"


def test_the_platform_is_the_system_and_the_machine() -> None:
    found = describe_environment(torch.device("cpu"))["platform"]
    assert found == f"{platform.system()} {platform.machine()}"
    assert platform.release() not in found


def test_load_is_a_number_where_the_system_tells() -> None:
    load = machine_load()
    assert load is None or load >= 0
