"""The vision encoder's loop with nothing to merge against the stock loop, and frames in parts: time and memory.

``python benchmarks/loop.py --output benchmarks/results/loop_cpu.json``; see README.md for what is measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _harness import Outcome, Variant, environment, interleave, summarise, synchronise, write_json
from _models import SIZES, build_inputs, build_model
from earlytom.methods.none import Uncompressed
from earlytom.models import open_model
from earlytom.runtime.encode import encode_videos
from earlytom.runtime.plans import Plans
from earlytom.trace import Stopwatch


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 1 when the loop's features are not the stock loop's, bit for bit."""
    options = _parse(arguments)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    started = environment(device)
    model = build_model(options.size, device, getattr(torch, options.dtype))
    inputs = build_inputs(model, options.frames, "mixed")
    measured = _variants(model, inputs, options.grids_at_once)
    synchronise(device)
    with torch.no_grad():
        difference = float((measured["stock"].call() - measured["own loop"].call()).abs().max())
        runs = interleave(measured, measured, options.warmup, options.repeats, device)
    results = {name: summarise(found) for name, found in runs.items()}
    ratios = over_stock(results)
    for name, ratio in ratios.items():
        peak = results[name]["peak_bytes"]
        memory = "" if peak is None else f"  {peak / 2**20:8.0f} MiB"
        print(f"{name:24}{results[name]['total_ms']['median']:10.1f} ms  {ratio:.3f} of stock{memory}")
    print(f"largest difference of the own loop's features from the stock loop's: {difference:g}")
    if options.output:
        content = {
            "benchmark": "loop",
            "environment": started,
            "options": {key: value for key, value in vars(options).items() if key != "output"},
            "model": f"LLaVA-OneVision, sizes of {options.size}, random weights",
            "largest_difference": difference,
            "over_stock": ratios,
            "results": results,
        }
        write_json(options.output, content)
    return 0 if difference == 0 else 1


def over_stock(results: dict[str, Any]) -> dict[str, float]:
    """For each variant the median over the rounds of its time over the mean of that round's two runs of stock."""
    times = {name: result["total_ms"]["values"] for name, result in results.items()}
    stock = [(one + again) / 2 for one, again in zip(times["stock"], times["stock again"], strict=True)]
    return {
        name: round(statistics.median(time / whole for time, whole in zip(rounds, stock, strict=True)), 3)
        for name, rounds in times.items()
    }


def _variants(model: Any, inputs: dict[str, Tensor], grids_at_once: list[int]) -> dict[str, Variant]:
    """The stock loop twice, which shows the noise, and ours: all frames at once, and some at a time."""
    host = open_model(model)
    call, method = host.open(inputs), Uncompressed()
    if call is None:
        raise ValueError("the inputs hold no video")
    plan = Plans.of(method, host).encoder

    def stock() -> Tensor:
        features = model.model.get_video_features(inputs["pixel_values_videos"]).pooler_output
        # Behind the clip's tokens stands its newline (from transformers 5.18 on).
        return features.flatten(0, -2)[: call.grids[0].tokens]

    def ours(grids: int | None) -> Tensor:
        kept, _ = encode_videos(call, method, plan, Stopwatch(model.device), grids)
        return kept[0].features

    def read(result: Tensor) -> Outcome:
        return {}, {"visual_tokens": len(result)}

    def variant(grids: int | None) -> Variant:
        return Variant(lambda: ours(grids), read)

    parts = {f"own loop, {grids} at once": variant(grids) for grids in grids_at_once}
    return {"stock": Variant(stock, read), "stock again": Variant(stock, read), "own loop": variant(None)} | parts


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="0.5b")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--grids-at-once", type=int, nargs="*", default=[2])
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
