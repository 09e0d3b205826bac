"""How long a whole ``earlytom ask`` takes on the shipped model, process start included, beside another source tree.

    python benchmarks/startup.py
    python benchmarks/startup.py --against ../other/src --video clip.mp4 --rounds 7

Every run is a process of its own; trees take turns. Prints medians of the wait and of the processor's seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import earlytom

PROGRAM = "from earlytom.cli.app import main; main()"


def run(source: Path, video: str) -> tuple[float, float]:
    """Seconds on the clock and of the processor that one command takes with a source tree's package."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", PROGRAM, "ask", video, "What colour is the circle?", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(source)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    waited, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return waited, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="the src folder of another checkout")
    parser.add_argument("--video", default=str(earlytom.sample_videos()[0]))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    trees = [Path(earlytom.__file__).resolve().parents[1], *([arguments.against] if arguments.against else [])]
    times: dict[Path, list[tuple[float, float]]] = {tree: [] for tree in trees}
    for turn in range(arguments.rounds + 1):
        for tree in trees if turn % 2 else trees[::-1]:
            found = run(tree, arguments.video)
            if turn:  # the first run of each fills the file cache
                times[tree].append(found)
    for tree, runs in times.items():
        waited, worked = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"{tree}: {waited:.2f} s, {worked:.2f} s of the processor (medians of {arguments.rounds})")


if __name__ == "__main__":
    main()
