"""What was measured on: device, versions, commit, load and command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch

__all__ = ["describe_environment", "machine_load", "processor_name"]

_PACKAGES = ("torch", "transformers", "earlytom", "av", "numpy")


def describe_environment(device: torch.device) -> dict[str, object]:
    """Plain data for JSON, taken before the measuring; `machine_load` taken behind it goes beside it.

    ``commit`` and ``uncommitted_changes`` are those of the checkout that the package runs from, ``None`` where it is
    installed.
    """
    status = _git("status", "--porcelain")
    return {
        "command": _command(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if status is None else bool(status),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "threads": torch.get_num_threads(),
        "load_at_start": machine_load(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def machine_load() -> float | None:
    """Processes that ran or waited for a core, mean over the last minute; ``None`` where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def processor_name() -> str:
    """The CPU's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _command() -> str:
    """The command line, without the folder that the console script lies in."""
    program = Path(sys.argv[0])
    started = [program.name] if program.suffix == "" else ["python", sys.argv[0]]
    return shlex.join([*started, *sys.argv[1:]])


def _version(package: str) -> str | None:
    module = sys.modules.get(package)
    try:
        return getattr(module, "__version__", None) or importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git says of the package's own checkout; an installed package may lie in somebody else's."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
