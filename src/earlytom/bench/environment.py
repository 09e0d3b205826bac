"""What was measured on: device, versions, commit, load and command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
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
        "platform": f"{platform.system()} {platform.machine()}",
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
    """The command line; of paths only the last part, since where things lie is nobody's business."""
    program = Path(sys.argv[0])
    inside = not program.is_absolute() and ".." not in program.parts
    started = [program.name] if program.suffix == "" else ["python", sys.argv[0] if inside else program.name]
    return shlex.join([*started, *_without_folders(sys.argv[1:])])


def _without_folders(arguments: Sequence[str]) -> list[str]:
    told, before = [], ""
    for argument in arguments:
        option, equals, value = argument.partition("=") if argument.startswith("--") else (before, "", argument)
        if equals:
            told.append(f"{option}={_without_folder(option, value)}")
        else:
            told.append(argument if argument.startswith("--") else _without_folder(option, value))
        before = argument
    return told


def _without_folder(option: str, value: str) -> str:
    return value if option == "--model" and _is_hub_id(value) else _last_part(value)


def _is_hub_id(text: str) -> bool:
    """Whether a model is named as owner/name, not as a folder."""
    return not Path(text).exists() and not Path(text).is_absolute() and text.count("/") == 1 and text[0] not in ".~"


def _last_part(text: str) -> str:
    separators = [separator for separator in (os.sep, os.altsep) if separator is not None]
    return (Path(text).name or text) if any(separator in text for separator in separators) else text


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
