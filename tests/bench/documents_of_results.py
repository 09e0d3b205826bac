"""Results of a benchmark that nobody ran."""

from __future__ import annotations

from typing import Any

from earlytom.bench.quartiles import Quartiles
from earlytom.bench.results import BenchResults, Flops, Result, Tokens

TERA, MEBIBYTE = 10**12, 2**20


def result(name: str, label: str, ttft: float, *, frames: int = 8, bare: bool = False) -> Result:
    """A result whose time to first token is spread by a fifth around ``ttft``; ``bare``: nothing else was measured."""
    times = {"ttft": Quartiles((0.8 * ttft, ttft, 1.2 * ttft)), "vision_encoding": Quartiles((ttft / 5,))}
    return Result(
        name=name,
        method=label,
        label=label,
        retention=None if label == "none" else 0.25,
        attention="eager" if "eager" in name else "sdpa",
        frames=frames,
        milliseconds=times if bare else times | {"wait": Quartiles((10 * ttft,))},
        tokens_per_second=None,
        throughput=None if bare else Quartiles((3.0,)),
        peak_bytes={} if bare else {"prefill": 3 * MEBIBYTE, "all": 5 * MEBIBYTE},
        tokens=Tokens(
            uncompressed=128,
            visual=32,
            prefill=71,
            average_per_layer=33.0,
            temporal_grids=8,
            grids_after={3: 6, 10: 5},
        ),
        waits=None if bare else 4,
        operations=None if bare else 123,
        flops=None if bare else _flops(),
    )


def _flops() -> Flops:
    paper = {"language": 3 * TERA, "vision": 4 * TERA, "total": 7 * TERA}
    return Flops(encoder=4 * TERA, projection=TERA, decisions=2 * TERA, prefill=3 * TERA, paper=paper)


def example(**more: Any) -> BenchResults:
    """Four results and one that was left out."""
    given: dict[str, Any] = {
        "environment": {
            "command": "earlytom bench",
            "device": "a CPU",
            "load_at_start": 0.5,
            "load_at_end": 1.5,
        },
        "settings": {
            "dtype": "float32",
            "attention": "sdpa",
            "repeats": 3,
            "warm_ups": 1,
            "new_tokens": 1,
        },
        "model": {"name": "tiny", "weights": "random, seed 0", "parameters": 500_000_000},
        "clip": {"name": "generated", "redundant_share": 0.4, "redundant_share_asked": 0.5},
        "results": [
            result("none sdpa", "none", 100.0),
            result("none eager", "none", 200.0),
            result("earlytom 25%", "earlytom", 25.0),
            result("earlytom 25%", "earlytom", 50.0, frames=16),
        ],
        "left_out": [{"name": "fastv 25%", "frames": 8, "reason": "no room"}],
    }
    return BenchResults(**given | more)
