"""What methods add to a call on a device is not above what it was before clips had sessions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import launches
from families import FAMILY_NAMES

ROOT = Path(launches.__file__).parent
BEFORE = json.loads((ROOT / "results" / "launches_before_sessions.json").read_text())["results"]


def added(found: dict[str, int], plain: dict[str, int]) -> dict[str, int]:
    return {name: found[name] - plain[name] for name in plain}


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("method", ["earlytom", "earlytom:retention=1", "visionzip", "random:retention=0.25"])
def test_no_method_adds_more_than_before(family, method) -> None:
    for name, grids in launches.CALLS.items():
        now = added(launches.counted(family, method, grids), launches.counted(family, "none", grids))
        before = added(BEFORE[family][method][name], BEFORE[family]["none"][name])
        assert all(now[kind] <= before[kind] for kind in before), (name, now, before)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_second_clip_costs_no_wait_at_the_merge_layers(family) -> None:
    one, two = (launches.counted(family, "earlytom", grids)["waits"] for grids in ((6,), (6, 6)))
    # Families with text between frames bring the places of each clip's tokens to the host; LLaVA-Video its rows.
    assembly = {"qwen3_vl": 1, "internvl": 1, "llava_video": 1}.get(family, 0)
    assert two - one == assembly


def test_counts_are_written(tmp_path) -> None:
    output = tmp_path / "launches.json"
    assert launches.main(["--families", "qwen2_5_vl", "--methods", "none", "tome", "--output", str(output)]) == 0
    found = json.loads(output.read_text())["results"]["qwen2_5_vl"]
    assert found["none"]["one clip"]["launches"] > 0
    assert found["tome"]["one clip"].startswith("MethodError: tokens cannot merge inside")
