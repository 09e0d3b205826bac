"""Interleaved measurement of named variants in one process: times by stage, peak memory, environment, JSON."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]


class StageClock:
    """Times of named stages in milliseconds; CUDA events on CUDA (nothing waits), the wall clock elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open: dict[str, Any] = {}
        self._spans: list[tuple[str, Any, Any]] = []

    def begin(self, name: str) -> None:
        self._open[name] = self._now()

    def end(self, name: str) -> None:
        """Close a stage; nothing happens when it is not open."""
        if name in self._open:
            self._spans.append((name, self._open.pop(name), self._now()))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.begin(name)
        try:
            yield
        finally:
            self.end(name)

    def milliseconds(self) -> dict[str, float]:
        """Sum of the spans of each stage."""
        synchronise(self._device)
        totals: dict[str, float] = {}
        for name, start, end in self._spans:
            spent = start.elapsed_time(end) if self._device.type == "cuda" else (end - start) * 1000
            totals[name] = totals.get(name, 0.0) + spent
        return totals

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@dataclass
class Run:
    """One run of a variant.

    Attributes:
        total: milliseconds on the wall clock, the device's work included.
        stages: milliseconds of each stage; ``rest`` is what they leave of the total.
        peak: bytes above what was allocated before the run.
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
    """Round robin: every variant once a round, each round starting with another one; warm-up rounds are not kept."""
    progress = Progress((warm_ups + repeats) * len(variants))
    for _ in range(warm_ups):
        for name, variant in warm_up.items():
            progress.show(f"warm-up {name}")
            measure(variant, device)
    runs: dict[str, list[Run]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(repeats):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            progress.show(f"{number + 1}/{repeats} {name}")
            runs[name].append(measure(variants[name], device))
    progress.close()
    return runs


class PeakMemory:
    """Peak of the memory in use above its level at construction, in bytes.

    CUDA: the allocator's peak. Linux: the peak resident set, whose high-water mark a process can reset; freed
    memory that the C library holds is given back first, so that every run starts from the same level. Else unknown.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
            return
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self._before = self._status("VmRSS")
        except (OSError, AttributeError):
            self._before = -1

    def bytes(self) -> int | None:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return None if self._before < 0 else self._status("VmHWM") - self._before

    @staticmethod
    def _status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


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


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles (linear between the values), and the values themselves."""
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "median": round(middle, 3),
        "lower_quartile": round(lower, 3),
        "upper_quartile": round(upper, 3),
        "values": [round(value, 3) for value in values],  # type: ignore[dict-item]
    }


def summarise(runs: list[Run]) -> dict[str, Any]:
    """Medians and quartiles in milliseconds, the largest peak in bytes, and the details of the last run."""
    names = list(dict.fromkeys(name for run in runs for name in run.stages))
    peaks = [run.peak for run in runs if run.peak is not None]
    return {
        "total_ms": quartiles([run.total for run in runs]),
        "stages_ms": {name: quartiles([run.stages.get(name, 0.0) for run in runs]) for name in names},
        "peak_bytes": max(peaks) if peaks else None,
        **runs[-1].details,
    }


def environment(device: torch.device) -> dict[str, object]:
    """Device, versions, commit and command."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": _git("rev-parse", "HEAD") or os.environ.get("BENCHMARK_COMMIT"),
        "uncommitted_changes": None if _git("rev-parse", "HEAD") is None else bool(_git("status", "--porcelain")),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in ("torch", "transformers", "earlytom")},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Plain text; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def _version(package: str) -> str | None:
    module = sys.modules.get(package)
    try:
        return getattr(module, "__version__", None) or importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
