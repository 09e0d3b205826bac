"""Interleaved measurement of named variants in one process: times by stage, peak memory, JSON."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from earlytom.bench.environment import describe_environment
from earlytom.bench.memory import PeakMemory
from earlytom.bench.quartiles import Quartiles
from earlytom.bench.rounds import in_rounds


@dataclass
class Run:
    """One run of a variant.

    Attributes:
        total: milliseconds on the wall clock, the device's work included.
        stages: milliseconds of each stage; ``rest`` is what they leave of the total.
        peak: bytes above what was in use before the run: the allocator's on CUDA; else the process's resident set,
            which holds what a library takes up once and keeps, so that it is told of whoever runs first.
        details: what the variant says about itself.
    """

    total: float
    stages: dict[str, float]
    peak: int | None
    details: Mapping[str, object] = field(default_factory=dict)


Outcome = tuple[dict[str, float], Mapping[str, object]]
"""Milliseconds of the stages, and details."""


@dataclass(frozen=True)
class Variant:
    """Something to measure: ``call`` runs it, ``read`` then (untimed) says what its stages took."""

    call: Callable[[], Any]
    read: Callable[[Any], Outcome]


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(variant: Variant, device: torch.device) -> Run:
    """Run a variant once."""
    gc.collect()
    memory = PeakMemory(device)
    synchronise(device)
    start = time.perf_counter()
    result = variant.call()
    synchronise(device)
    total = (time.perf_counter() - start) * 1000
    peak = memory.bytes()
    stages, details = variant.read(result)
    stages = stages | {"rest": total - sum(stages.values())}
    return Run(total=total, stages=stages, peak=peak, details=details)


def interleave(
    variants: Mapping[str, Variant], warm_up: Mapping[str, Variant], warm_ups: int, repeats: int, device: torch.device
) -> dict[str, list[Run]]:
    """Every variant once a round, each round starting with another one; warm-up rounds are not kept."""
    progress = Progress((warm_ups + repeats) * len(variants))
    runs: dict[str, list[Run]] = {name: [] for name in variants}
    for turn, name in in_rounds(list(variants), repeats=repeats, warm_ups=warm_ups):
        progress.show(f"{turn + 1}/{repeats} {name}" if turn >= 0 else f"warm-up {name}")
        run = measure((variants if turn >= 0 else warm_up)[name], device)
        if turn >= 0:
            runs[name].append(run)
    progress.close()
    return runs


class Progress:
    """One line on stderr: a bar, what runs now, seconds so far."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done, self._start = max(1, steps), 0, time.perf_counter()
        self._end = "\r" if sys.stderr.isatty() else "\n"

    def show(self, text: str) -> None:
        """Say what starts now; everything before counts as done."""
        bar = ("#" * (20 * self._done // self._steps)).ljust(20, ".")
        seconds = time.perf_counter() - self._start
        line = f"[{bar}] {self._done}/{self._steps} {seconds:6.0f} s  {text}".ljust(79)
        print(line, end=self._end, file=sys.stderr, flush=True)
        self._done += 1

    def close(self) -> None:
        self.show("done")
        if self._end == "\r":
            print(file=sys.stderr)


def summarise(runs: list[Run]) -> dict[str, Any]:
    """Medians and quartiles in milliseconds, the largest peak in bytes, and the details of the last run."""
    names = list(dict.fromkeys(name for run in runs for name in run.stages))
    peaks = [run.peak for run in runs if run.peak is not None]
    return {
        "total_ms": _quartiles(run.total for run in runs),
        "stages_ms": {name: _quartiles(run.stages.get(name, 0.0) for run in runs) for name in names},
        "peak_bytes": max(peaks) if peaks else None,
        **runs[-1].details,
    }


def environment(device: torch.device) -> dict[str, object]:
    """Device, versions, commit and command; a copy without git is told its commit by ``BENCHMARK_COMMIT``."""
    found = describe_environment(device)
    return found | {"commit": found["commit"] or os.environ.get("BENCHMARK_COMMIT")}


def write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _quartiles(values: Iterator[float]) -> dict[str, object]:
    return Quartiles(tuple(values)).to_dict()
