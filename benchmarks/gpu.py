"""Everything that a GPU is needed for, in one run of under 8 minutes: tests, times, bounds, load, and goals.

``python benchmarks/gpu.py --output benchmarks/results/gpu`` from a checkout, installed or not, without a network; see
README.md. Each step runs in a process of its own with a limit of time. One that fails is recorded and the others go on;
the exit code is 1 then. What is not installed is skipped, with its name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _gpu_goals import goals_markdown, judge
from _gpu_report import page
from _gpu_steps import PLAN, SIZES, Run, Skipped
from earlytom.bench.environment import describe_environment

DONE, FAILED, SKIPPED, LATE = "done", "failed", "skipped", "out of time"
# What a process says by its exit code, so that it is known even where it could write nothing.
_SKIPPED_CODE = 3


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of a step; ``reason`` says why it is not done, and ``log`` holds what it printed then."""

    name: str
    title: str
    status: str
    seconds: float
    reason: str = ""
    log: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Run the plan, or one step of it; 0 when no step failed."""
    options = _parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.only:
        return run_step(options.only, options)
    environment = describe_environment(torch.device(options.device))
    records = []
    for name in options.steps:
        print(f"{name}: {PLAN[name].title}", flush=True)
        records.append(start_step(name, options))
        print(f"  {records[-1].status} after {records[-1].seconds:.0f} s {records[-1].reason}", flush=True)
    write_summary(options.output, environment, records, options.size)
    print(f"written: {options.output / 'README.md'}")
    return 1 if any(record.status in (FAILED, LATE) for record in records) else 0


def start_step(name: str, options: argparse.Namespace) -> Record:
    """Run a step in a process of its own, and end it where its time is up."""
    result, log = options.output / f"{name}.json", options.output / f"{name}.log"
    result.unlink(missing_ok=True)  # nothing of a former run may pass for one of this
    # As somebody would write it: results tell the command, not where the checkout lies.
    command = [sys.executable, os.path.relpath(__file__), "--only", name, "--output", str(options.output)]
    command += ["--device", options.device, "--size", options.size]
    started = time.monotonic()
    with log.open("w") as file:
        try:
            code = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, check=False, timeout=PLAN[name].seconds
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    seconds, said = time.monotonic() - started, log.read_text(errors="replace").strip()
    status, reason = _verdict(code, said, PLAN[name].seconds)
    if status == DONE and not result.is_file():
        status, reason = FAILED, "it wrote no results"
    told = "" if status == DONE else said[-4000:]
    return Record(name=name, title=PLAN[name].title, status=status, seconds=round(seconds, 1), reason=reason, log=told)


def run_step(name: str, options: argparse.Namespace) -> int:
    """Run a step here, and write its JSON file."""
    step, device = PLAN[name], torch.device(options.device)
    run = Run(device=device, sizes=SIZES[options.size], seconds=step.seconds, output=options.output)
    if run.sizes.threads:
        torch.set_num_threads(run.sizes.threads)
    environment = describe_environment(device)
    try:
        content = step.run(run)
    except Skipped as reason:
        print(reason)
        return _SKIPPED_CODE
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed")
        return _SKIPPED_CODE
    except Exception:
        traceback.print_exc()
        return 1
    written = {"step": name, "size": options.size, "environment": environment, **content}
    (options.output / f"{name}.json").write_text(json.dumps(written, indent=2) + "\n")
    return 0


def write_summary(output: Path, environment: Mapping[str, Any], records: Sequence[Record], size: str) -> None:
    """The page for people, and the same as JSON; from the results of this run alone."""
    results = {
        record.name: json.loads((output / f"{record.name}.json").read_text())
        for record in records
        if record.status == DONE
    }
    goals = judge(results)
    summary = {
        "environment": environment,
        "size": size,
        "steps": [asdict(record) for record in records],
        "goals": [goal.to_dict() for goal in goals],
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    (output / "README.md").write_text(page(environment, records, goals_markdown(goals), results, size))


def _verdict(code: int | None, said: str, limit: int) -> tuple[str, str]:
    last = said.splitlines()[-1] if said else ""
    if code is None:
        return LATE, f"ended after its {limit} s"
    if code == _SKIPPED_CODE:
        return SKIPPED, last
    return (DONE, "") if code == 0 else (FAILED, last or f"exit code {code}")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for all results")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu (default: cuda)")
    parser.add_argument("--size", choices=sorted(SIZES), default="full", help="tiny: for trying it out on a CPU")
    parser.add_argument("--steps", nargs="+", choices=list(PLAN), default=list(PLAN), help="all by default")
    parser.add_argument("--only", choices=list(PLAN), help="run this step in this process; what the others call")
    options = parser.parse_args(arguments)
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device} needs a CUDA device, and torch {torch.__version__} finds none here")
    return options


if __name__ == "__main__":
    sys.exit(main())
