"""Time to first token by stage: the stock model, EarlyTom, and the method as published, side by side in one process.

``python benchmarks/encoder.py --output benchmarks/results/encoder_cpu.json``; see README.md for what is measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from _encoder_report import report
from _harness import Variant, environment, interleave, summarise, synchronise, write_json
from _models import SIZES, build_inputs, build_model
from _variants import check_finite, ours, published, vanilla
from earlytom import parse_method
from earlytom.methods.earlytom import EarlyTom
from earlytom.methods.presets import find_preset
from reference.published_agreement import disagreements, official
from reference.published_earlytom import PublishedSettings

PUBLISHED_RETENTION = 0.10
FAMILIES = ("vanilla", "earlytom", "official", "published")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 0 when it could report, 1 when the reference test is red."""
    options = _parse(arguments)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    started = environment(device)
    failures = reference_failures(device)
    if failures:
        print("the reference test is red, so there is nothing to report:", *failures, sep="\n  ", file=sys.stderr)
        return 1
    dtype = getattr(torch, options.dtype)
    model = build_model(options.size, device, dtype)
    settings = published_settings(options.size)
    measured, warm_up = (
        _variants(model, build_inputs(model, frames, options.scenes), settings, options)
        for frames in (options.frames, options.warmup_frames)
    )
    if not check_finite(model, build_inputs(model, options.warmup_frames, options.scenes)):
        print(f"the random weights overflow in {options.dtype}", file=sys.stderr)
        return 1
    synchronise(device)
    with torch.no_grad():
        runs = interleave(measured, warm_up, options.warmup, options.repeats, device)
    results = {name: summarise(found) for name, found in runs.items()}
    text, goals = report(results, official_name(), published_name(), options.retentions)
    print(text)
    if options.output:
        content = {
            "benchmark": "encoder",
            "environment": started,
            "options": {key: value for key, value in vars(options).items() if key != "output"},
            "model": f"LLaVA-OneVision, sizes of {options.size}, random weights",
            "reference_test": "passed",
            "published_settings": vars(settings),
            "results": results,
            "goals": goals,
        }
        write_json(options.output, content)
    return 0


def reference_failures(device: torch.device) -> list[str]:
    """The published reference against our official variant, on a tiny model on the device of the benchmark."""
    model = build_model("tiny", device, torch.float32)
    found = []
    for frames, scenes, retention in ((16, "mixed", 0.10), (16, "mixed", 0.25), (9, "cuts", 0.25), (1, "static", 0.5)):
        settings = PublishedSettings(retention=retention, tau_seg=0.65, merge_layers=(6, 14, 20))
        pixels = build_inputs(model, frames, scenes)["pixel_values_videos"][0]
        found += [f"{frames} frames, {scenes}, {retention}: {line}" for line in disagreements(model, pixels, settings)]
    return found


def published_settings(size: str) -> PublishedSettings:
    """The row of Table 8 for MVBench at 10%, which the published way and our official variant both run with."""
    preset = find_preset("mvbench-0.5b" if size == "0.5b" else "mvbench", PUBLISHED_RETENTION)
    return PublishedSettings(
        retention=PUBLISHED_RETENTION, tau_seg=preset.tau_seg, merge_layers=tuple(preset.merge_layers)
    )


def earlytom_name(retention: float) -> str:
    return f"earlytom {retention:.0%}"


def official_name() -> str:
    return f"earlytom official {PUBLISHED_RETENTION:.0%}"


def published_name() -> str:
    return f"published {PUBLISHED_RETENTION:.0%}"


def _variants(
    model: Any, inputs: dict[str, torch.Tensor], settings: PublishedSettings, options: argparse.Namespace
) -> dict[str, Variant]:
    variants: dict[str, Variant] = {}
    if "vanilla" in options.variants:
        variants["vanilla"] = vanilla(model, inputs)
    if "earlytom" in options.variants:
        for retention in options.retentions:
            variants[earlytom_name(retention)] = ours(model, inputs, EarlyTom(retention=retention))
    if "official" in options.variants:
        variants[official_name()] = ours(model, inputs, official(settings))
    if "published" in options.variants:
        variants[published_name()] = published(model, inputs, settings)
    for text in options.methods:
        variants[text] = ours(model, inputs, parse_method(text))
    return variants


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="0.5b", help="model sizes (default: 0.5b)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="float32 on cpu, else bfloat16")
    parser.add_argument("--frames", type=int, default=16, help="sampled frames (default: 16)")
    parser.add_argument("--scenes", choices=("mixed", "static", "cuts"), default="mixed", help="what the clip shows")
    parser.add_argument("--retentions", type=float, nargs="+", default=[0.10, 0.25], help="of EarlyTom as it is")
    parser.add_argument("--variants", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="all by default")
    parser.add_argument("--methods", nargs="+", default=[], help="further methods, such as holitom:retention=0.1")
    parser.add_argument("--repeats", type=int, default=3, help="kept rounds (default: 3)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before them (default: 1)")
    parser.add_argument("--warmup-frames", type=int, help="frames while warming up (2 on cpu, else --frames)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--output", type=Path, help="write the results to this JSON file")
    options = parser.parse_args(arguments)
    on_cpu = torch.device(options.device).type == "cpu"
    options.dtype = options.dtype or ("float32" if on_cpu else "bfloat16")
    options.warmup_frames = options.warmup_frames or (min(2, options.frames) if on_cpu else options.frames)
    if options.repeats < 1 or options.frames < 1:
        parser.error("--repeats and --frames must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
