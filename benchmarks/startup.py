"""How long a whole ``earlytom ask`` takes on the shipped model, process start included, beside another source tree.

    python benchmarks/startup.py --output startup.json
    python benchmarks/startup.py --against ../other/src --label "before late imports" --video clip.mp4 --rounds 7

Every run is a process of its own; trees take turns. Prints and writes the wait and the processor's seconds; a tree is
told by its label, not by where it lies.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import earlytom
from _harness import environment, write_json
from earlytom.bench.environment import machine_load
from earlytom.bench.quartiles import Quartiles
from earlytom.bench.rounds import in_rounds

PROGRAM = "from earlytom.cli.app import main; main()"
OURS = "this tree"


def run(source: Path, video: str) -> tuple[float, float]:
    """Seconds on the clock and of the processor that one command takes with a source tree's package."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", PROGRAM, "ask", video, "What colour is the circle?", "--device", "cpu"]
    variables = os.environ | {"PYTHONPATH": str(source)}
    subprocess.run(command, env=variables, check=True, capture_output=True)
    waited, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return waited, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(given: list[str] | None = None) -> None:
    """Measure, print, and write."""
    arguments = _arguments(given)
    start = environment(torch.device("cpu"))
    trees = {OURS: Path(earlytom.__file__).resolve().parents[1]}
    if arguments.against:
        trees[arguments.label] = arguments.against
    results = _measured(trees, arguments)
    for result in results:
        waited, worked = (result[f"{name}_seconds"]["median"] for name in ("wall", "cpu"))
        print(f"{result['name']}: {waited:.2f} s, {worked:.2f} s of the processor (medians of {arguments.rounds})")
    if arguments.output:
        settings = {"rounds": arguments.rounds, "video": Path(arguments.video).name}
        load = {"load_at_end": machine_load()}
        write_json(arguments.output, {"environment": start | load, "settings": settings, "results": results})


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="the src folder of another checkout")
    parser.add_argument("--label", default="another tree", help="what to call that one (another tree)")
    parser.add_argument("--video", default=str(earlytom.sample_videos()[0]), help="a file (a sample video)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (5)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args(given)
    if arguments.label == OURS:
        parser.error(f"--label must be another name than {OURS!r}, that of the tree that runs this")
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {arguments.rounds}")
    return arguments


def _measured(trees: dict[str, Path], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
    for turn, name in in_rounds(list(trees), repeats=arguments.rounds, warm_ups=1):
        found = run(trees[name], arguments.video)
        if turn >= 0:  # the first run of each fills the file cache
            times[name].append(found)
    return [{"name": name} | _seconds(runs) for name, runs in times.items()]


def _seconds(runs: list[tuple[float, float]]) -> dict[str, Any]:
    waited, worked = zip(*runs, strict=True)
    return {"wall_seconds": Quartiles(waited).to_dict(), "cpu_seconds": Quartiles(worked).to_dict()}


if __name__ == "__main__":
    main()
