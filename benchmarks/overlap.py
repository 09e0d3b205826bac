"""What doing things at the same time could save at most of the wait before the model.

    python benchmarks/overlap.py VIDEO --output benchmarks/results/overlap_cpu.json

Decoding runs beside the processor, and beside the encoder's layers up to EarlyTom's first merge layer, on clips that
lie ready: nothing waits for anything, so no implementation, whose parts wait for one another, can save more. Every pair
runs one after the other and side by side in turns, in one process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from _harness import Outcome, Variant, environment, interleave, summarise, write_json
from earlytom import EarlyTom, Sampling, VideoQA
from earlytom.bench.configurations import build_video_qa, configuration_names
from earlytom.bench.processors import made_up_question
from earlytom.bench.tables import plain_table
from earlytom.models import open_model
from earlytom.runtime.plans import Plans
from earlytom.stages import PassiveVisitor

Work = Callable[[], object]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, and write it where asked."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    started = environment(device)
    qa = build_video_qa(options.config, device=device, dtype=getattr(torch, options.dtype))
    results: dict[str, Any] = {}
    with torch.no_grad(), ThreadPoolExecutor(max_workers=1) as pool:
        for near in options.near:
            variants = _variants(qa, options.video, Sampling(frames=options.frames, near=near), pool)
            runs = interleave(variants, variants, 1, options.repeats, device)
            results[f"near={near:g}"] = {name: summarise(found) for name, found in runs.items()}
    rows = [row for near, found in results.items() for row in _rows(near, found)]
    print(plain_table(["", "one after the other, ms", "side by side, ms", "saved"], rows))
    if options.output:
        told = {key: value for key, value in vars(options).items() if key not in ("output", "video")}
        content = {
            "benchmark": "overlap",
            "environment": started,
            "options": told | {"video": options.video.name},
            "results": results,
        }
        write_json(options.output, content)
    return 0


def _variants(qa: VideoQA, path: Path, sampling: Sampling, pool: ThreadPoolExecutor) -> dict[str, Variant]:
    question = made_up_question()
    video = qa.read(path, sampling)
    host = open_model(qa.model)
    call = host.open(qa.prepare_inputs(video, question))
    if call is None:
        raise ValueError("the prompt holds no video")
    (grid,) = call.grids
    first = min(Plans.of(EarlyTom(), host).encoder.merge_layers)
    tower, pixels = host.tower(grid), call.pixels([0])

    def decode() -> object:
        return qa.read(path, sampling)

    def process() -> object:
        return qa.host_inputs(video, question)

    def encode() -> object:
        return tower.run(tower.embed(pixels, (grid.frames,)), range(first + 1), PassiveVisitor())

    variants: dict[str, Variant] = {}
    for name, work in {"processor": process, f"encoder up to layer {first}": encode}.items():
        variants[f"decoding, {name}"] = Variant(_in_turn(decode, work), _nothing)
        variants[f"decoding beside {name}"] = Variant(_beside(pool, decode, work), _nothing)
    return variants


def _in_turn(first: Work, second: Work) -> Work:
    def run() -> None:
        first()
        second()

    return run


def _beside(pool: ThreadPoolExecutor, first: Work, second: Work) -> Work:
    def run() -> None:
        other = pool.submit(first)
        second()
        other.result()

    return run


def _nothing(result: object) -> Outcome:
    return {}, {}


def _rows(near: str, found: dict[str, Any]) -> list[list[str]]:
    """A row for each pair: both ways, and the share of the time that being side by side saves."""
    times = {name: result["total_ms"]["median"] for name, result in found.items()}
    pairs = [(name, name.replace("decoding, ", "decoding beside ")) for name in times if name.startswith("decoding, ")]
    return [
        [f"{beside}, {near}", f"{times[turn]:.0f}", f"{times[beside]:.0f}", f"{1 - times[beside] / times[turn]:.0%}"]
        for turn, beside in pairs
    ]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, help="the file to read")
    parser.add_argument("--config", choices=configuration_names(), default="llava-onevision-0.5b")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--near", type=float, nargs="+", default=[0.0, 0.5], help="see earlytom.Sampling")
    parser.add_argument("--threads", type=int, default=0, help="of torch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
