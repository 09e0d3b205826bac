"""The steps of `gpu.py`: what each one runs, at which sizes, and within which time."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from _gpu_inputs import make_inputs
from _gpu_measuring import Subject, measure, method_subject, plain_subject, published_subject, results
from earlytom.bench import load
from earlytom.bench.ceilings import measure_ceilings
from earlytom.bench.configurations import build_model
from earlytom.bench.roofline import measure_rooflines, plain_results
from earlytom.methods.presets import find_preset
from reference.published_agreement import disagreements
from reference.published_earlytom import PublishedSettings

SCHEMA = "earlytom.bench-gpu/1"
"""Of the steps that time methods; told in docs/benchmark_device.md."""
ROOT = Path(__file__).resolve().parents[1]
OTHERS = ("visionzip", "holitom", "tome")
# Of a step's time, what its rounds may take; the rest is for starting, building the model, and the last round.
_SHARE_OF_ROUNDS = 0.6


class Skipped(Exception):
    """A step cannot run here, saying why."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large everything is.

    Attributes:
        build: a model for each of ``onevision``, ``video`` and ``qwen``, on a device.
        frames: of their clips.
        qwen_frame: height and width of Qwen's frames, in pixels.
        repeats: rounds, at most.
        warm_ups: rounds before them.
        new_tokens: of an answer.
        callers: levels of load.
        requests: of each caller in a round.
        short_answer: tokens of an answer under load, where the first one is what matters.
        ceiling: rows and columns, and bytes, that ceilings are measured with; ``None``: the package's own choice.
        threads: of a CPU; ``None``: torch's choice. Where tensors are tiny, a second one only waits.
    """

    build: Callable[[str, torch.device], Any]
    frames: Mapping[str, int]
    qwen_frame: tuple[int, int]
    repeats: int
    warm_ups: int
    new_tokens: int
    callers: Sequence[int]
    requests: int
    short_answer: int
    ceiling: tuple[int, int] | None = None
    threads: int | None = None


def _full_model(name: str, device: torch.device) -> Any:
    configurations = {"onevision": "llava-onevision-7b", "video": "llava-video-7b", "qwen": "qwen2.5-vl-7b"}
    return build_model(configurations[name], device=device, dtype=torch.bfloat16)


def _tiny_model(name: str, device: torch.device) -> Any:
    if name == "onevision":
        return build_model("tiny", device=device, dtype=torch.float32)
    from families import family_case

    return family_case({"video": "llava_video", "qwen": "qwen2_5_vl"}[name]).build().to(device)


SIZES: Mapping[str, Sizes] = {
    "full": Sizes(
        build=_full_model,
        frames={"onevision": 32, "video": 64, "qwen": 768},
        # 384 temporal grids of 6 x 10 tokens: 23,040.
        qwen_frame=(168, 280),
        repeats=10,
        warm_ups=2,
        new_tokens=32,
        callers=(1, 2, 4, 8),
        requests=2,
        short_answer=8,
    ),
    "tiny": Sizes(
        build=_tiny_model,
        frames={"onevision": 8, "video": 6, "qwen": 8},
        qwen_frame=(24, 40),
        repeats=1,
        warm_ups=0,
        new_tokens=3,
        callers=(1, 2),
        requests=1,
        short_answer=2,
        ceiling=(64, 1 << 16),
        threads=1,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a step gets.

    Attributes:
        device: to measure on.
        sizes: how large everything is.
        seconds: that the step may take.
        output: folder for what is no part of its result.
    """

    device: torch.device
    sizes: Sizes
    seconds: float
    output: Path

    @property
    def deadline(self) -> float:
        """When no further round is to begin, on the clock of ``time.monotonic``."""
        return time.monotonic() + _SHARE_OF_ROUNDS * self.seconds


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the plan.

    Attributes:
        title: what it does.
        seconds: after which it is ended.
        run: gives the content of its JSON file; raises `Skipped`.
    """

    title: str
    seconds: int
    run: Callable[[Run], dict[str, Any]]


def run_tests(run: Run) -> dict[str, Any]:
    """The tests that are marked ``gpu``, in a process of their own; files whose imports are missing are left out."""
    if run.device.type != "cuda":
        raise Skipped(f"tests that need a GPU need a CUDA device, got {run.device}")
    if importlib.util.find_spec("pytest") is None:
        raise Skipped("pytest is not installed")
    missing = {path: missing_modules(path) for path in gpu_test_files()}
    complete = [path for path, modules in missing.items() if not modules]
    left_out = {
        str(path.relative_to(ROOT)): f"not installed: {', '.join(modules)}"
        for path, modules in missing.items()
        if modules
    }
    if not complete:
        raise Skipped(f"every test needs what is missing: {left_out}")
    return {"counts": run_marked_tests(complete, run.output / "tests.log"), "left_out": left_out}


def gpu_test_files() -> list[Path]:
    """The files that hold tests for a GPU."""
    return [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]


def run_marked_tests(files: Sequence[Path], log: Path) -> dict[str, int]:
    """Run the tests of some files that are marked ``gpu``; how many passed, and what became of the others.

    Raises:
        RuntimeError: one failed.
        Skipped: none could run.
    """
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider", *map(str, files)]
    # This checkout's package, whichever is installed.
    places = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": places}
    )
    log.write_text(done.stdout + done.stderr)
    summary = done.stdout.strip().splitlines()[-1:]
    counts = {
        name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|errors?|skipped)", "".join(summary))
    }
    if done.returncode != 0:
        raise RuntimeError(f"pytest ended with {done.returncode}, see {log.name}: {counts}")
    if not counts.get("passed"):
        raise Skipped(f"no test could run here: {counts}")
    return counts


def missing_modules(path: Path) -> list[str]:
    """What a test file imports at its top and is not installed; the folder of tests is on the path."""
    names: dict[str, None] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names.update(dict.fromkeys(alias.name.split(".")[0] for alias in node.names))
        elif isinstance(node, ast.ImportFrom) and node.module:
            names[node.module.split(".")[0]] = None
    return [name for name in names if importlib.util.find_spec(name) is None]


def run_onevision(run: Run) -> dict[str, Any]:
    """LLaVA-OneVision: EarlyTom at four retentions, other methods, the plain model, and the published way."""
    differences = _published_differences(run)
    model, inputs = _model_and_inputs(run, "onevision")
    methods = [*(("earlytom", retention) for retention in (0.1, 0.15, 0.2, 0.25)), *((name, 0.1) for name in OTHERS)]
    subjects = [
        *(plain_subject(model, inputs, attention) for attention in ("sdpa", "eager")),
        *(method_subject(model, inputs, label, retention) for label, retention in methods),
        published_subject(model, inputs, _published_settings()),
    ]
    return _measured(run, "onevision", model, subjects) | {"published_differs": differences}


def run_video(run: Run) -> dict[str, Any]:
    """LLaVA-Video at 15%."""
    return _fifteen(run, "video")


def run_qwen(run: Run) -> dict[str, Any]:
    """Qwen2.5-VL with a long context at 15%."""
    return _fifteen(run, "qwen")


def run_roofline(run: Run) -> dict[str, Any]:
    """Measured ceilings, and how far each stage is from them."""
    model, inputs = _model_and_inputs(run, "onevision")
    side, copied = run.sizes.ceiling or (None, None)
    ceilings = measure_ceilings(run.device, model.dtype, side=side, copied=copied)
    methods = {"none sdpa": "none", "earlytom 10%": "earlytom:retention=0.1"}
    found = measure_rooflines(
        model, inputs, methods, ceilings, repeats=min(5, run.sizes.repeats), warm_ups=run.sizes.warm_ups,
        decoding_steps=run.sizes.new_tokens - 1,
    )  # fmt: skip
    return plain_results(found, ceilings)


def run_load(run: Run) -> dict[str, Any]:
    """Rising concurrency, with and without compression."""
    model, inputs = _model_and_inputs(run, "onevision")
    methods = {"none": "none", "earlytom 10%": "earlytom:retention=0.1"}
    variants = {
        name: load.model_callers(model, inputs, text, new_tokens=run.sizes.short_answer)
        for name, text in methods.items()
    }
    levels = load.measure_load(variants, levels=run.sizes.callers, requests=run.sizes.requests, rounds=1)
    return {"schema": load.SCHEMA, "results": [level.to_dict() for level in levels]}


PLAN: Mapping[str, Step] = {
    "tests": Step(title="tests that need a GPU", seconds=60, run=run_tests),
    "onevision": Step(title="LLaVA-OneVision-7B, 32 frames, all methods", seconds=130, run=run_onevision),
    "video": Step(title="LLaVA-Video-7B, 64 frames, 15%", seconds=60, run=run_video),
    "qwen": Step(title="Qwen2.5-VL-7B, 768 frames, 23,040 visual tokens, 15%", seconds=80, run=run_qwen),
    "roofline": Step(title="measured ceilings and bounds of the stages", seconds=60, run=run_roofline),
    "load": Step(title="rising concurrency", seconds=75, run=run_load),
}
"""In the order in which they run; together under 8 minutes, whatever fails."""


def _fifteen(run: Run, name: str) -> dict[str, Any]:
    model, inputs = _model_and_inputs(run, name)
    subjects = [plain_subject(model, inputs, "sdpa"), method_subject(model, inputs, "earlytom", 0.15)]
    return _measured(run, name, model, subjects)


def _measured(run: Run, name: str, model: nn.Module, subjects: Sequence[Subject]) -> dict[str, Any]:
    sizes = run.sizes
    measured = measure(
        model, subjects, repeats=sizes.repeats, warm_ups=sizes.warm_ups, new_tokens=sizes.new_tokens,
        deadline=run.deadline,
    )  # fmt: skip
    return {
        "schema": SCHEMA,
        "model": {"name": name, "family": model.config.model_type, "weights": "random, seed 0"},
        "clip": {"kind": "generated", "frames": sizes.frames[name]},
        "settings": {"dtype": str(model.dtype), "warm_ups": sizes.warm_ups, "new_tokens": sizes.new_tokens},
        "results": results(measured, subjects, sizes.frames[name], sizes.new_tokens),
    }


def _model_and_inputs(run: Run, name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    model = run.sizes.build(name, run.device)
    height, width = run.sizes.qwen_frame
    return model, make_inputs(model, run.sizes.frames[name], height=height, width=width)


def _published_settings() -> PublishedSettings:
    """The row of Table 8 for MVBench at 10%."""
    preset = find_preset("mvbench", 0.10)
    return PublishedSettings(retention=0.10, tau_seg=preset.tau_seg, merge_layers=tuple(preset.merge_layers))


def _published_differences(run: Run) -> list[str]:
    """The published way against our official variant, on a small model on this device."""
    model = build_model("tiny", device=run.device, dtype=torch.float32)
    settings = PublishedSettings(retention=0.25, tau_seg=0.65, merge_layers=(6, 14, 20))
    pixels = make_inputs(model, 12, height=0, width=0)["pixel_values_videos"][0]
    return disagreements(model, pixels, settings)
