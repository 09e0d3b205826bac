"""Reading 32 frames of a file: this package exactly and near, beside torchcodec, decord and OpenCV where installed.

    python benchmarks/reading.py --output benchmarks/results/reading_cpu.json

Makes two recordings from a seed (a minute of 1080p, ten minutes of 720p; some minutes of encoding), unless the folder
has them. The other readers come from this environment, or from another one that ``--python`` names, so that they need
not be installed beside the package. Every measurement is a process of its own; they take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import earlytom
from _harness import Progress, environment, write_json
from _recordings import RECORDINGS, Recording, make
from earlytom.bench.quartiles import Quartiles
from earlytom.bench.tables import plain_table

READERS = Path(__file__).with_name("_readers.py")
OTHERS = ("torchcodec", "decord", "opencv")
Runs = dict[str, list[dict[str, Any]]]


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="earlytom-reading-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        start = environment(torch.device("cpu"))
        chosen = [recording for recording in RECORDINGS if recording.name in arguments.recordings]
        recordings = [_measured(recording, folder, arguments) for recording in chosen]
    load = {"load_at_end": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None}
    settings = {name: getattr(arguments, name) for name in ("frames", "repeats", "seed", "near", "threads")}
    content = {"environment": start | load, "settings": settings, "recordings": recordings}
    if arguments.output:
        write_json(arguments.output, content)
    for recording in recordings:
        print(f"\n{recording['name']}: {recording['description']}\n{_report(recording['readers'])}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [recording.name for recording in RECORDINGS]
    parser.add_argument("--recordings", nargs="+", choices=names, default=names, help="which to read (both)")
    parser.add_argument("--frames", type=int, default=32, help="frames to read (32)")
    parser.add_argument("--near", type=float, nargs="*", default=[0.05, 0.1, 0.25, 0.5], help="shares to try")
    parser.add_argument("--threads", type=int, default=0, help="threads of every reader, 0: its own choice (0)")
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds (5)")
    parser.add_argument("--seed", type=int, default=0, help="of the recordings (0)")
    parser.add_argument("--folder", type=Path, help="where recordings are kept; without it: made anew")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the other readers")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser.parse_args()


def _measured(recording: Recording, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    path = folder / f"seed-{arguments.seed}" / recording.file_name
    if not path.exists():
        print(f"making {path.name}", file=sys.stderr, flush=True)
        path.parent.mkdir(exist_ok=True)
        make(recording, path.parent, arguments.seed)
    readers = _readers(arguments)
    missing = {name: reason for name, command in readers.items() if (reason := _missing(command, arguments))}
    readers = {name: command for name, command in readers.items() if name not in missing}
    runs: Runs = {name: [] for name in readers}
    progress = Progress(arguments.repeats * len(readers))
    for number in range(arguments.repeats):
        names = list(readers)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            progress.show(f"{recording.name} {number + 1}/{arguments.repeats} {name}")
            runs[name].append(_run(readers[name], path, arguments))
    progress.close()
    megabits = path.stat().st_size * 8e-6 / recording.seconds
    return {
        "name": recording.name,
        "description": (
            f"{recording.seconds} s of {recording.width}x{recording.height} at {recording.rate} frames a second, "
            f"a keyframe every {recording.keyframe_seconds:g} s, {megabits:.1f} Mbit/s"
        ),
        "readers": {name: _summary(values) for name, values in runs.items()},
        "not_measured": missing,
    }


def _readers(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Interpreter and reader by name."""
    ours = {"exact": ["earlytom"]}
    ours |= {f"near {share:g}": ["earlytom", "--near", str(share)] for share in arguments.near}
    theirs = {name: [arguments.python, str(READERS), name] for name in OTHERS}
    return {name: [sys.executable, str(READERS), *reader] for name, reader in ours.items()} | theirs


def _run(command: Sequence[str], path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    options = ["--file", str(path), "--frames", str(arguments.frames), "--threads", str(arguments.threads)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _missing(command: Sequence[str], arguments: argparse.Namespace) -> str | None:
    """Why a reader cannot be measured, tried with a clip that comes with the package."""
    try:
        _run(command, Path(earlytom.sample_videos()[0]), arguments)
    except subprocess.CalledProcessError as error:
        return str(error.stderr.strip().splitlines()[-1:])
    return None


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    last = runs[-1]
    off = [abs(value) for value in last["deviations"]] or [0.0]
    return {
        "wall_seconds": Quartiles(tuple(run["wall"] for run in runs)).to_dict(),
        "cpu_seconds": Quartiles(tuple(run["cpu"] for run in runs)).to_dict(),
        "decoded": last["decoded"],
        "frames": len(last["indices"]),
        "seconds_off": {"mean": round(sum(off) / len(off), 3), "largest": round(max(off), 3)},
        "version": last["version"],
    }


def _report(readers: dict[str, dict[str, Any]]) -> str:
    header = ["reader", "wall s", "CPU s", "frames decoded", "s off, mean", "largest"]
    rows = [
        [
            name,
            f"{values['wall_seconds']['median']:.2f}",
            f"{values['cpu_seconds']['median']:.2f}",
            str(values["decoded"] or "-"),
            f"{values['seconds_off']['mean']:.2f}",
            f"{values['seconds_off']['largest']:.2f}",
        ]
        for name, values in readers.items()
    ]
    return plain_table(header, rows)


if __name__ == "__main__":
    main()
