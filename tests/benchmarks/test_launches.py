"""What methods add to a call on a device is not above what it was before clips had sessions."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import launches
from families import FAMILY_NAMES

ROOT = Path(launches.__file__).parent
WRITTEN = json.loads((ROOT / "results" / "launches.json").read_text())["results"]
BEFORE = json.loads((ROOT / "results" / "launches_before_sessions.json").read_text())["results"]


counted = functools.cache(launches.counted)


def added(found: dict[str, int], plain: dict[str, int]) -> dict[str, int]:
    return {name: found[name] - plain[name] for name in plain}


@pytest.mark.parametrize("family", FAMILY_NAMES)
# EarlyTom by the paper's preset: its default ranked tokens otherwise then.
@pytest.mark.parametrize("method", ["earlytom:retention=0.25,preset=paper", "visionzip", "random:retention=0.25"])
def test_no_method_adds_more_than_before(family, method) -> None:
    for name, grids in launches.CALLS.items():
        now = added(counted(family, method, grids), counted(family, "none", grids))
        before = added(BEFORE[family][method][name], BEFORE[family]["none"][name])
        assert all(now[kind] <= before[kind] for kind in before), (name, now, before)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("method", launches.METHODS)
def test_no_method_adds_more_than_is_written(family, method) -> None:
    for name, grids in launches.CALLS.items():
        found = counted(family, method, grids)
        if isinstance(found, str):
            assert WRITTEN[family][method][name].startswith("MethodError")
            continue
        now = added(found, counted(family, "none", grids))
        written = added(WRITTEN[family][method][name], WRITTEN[family]["none"][name])
        assert all(now[kind] <= written[kind] for kind in written), (name, now, written)


# What a method waits for by itself, for each clip: decisions of the host that need numbers of the device.
WAITS_IN_SELECTION = {"holitom": 1, "prunevid": 2, "fastvid:scores=received": 1, "random:retention=0.25": 1}
# One for each merge layer, and one for the table that selection goes by.
WAITS_IN_ENCODER = {
    "earlytom": 4, "earlytom:retention=1": 4, "earlytom:retention=0.25,preset=paper": 4, "earlytom+visionzip": 3,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("method", launches.METHODS)
def test_what_every_method_waits_for(family, method) -> None:
    """Of all clips together: the prompt, the merge layers, and where text stands between frames the kept places."""
    for grids in ((12,), (6, 6)):
        found = counted(family, method, grids)
        if isinstance(found, str):
            assert found.startswith("MethodError: tokens cannot merge inside")
            continue
        # InternVL looks whether there is a video before it reads the rest of the prompt.
        prompt = 2 if family == "internvl" else 1
        on_device = method not in ("none", "uniform", "average-pooling", "random:retention=0.25")
        places = 1 if family in ("qwen3_vl", "internvl", "llava_video") and on_device else 0
        selection = WAITS_IN_SELECTION.get(method, 0) * len(grids)
        assert found["waits"] == prompt + places + WAITS_IN_ENCODER.get(method, 0) + selection, (grids, found)


def test_a_merge_layer_uploads_once_and_selection_few_things() -> None:
    plain, one, two = (
        launches.counted("llava_onevision", method, grids)["uploads"]
        for method, grids in (("none", (12,)), ("earlytom", (12,)), ("earlytom", (6, 6)))
    )
    assert one - plain <= 3 + 3
    assert two - one <= 3


def test_counts_are_written(tmp_path) -> None:
    output = tmp_path / "launches.json"
    assert launches.main(["--families", "qwen2_5_vl", "--methods", "none", "tome", "--output", str(output)]) == 0
    found = json.loads(output.read_text())["results"]["qwen2_5_vl"]
    assert found["none"]["one clip"]["launches"] > 0
    assert found["tome"]["one clip"].startswith("MethodError: tokens cannot merge inside")
