"""What a compressed call would launch on a device, wait for and upload, counted without one.

``python benchmarks/launches.py --output benchmarks/results/launches.json``; see README.md for what is counted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import earlytom
from _harness import environment, write_json
from claimed_device import ClaimedDevice, claim, claim_model
from families import FAMILY_NAMES, family_case

METHODS = (
    "none", "earlytom:retention=1", "earlytom", "earlytom:retention=0.25,preset=paper", "visionzip", "holitom",
    "prunevid", "random:retention=0.25", "tome:retention=0.5", "earlytom+visionzip", "fastvid:scores=received",
    "dycoke", "uniform", "average-pooling", "evs", "vidcom2",
)  # fmt: skip
# Temporal grids of the clips of a call.
CALLS = {"one clip": (12,), "two clips": (6, 6)}


def main(arguments: list[str] | None = None) -> int:
    """Count, print a table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="*", choices=FAMILY_NAMES, default=FAMILY_NAMES)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    results: dict[str, dict[str, Any]] = {}
    for family in options.families:
        for method in options.methods:
            for name, grids in CALLS.items():
                found = counted(family, method, grids)
                results.setdefault(family, {}).setdefault(method, {})[name] = found
                print(f"{family:18}{method:40}{name:11}{found}")
    if options.output:
        content = {
            "benchmark": "launches",
            "environment": environment(torch.device("cpu")),
            "calls": {name: list(grids) for name, grids in CALLS.items()},
            "results": results,
        }
        write_json(options.output, content)
    return 0


def counted(family: str, method: str, grids: tuple[int, ...]) -> dict[str, int] | str:
    """Launches, waits and uploads of one forward of a tiny model; why not, where the method does not fit the family."""
    case = family_case(family)
    inputs = case.batch([[case.clip(count, seed) for seed, count in enumerate(grids)]])
    with torch.no_grad(), ClaimedDevice() as device:
        model = claim_model(case.build(attention="eager"))
        there = {name: claim(value) for name, value in inputs.items()}
        try:
            block = earlytom.compress(model, method)
        except earlytom.EarlyTomError as refusal:
            return f"{type(refusal).__name__}: {refusal}"[:100]
        with block:
            device.reset()
            model(**there, use_cache=False)
            return {
                "launches": sum(device.launches.values()),
                "waits": sum(device.waits.values()),
                "uploads": device.uploads,
            }


if __name__ == "__main__":
    sys.exit(main())
