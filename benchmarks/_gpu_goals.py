"""Whether the goals for one GPU are met, from the numbers that were measured; nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Mapping[str, Any]]
"""The content of each step's JSON file, by the step's name; steps that brought none are absent."""

REFERENCE = "none sdpa"
OURS = "earlytom 10%"
PUBLISHED = "published 10%"
BOUNDED_PARTS = ("vision_encoding", "token_processing", "prefill", "decoding")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A goal.

    Attributes:
        text: what is to be reached.
        found: the figures.
        met: whether they reach it; ``None`` where it was not measured.
    """

    text: str
    found: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "**missed**", None: "not measured"}[self.met]

    def to_dict(self) -> dict[str, Any]:
        return {"goal": self.text, "found": self.found, "met": self.met}


def judge(results: Results) -> list[Goal]:
    """All goals, in the order in which they are told."""
    onevision = results.get("onevision")
    return [
        _faster("LLaVA-OneVision-7B, 32 frames, 10%", onevision, OURS, REFERENCE, 4.0),
        _faster("LLaVA-OneVision-7B, 32 frames, 10%", onevision, OURS, PUBLISHED, 2.0),
        _small_share("token_processing", onevision, 0.03),
        *(_near_bound(part, results.get("roofline"), 1.5) for part in BOUNDED_PARTS),
        _less_memory(onevision),
        _faster("LLaVA-Video-7B, 64 frames, 15%", results.get("video"), "earlytom 15%", REFERENCE, 4.0),
        _faster("Qwen2.5-VL-7B, 23,040 visual tokens, 15%", results.get("qwen"), "earlytom 15%", REFERENCE, 3.0),
    ]


def goals_markdown(goals: list[Goal]) -> str:
    lines = ["| goal | found | |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {goal.text} | {goal.found} | {goal.verdict} |" for goal in goals)]) + "\n"


def find(content: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    """The result of a name; ``None`` where it was not measured."""
    return next((result for result in (content or {}).get("results", []) if result["name"] == name), None)


def _faster(where: str, content: Mapping[str, Any] | None, ours: str, other: str, least: float) -> Goal:
    text = f"{where}: TTFT at least {least:g}x faster than {other}"
    fast, slow = find(content, ours), find(content, other)
    if other == PUBLISHED and (content or {}).get("published_differs"):
        return _missing(text, f"{other} that could be compared: it decides otherwise here")
    if fast is None or slow is None:
        return _missing(text, ours if fast is None else other)
    times = [result["milliseconds"]["ttft"]["median"] for result in (slow, fast)]
    speedup = times[0] / times[1]
    return Goal(text=text, found=f"{speedup:.2f}x ({times[0]:.1f} to {times[1]:.1f} ms)", met=speedup >= least)


def _small_share(part: str, content: Mapping[str, Any] | None, most: float) -> Goal:
    text = f"LLaVA-OneVision-7B, 32 frames, 10%: {part} at most {most:.0%} of TTFT"
    ours = find(content, OURS)
    if ours is None:
        return _missing(text, OURS)
    spent, ttft = (ours["milliseconds"][name]["median"] for name in (part, "ttft"))
    return Goal(text=text, found=f"{spent / ttft:.1%} ({spent:.2f} of {ttft:.1f} ms)", met=spent / ttft <= most)


def _near_bound(part: str, content: Mapping[str, Any] | None, most: float) -> Goal:
    text = f"LLaVA-OneVision-7B, 32 frames, 10%: {part} within {most:g}x of its bound"
    found = (find(content, OURS) or {}).get("parts", {}).get(part)
    if found is None or found["ratio"] is None:
        return _missing(text, f"{part} of {OURS}")
    figures = f"{found['measured']:.2f} of {found['bound']:.2f} ms, {found['operations']} operations"
    return Goal(text=text, found=f"{found['ratio']:.2f}x ({figures})", met=found["ratio"] <= most)


def _less_memory(content: Mapping[str, Any] | None) -> Goal:
    text = f"LLaVA-OneVision-7B, 32 frames, 10%: peak memory not above that of {REFERENCE}"
    ours, plain = find(content, OURS), find(content, REFERENCE)
    peaks = [None if result is None else result["peak_bytes"]["all"] for result in (ours, plain)]
    if peaks[0] is None or peaks[1] is None:
        return _missing(text, "memory")
    return Goal(
        text=text, found=" against ".join(f"{peak / 2**20:.0f} MiB" for peak in peaks), met=peaks[0] <= peaks[1]
    )


def _missing(text: str, what: str) -> Goal:
    return Goal(text=text, found=f"no figures of {what}", met=None)
