"""Tables of `encoder.py`, and whether its goals are met: all from the measured numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from _variants import STAGES
from earlytom.bench.tables import plain_table

Results = Mapping[str, Mapping[str, Any]]
Goal = dict[str, Any]

SPEEDUP_GOAL = 1.5
OVERHEAD_GOAL = 0.02
# The published encoder makes the maps that its "received" only averages, so these two are compared together.
_COMPARED = (
    ("encoder", "received"),
    ("merging",),
    ("projection",),
    ("selection",),
    ("assembly",),
    ("prefill",),
    ("rest",),
)
_OVERHEAD = ("received", "merging", "selection", "assembly")


def report(results: Results, official: str, published: str, retentions: Sequence[float]) -> tuple[str, dict[str, Goal]]:
    """The text for the terminal, and the goals for the JSON."""
    goals = judge(results, official, published, retentions)
    parts = ["medians in milliseconds", _stage_table(results, published), "", _share_table(results)]
    if official in results and published in results:
        parts += ["", "published over ours, like for like", _like_for_like(results[official], results[published])]
    lines = [f"{'met    ' if goal['met'] else 'NOT MET'}  {name}: {goal['says']}" for name, goal in goals.items()]
    return "\n".join([*parts, "", "goals", *lines]), goals


def judge(results: Results, official: str, published: str, retentions: Sequence[float]) -> dict[str, Goal]:
    """The goals that can be judged with the variants at hand."""
    goals: dict[str, Goal] = {}
    lowest = f"earlytom {min(retentions):.0%}"
    if "vanilla" in results and lowest in results:
        ratio = total(results["vanilla"]) / total(results[lowest])
        goals[f"{lowest} at least {SPEEDUP_GOAL}x faster than vanilla"] = {
            "met": ratio >= SPEEDUP_GOAL, "value": round(ratio, 3), "says": f"{ratio:.2f}x",
        }  # fmt: skip
    if official in results and published in results:
        goals["no stage slower than the published way"] = _compare_stages(results[official], results[published])
    shares = {name: overhead_share(result) for name, result in results.items() if name.startswith("earlytom")}
    if shares:
        worst = max(shares, key=lambda name: shares[name])
        goals[f"received attention, merging, selection and assembly under {OVERHEAD_GOAL:.0%} of TTFT"] = {
            "met": shares[worst] < OVERHEAD_GOAL,
            "value": round(shares[worst], 5),
            "says": f"{shares[worst]:.2%} at most ({worst})",
        }
    return goals


def total(result: Mapping[str, Any]) -> float:
    """Median time to first token, milliseconds."""
    return float(result["total_ms"]["median"])


def stage(result: Mapping[str, Any], name: str) -> float:
    """Median of a stage, milliseconds; 0 where a variant has no such stage."""
    return float(result["stages_ms"].get(name, {}).get("median", 0.0))


def overhead_share(result: Mapping[str, Any]) -> float:
    """What received attention, merging, selection and assembly take of the time to first token."""
    return sum(stage(result, name) for name in _OVERHEAD) / total(result)


def _compare_stages(ours: Mapping[str, Any], other: Mapping[str, Any]) -> Goal:
    """A stage is slower when its median is higher and the quartiles of the two do not overlap."""
    slower, higher = [], []
    for names in _COMPARED:
        label = "+".join(names)
        mine, theirs = (sum(stage(result, name) for name in names) for result in (ours, other))
        if mine > theirs:
            higher.append(f"{label} ({mine:.2f} against {theirs:.2f} ms)")
            if _quartile(ours, names, "lower_quartile") > _quartile(other, names, "upper_quartile"):
                slower.append(label)
    alike = _same_work(ours, other)
    says = f"slower: {', '.join(slower) or 'none'}; higher median: {', '.join(higher) or 'none'}"
    says += f"; same frames and tokens: {'yes' if alike else 'NO, not like for like'}"
    return {"met": not slower and alike, "slower": slower, "higher_median": higher, "says": says}


def _same_work(ours: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(ours[key] == other[key] for key in ("frames_after_merge_layers", "visual_tokens"))


def _quartile(result: Mapping[str, Any], names: Sequence[str], which: str) -> float:
    return sum(float(result["stages_ms"].get(name, {}).get(which, 0.0)) for name in names)


def _stage_table(results: Results, published: str) -> str:
    header = ["", *STAGES, "TTFT", "quartiles", "vanilla/it", "published/it", "peak MiB"]
    rows = []
    for name, result in results.items():
        times, peak = result["total_ms"], result["peak_bytes"]
        cells = [f"{stage(result, key):.1f}" if key in result["stages_ms"] else "-" for key in STAGES]
        rows.append([
            name, *cells, f"{total(result):.1f}",
            f"{times['lower_quartile']:.1f}-{times['upper_quartile']:.1f}",
            _ratio(results.get("vanilla"), result), _ratio(results.get(published), result),
            "?" if peak is None else f"{peak / 2**20:.0f}",
        ])  # fmt: skip
    return plain_table(header, rows)


def _share_table(results: Results) -> str:
    header = ["", "frames left after each merge layer", "encoder ran", "visual tokens", "overhead of TTFT"]
    rows = []
    for name, result in results.items():
        left = result["frames_after_merge_layers"]
        frames = ", ".join(f"{count} (layer {layer})" for layer, count in left.items()) or "-"
        tokens = f"{result['visual_tokens']} of {result['visual_tokens_uncompressed']}"
        rows.append([name, frames, f"{result['encoder_share']:.0%}", tokens, f"{overhead_share(result):.2%}"])
    return plain_table(header, rows)


def _like_for_like(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    header, row = [""], ["published/ours"]
    for names in _COMPARED:
        mine, theirs = (sum(stage(result, name) for name in names) for result in (ours, other))
        header.append("+".join(names))
        row.append(f"{theirs / mine:.2f}x" if mine else "-")
    return plain_table([*header, "TTFT"], [[*row, _ratio(other, ours)]])


def _ratio(other: Mapping[str, Any] | None, result: Mapping[str, Any]) -> str:
    return "-" if other is None else f"{total(other) / total(result):.2f}x"
