"""A JSON document as `earlytom bench` writes it, made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PARTS = ("vision_encoding", "token_processing", "prefill", "overhead")
BEFORE = {"open": 21.0, "decode": 1900.0, "preprocess": 310.0, "to_device": 18.0}
# Share of the encoder's time that is left, and milliseconds of token processing a frame.
METHODS = {"visionzip": (1.0, 1.3), "holitom": (1.0, 4.6), "earlytom": (0.62, 0.8)}


def spread(value: float, width: float = 0.03) -> dict[str, Any]:
    low, high = value * (1 - width), value * (1 + width)
    return {"median": value, "lower_quartile": low, "upper_quartile": high, "values": [low, value, high]}


def result(label: str, retention: float | None, frames: int, attention: str = "sdpa") -> dict[str, Any]:
    """A method whose encoder costs 7 ms a frame, and its prefill what its tokens cost."""
    share, processing = METHODS.get(label, (1.35 if attention == "eager" else 1.0, 0.5))
    tokens = round(196 * frames * (retention or 1.0))
    values = (7.0 * frames * share, processing * frames, 0.045 * tokens + 2e-6 * tokens**2 + 21, 9.0)
    times = dict(zip(PARTS, values, strict=True))
    times |= {"ttft": sum(times.values())}
    times |= {name: value * frames / 32 if name == "decode" else value for name, value in BEFORE.items()}
    times["wait"] = times["ttft"] + sum(times[name] for name in BEFORE)
    times["wait_open"] = times["wait"] - times["open"] - 0.4 * times["decode"]
    times["generate"] = times["ttft"] + 600
    name = label if retention is None else f"{label} {100 * retention:g}%"
    encoder, prefill = int(0.64e12 * frames * share), int(15.2e9 * tokens + 2e5 * tokens**2)
    return {
        "name": name if attention == "sdpa" else f"{name} {attention}",
        "method": label if retention is None else f"{label}:retention={retention}",
        "label": label,
        "retention": retention,
        "attention": attention,
        "frames": frames,
        "milliseconds": {name: spread(value) for name, value in times.items()},
        "tokens_per_second": spread(34.0),
        "throughput": spread(20_000 / times["generate"]),
        "peak_bytes": {"all": int(17e9 + 60e6 * frames * share + 9e4 * tokens)},
        "tokens": {"uncompressed": 196 * frames, "visual": tokens},
        "flops": {"encoder": encoder, "projection": 0, "prefill": prefill, "total": encoder + prefill, "paper": None},
    }


def document(
    frames: Sequence[int] = (32,),
    retentions: Sequence[float] = (0.25, 0.2, 0.15, 0.1),
    methods: Sequence[str] = tuple(METHODS),
    attentions: Sequence[str] = ("sdpa",),
) -> dict[str, Any]:
    results = [result("none", None, count, attention) for count in frames for attention in attentions]
    results += [result(method, retention, count) for count in frames for retention in retentions for method in methods]
    return {
        "schema": "earlytom.bench/1",
        "environment": {"device": "a made-up accelerator"},
        "settings": {"dtype": "bfloat16"},
        "model": {"name": "llava-onevision-7b"},
        "results": results,
    }
