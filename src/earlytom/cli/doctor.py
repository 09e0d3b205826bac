"""``earlytom doctor``: what is installed, what will be used, what is missing."""

from __future__ import annotations

import importlib
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Any

import typer

from earlytom.cli.display import cell, output, print_json, status, table
from earlytom.cli.options import JsonOption
from earlytom.shipped import sample_videos, shipped_model

__all__ = ["Check", "check_packages", "doctor"]

_OPTIONAL = {
    "torchcodec": "--decoder torchcodec",
    "flash_attn": "--attention flash_attention_2",
    "matplotlib": "pictures of 'earlytom inspect': pip install earlytom[eval]",
    "lmms_eval": "benchmarks through lmms-eval",
    "vllm": "serving through vLLM",
}
_STYLES = {"ok": "green", "missing": "bold red", "too old": "bold red", "broken": "bold red", "not installed": "yellow"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at. ``state`` is ok, missing, too old, broken or (optional things) not installed."""

    name: str
    found: str
    needed: str
    state: str
    required: bool

    @property
    def failed(self) -> bool:
        """Whether the package cannot work because of this."""
        return self.required and self.state != "ok"


def doctor(as_json: JsonOption = False) -> None:
    """Show what is installed, which device and attention will be used, and what is missing.

    Exit code 1 when something that is required is missing or too old.
    """
    with status("looking around"):
        checks = [*check_packages(), *_check_files()]
        machine = _machine()
    failed = any(check.failed for check in checks) or "problem" in machine
    if as_json:
        listed = [{"name": c.name, "found": c.found, "needed": c.needed, "state": c.state} for c in checks]
        print_json({"healthy": not failed, "checks": listed, "machine": machine})
    else:
        _show(checks, machine, failed=failed)
    if failed:
        raise typer.Exit(1)


def _show(checks: list[Check], machine: dict[str, Any], *, failed: bool) -> None:
    made = table(["", "found", "needed", "state"], title="Packages and files")
    for check in checks:
        style = _STYLES.get(check.state, "") if check.required or check.state != "ok" else "green"
        made.add_row(cell(check.name, "bold"), cell(check.found), cell(check.needed), cell(check.state, style))
    console = output()
    console.print(made)
    for name, value in machine.items():
        console.print(f"{name.replace('_', ' ')}: {value}", soft_wrap=True)
    console.print("Something required is missing: see above." if failed else "Everything required is there.")


def check_packages() -> list[Check]:
    """Python, the package's own requirements (from its metadata), and what is optional."""
    try:
        wanted, python = requires("earlytom") or [], metadata("earlytom")["Requires-Python"] or ""
    except PackageNotFoundError:
        lacking = Check(
            name="earlytom",
            found="-",
            needed="pip install -e . (or pip install earlytom)",
            state="missing",
            required=True,
        )
        return [lacking]
    checks = [_check("python", platform.python_version(), python, required=True)]
    for requirement in wanted:
        if "extra ==" in requirement:
            continue
        match = re.match(r"([\w.-]+)\s*(.*)", requirement)
        if match is not None:
            checks.append(_check(match[1], installed(match[1]), match[2], required=True))
    return checks + [_check_optional(name, purpose) for name, purpose in _OPTIONAL.items()]


def installed(name: str) -> str | None:
    """The version of an installed package, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _check(name: str, found: str | None, needed: str, *, required: bool) -> Check:
    state = "ok"
    least = re.search(r">=\s*([\d.]+)", needed)
    if found is None:
        state = "missing"
    elif least and _release(found) < _release(least[1]):
        state = "too old"
    return Check(name=name, found=found or "-", needed=needed or "any version", state=state, required=required)


def _release(text: str) -> tuple[int, ...]:
    """``2.11.0+cu128`` -> (2, 11). Trailing zeros do not count."""
    numbers = [int(part) for part in re.match(r"[\d.]*", text)[0].split(".") if part]  # type: ignore[index]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _check_optional(name: str, purpose: str) -> Check:
    found = installed(name)
    state = "ok" if found else "not installed"
    if found and name == "torchcodec" and not _imports("torchcodec.decoders"):
        state = "broken"  # it is there, but without the FFmpeg libraries it needs
    return Check(name=name, found=found or "-", needed=f"optional, for {purpose}", state=state, required=False)


def _imports(module: str) -> bool:
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def _check_files() -> list[Check]:
    model, samples = shipped_model(), len(sample_videos())
    whole = (model / "config.json").is_file() and (model / "model.safetensors").is_file()
    return [
        Check(
            name="shipped model",
            found=str(model) if whole else "-",
            needed="the default --model",
            state="ok" if whole else "missing",
            required=True,
        ),
        Check(
            name="sample videos",
            found=str(samples),
            needed="optional, for 'earlytom demo'",
            state="ok" if samples else "not installed",
            required=False,
        ),
    ]


def _machine() -> dict[str, Any]:
    """Device and attention, as a model loaded now would get them."""
    if not (installed("torch") and installed("transformers")):
        return {"device": "unknown without torch and transformers"}
    try:
        import torch

        found: dict[str, Any] = {"device": "cuda" if torch.cuda.is_available() else "cpu"}
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            found[f"cuda:{index}"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
        found["cpu_threads"] = torch.get_num_threads()
        found["attention"] = _attention()
    except (ImportError, OSError, RuntimeError) as error:
        return {"problem": f"torch or transformers cannot be used: {error}"}
    return found


def _attention() -> str:
    """The implementation that transformers chooses for the shipped model, which is never loaded for that."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    if not (shipped_model() / "config.json").is_file():
        return "unknown without the shipped model"
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(
            AutoConfig.from_pretrained(shipped_model(), trust_remote_code=False)
        )
    return str(model.config._attn_implementation)
