"""Reading 32 frames of a file: this package exactly and near, beside torchcodec, decord and OpenCV where installed.

Behind each exact reading the processor of LLaVA-OneVision-0.5B gets the frames, so that the wait before the model is
told for every reader: its own time and the processor's of the same round.

    python benchmarks/reading.py --output benchmarks/results/reading_cpu.json

Makes two recordings from a seed (a minute of 1080p, ten minutes of 720p; some minutes of encoding), unless the folder
has them. The other readers come from this environment, or from another one that ``--python`` names, so that they need
not be installed beside the package. Every measurement is a process of its own; they take turns. A reader that fails is
left out from there on and named in the JSON, its finished rounds stay.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import earlytom
from _harness import Progress, environment, write_json
from _readers import PROCESSOR
from _recordings import RECORDINGS, Recording, make
from earlytom.bench.environment import machine_load
from earlytom.bench.quartiles import Quartiles
from earlytom.bench.rounds import in_rounds
from earlytom.bench.tables import plain_table

READERS = Path(__file__).with_name("_readers.py")
OTHERS = ("torchcodec", "decord", "opencv")
EXACT = "exact"
Runs = dict[str, dict[int, dict[str, Any]]]
"""What a reader printed, by its name and the round."""


class ReaderError(Exception):
    """A reader failed, saying how."""


def main(given: list[str] | None = None) -> None:
    arguments = _arguments(given)
    with tempfile.TemporaryDirectory(prefix="earlytom-reading-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        start = environment(torch.device("cpu"))
        chosen = [recording for recording in RECORDINGS if recording.name in arguments.recordings]
        recordings: list[dict[str, Any]] = []
        for recording in chosen:
            recordings.append(_measured(recording, folder, arguments))
            if arguments.output:  # what is finished stays, whatever becomes of the next one
                write_json(arguments.output, _content(start, recordings, arguments))
    for found in recordings:
        print(f"\n{found['name']}: {found['description']}\n{_report(found['readers'])}")
        for name, reason in (found["not_measured"] | found["failed"]).items():
            print(f"{name} failed: {reason}")


def _content(start: dict[str, Any], recordings: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("frames", "repeats", "seed", "near", "threads")
    settings = {name: getattr(arguments, name) for name in names} | {"processor": PROCESSOR}
    return {"environment": start | {"load_at_end": machine_load()}, "settings": settings, "recordings": recordings}


def _arguments(given: list[str] | None) -> argparse.Namespace:
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
    return parser.parse_args(given)


def _measured(recording: Recording, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    path = folder / f"seed-{arguments.seed}" / recording.file_name
    if not path.exists():
        print(f"making {path.name}", file=sys.stderr, flush=True)
        path.parent.mkdir(exist_ok=True)
        make(recording, path.parent, arguments.seed)
    readers = _readers(arguments)
    missing = {name: reason for name, command in readers.items() if (reason := _missing(command, arguments))}
    runs, failed = _rounds({name: readers[name] for name in readers if name not in missing}, path, arguments)
    processor = {turn: run["processor"] for turn, run in runs.get(EXACT, {}).items() if "processor" in run}
    megabits = path.stat().st_size * 8e-6 / recording.seconds
    return {
        "name": recording.name,
        "description": (
            f"{recording.seconds} s of {recording.width}x{recording.height} at {recording.rate} frames a second, "
            f"a keyframe every {recording.keyframe_seconds:g} s, {megabits:.1f} Mbit/s"
        ),
        "readers": {name: _summary(values, processor) for name, values in runs.items() if values},
        "processor": _times([*processor.values()]) if processor else None,
        "not_measured": missing | {name: reason for name, reason in failed.items() if not runs[name]},
        "failed": {name: reason for name, reason in failed.items() if runs[name]},
    }


def _rounds(readers: dict[str, list[str]], path: Path, arguments: argparse.Namespace) -> tuple[Runs, dict[str, str]]:
    """What the readers say, in turns, and why those ended early that did."""
    runs: Runs = {name: {} for name in readers}
    failed: dict[str, str] = {}
    progress = Progress(arguments.repeats * len(readers))
    for turn, name in in_rounds(list(readers), repeats=arguments.repeats):
        progress.show(f"{path.stem} {turn + 1}/{arguments.repeats} {name}")
        if name in failed:
            continue
        try:
            runs[name][turn] = _run(readers[name], path, arguments)
        except ReaderError as error:
            failed[name] = str(error)
    progress.close()
    return runs, failed


def _readers(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Interpreter and reader by name."""
    ours = {EXACT: ["earlytom", "--processor"]}
    ours |= {f"near {share:g}": ["earlytom", "--near", str(share)] for share in arguments.near}
    theirs = {name: [arguments.python, str(READERS), name] for name in OTHERS}
    return {name: [sys.executable, str(READERS), *reader] for name, reader in ours.items()} | theirs


def _run(command: Sequence[str], path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a reader says. Raises `ReaderError`, which names no place of another interpreter, where it fails."""
    options = ["--file", str(path), "--frames", str(arguments.frames), "--threads", str(arguments.threads)]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ReaderError(f"the interpreter cannot be started: {type(error).__name__}") from error
    told = _told(done.stdout)
    if "exception" in told:
        raise ReaderError(f"{told['exception']} ({told['package']})")
    if done.returncode or not told:
        raise ReaderError(f"exit code {done.returncode}, without a result")
    return told


def _told(said: str) -> dict[str, Any]:
    """The last line of what a reader printed, behind whatever its libraries print; nothing of one that said nothing."""
    try:
        told: dict[str, Any] = json.loads(said.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return told


def _missing(command: Sequence[str], arguments: argparse.Namespace) -> str | None:
    """Why a reader cannot be measured, tried with a clip that comes with the package."""
    try:
        _run(command, Path(earlytom.sample_videos()[0]), arguments)
    except ReaderError as error:
        return str(error)
    return None


def _summary(runs: dict[int, dict[str, Any]], processor: dict[int, dict[str, float]]) -> dict[str, Any]:
    last = runs[max(runs)]
    off = [abs(value) for value in last["deviations"]] or [0.0]
    waits = Quartiles.of(run["wall"] + processor[turn]["wall"] for turn, run in runs.items() if turn in processor)
    return {
        **_times([*runs.values()]),
        "wait_seconds": None if waits is None else waits.to_dict(),
        "decoded": last["decoded"],
        "frames": len(last["indices"]),
        "seconds_off": {"mean": round(sum(off) / len(off), 3), "largest": round(max(off), 3)},
        "version": last["version"],
    }


def _times(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {f"{name}_seconds": Quartiles(tuple(run[name] for run in runs)).to_dict() for name in ("wall", "cpu")}


def _report(readers: dict[str, dict[str, Any]]) -> str:
    header = ["reader", "wall s", "CPU s", "wall with processor s", "frames decoded", "s off, mean", "largest"]
    rows = [
        [
            name,
            f"{values['wall_seconds']['median']:.2f}",
            f"{values['cpu_seconds']['median']:.2f}",
            f"{values['wait_seconds']['median']:.2f}" if values["wait_seconds"] else "-",
            str(values["decoded"] or "-"),
            f"{values['seconds_off']['mean']:.2f}",
            f"{values['seconds_off']['largest']:.2f}",
        ]
        for name, values in readers.items()
    ]
    return plain_table(header, rows)


if __name__ == "__main__":
    main()
