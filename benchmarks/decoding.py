"""Decoding inside a block: tokens a second after the first, by cache (dynamic, static) and with compiled steps.

Steps are compiled as transformers does behind a static cache, by inductor, on a CPU too. Runs take turns. Random
weights answer nonsense of a given length; the ids of every cache are compared with those of the first one.

    python benchmarks/decoding.py --size tiny
    python benchmarks/decoding.py --size 0.5b --frames 16 --new-tokens 64 --output benchmarks/results/decoding_cpu.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

import earlytom
from _harness import environment, synchronise, write_json
from _models import SIZES, build_inputs, build_model
from earlytom.bench.quartiles import Quartiles
from earlytom.bench.tables import plain_table

CACHES = ("dynamic", "static", "static, compiled")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Clock:
    """A streamer that notes when tokens arrive; the prompt comes first."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.times = device, list[float]()

    def put(self, value: Tensor) -> None:
        """Called by ``generate`` for the prompt and every token."""
        synchronise(self.device)
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Called by ``generate`` behind the last token."""

    @property
    def tokens_per_second(self) -> float:
        """From the first token to the last."""
        return (len(self.times) - 2) / (self.times[-1] - self.times[1])


def cache_options(cache: str) -> dict[str, Any]:
    """What ``generate`` is told for a cache."""
    from transformers import CompileConfig

    if cache == "dynamic":
        return {}
    if cache == "static":
        return {"cache_implementation": "static", "disable_compile": True}
    settings = CompileConfig(mode="default", fullgraph=True, dynamic=False)
    settings._compile_all_devices = True  # else transformers compiles on accelerators only
    return {"cache_implementation": "static", "compile_config": settings}


def decode(model: Any, inputs: dict[str, Tensor], method: str, cache: str, tokens: int) -> tuple[list[int], float]:
    """The new ids, and tokens a second."""
    clock = Clock(inputs["input_ids"].device)
    with earlytom.compress(model, method):
        ids = model.generate(
            **inputs, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens, streamer=clock,
            **cache_options(cache),
        )  # fmt: skip
    return ids[0, inputs["input_ids"].shape[1] :].tolist(), clock.tokens_per_second


def measure(
    model: Any, inputs: dict[str, Tensor], methods: list[str], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Every method with every cache, in turns, after one run of each to warm up and compile."""
    pairs = [(method, cache) for method in methods for cache in arguments.caches]
    ids: dict[tuple[str, str], list[int]] = {}
    rates: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
    first: dict[tuple[str, str], float] = {}
    for turn in range(arguments.rounds + 1):
        for method, cache in pairs if turn % 2 else pairs[::-1]:
            started = time.perf_counter()
            ids[method, cache], rate = decode(model, inputs, method, cache, arguments.new_tokens)
            if turn:
                rates[method, cache].append(rate)
            else:
                first[method, cache] = time.perf_counter() - started
    return [
        {
            "method": method,
            "cache": cache,
            "tokens_per_second": Quartiles(tuple(rates[method, cache])).to_dict(),
            "first_call_seconds": first[method, cache],
            "same_ids_as_first": ids[method, cache] == ids[method, arguments.caches[0]],
        }
        for method, cache in pairs
    ]


def main(given: list[str] | None = None) -> None:
    """Measure and print; ``--output`` keeps it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="tiny")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--retention", type=float, default=0.1)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--caches", nargs="+", choices=CACHES, default=list(CACHES), metavar="CACHE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(given)
    device = torch.device(arguments.device)
    model = build_model(arguments.size, device, DTYPES[arguments.dtype])
    inputs = build_inputs(model, arguments.frames, "mixed")
    results = measure(model, inputs, ["none", f"earlytom:retention={arguments.retention}"], arguments)
    rows = [
        [one["method"], one["cache"], f"{one['tokens_per_second']['median']:.1f}", f"{one['first_call_seconds']:.1f}",
         "yes" if one["same_ids_as_first"] else "no"]
        for one in results
    ]  # fmt: skip
    print(
        plain_table(
            ["method", "cache", "tokens/s after the first", "first call, s", f"ids as with {arguments.caches[0]}"], rows
        )
    )
    if arguments.output is not None:
        settings = {name: value for name, value in vars(arguments).items() if name != "output"}
        write_json(arguments.output, {"environment": environment(device), "settings": settings, "results": results})


if __name__ == "__main__":
    main()
