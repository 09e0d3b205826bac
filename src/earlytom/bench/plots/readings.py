"""What plots read from the JSON document of a measurement (``earlytom.bench/1``), a plain dictionary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "BASELINE",
    "Document",
    "Result",
    "display_name",
    "find_baseline",
    "median",
    "names_of",
    "peak",
    "quartiles",
    "results_at",
    "retentions_of",
    "usual_frames",
]

Document = Mapping[str, Any]
Result = Mapping[str, Any]

BASELINE = "none"
"""The label of what runs without compression."""

_NAMES = {
    "none": "no compression",
    "published": "authors' way",
    "earlytom": "EarlyTom",
    "visionzip": "VisionZip",
    "holitom": "HoliTom",
    "fastvid": "FastVID",
    "prunevid": "PruneVid",
    "dycoke": "DyCoke",
    "evs": "EVS",
    "vidcom2": "VidCom2",
    "fastv": "FastV",
    "pyramiddrop": "PyramidDrop",
    "tome": "ToMe",
}


def display_name(label: str) -> str:
    """A method's name as its authors write it."""
    return _NAMES.get(label, label)


def median(result: Result, name: str, group: str | None = "milliseconds") -> float | None:
    """The median of a quantity; ``None`` where it was not measured. ``group=None``: one that stands by itself."""
    values = result if group is None else result.get(group) or {}
    found = values.get(name)
    return None if found is None else float(found["median"])


def quartiles(result: Result, name: str) -> tuple[float, float] | None:
    """Lower and upper quartile of a time, milliseconds."""
    found = (result.get("milliseconds") or {}).get(name)
    return None if found is None else (float(found["lower_quartile"]), float(found["upper_quartile"]))


def peak(result: Result) -> float | None:
    """Peak memory of the whole call, bytes."""
    found = (result.get("peak_bytes") or {}).get("all")
    return None if found is None else float(found)


def usual_frames(document: Document) -> int | None:
    """The number of frames with the most results, the first of equals; ``None`` without results."""
    counts = Counter(result["frames"] for result in document["results"])
    return counts.most_common(1)[0][0] if counts else None


def results_at(document: Document, frames: int | None) -> list[Result]:
    """The results with so many frames, in the document's order."""
    return [result for result in document["results"] if result["frames"] == frames]


def retentions_of(results: Sequence[Result]) -> list[float | None]:
    """The retentions of methods, ascending, behind them ``None`` where one has none."""
    found = {result.get("retention") for result in results if result["label"] != BASELINE}
    known = sorted(value for value in found if value is not None)
    return [*known, None] if None in found else [*known]


def find_baseline(results: Sequence[Result]) -> Result | None:
    """What everything is compared with: the first without compression, torch's own attention before others."""
    plain = [result for result in results if result["label"] == BASELINE]
    return next((result for result in plain if result.get("attention") == "sdpa"), plain[0] if plain else None)


def names_of(results: Sequence[Result]) -> list[str]:
    """A name for each of some results that stand side by side: the method's, with its attention where that differs.

    Results that would still have the same name get their own, which is unique.
    """
    attentions = {
        label: {result.get("attention") for result in results if result["label"] == label}
        for label in {result["label"] for result in results}
    }
    names = [
        f"{display_name(result['label'])}, {result.get('attention')}"
        if len(attentions[result["label"]]) > 1
        else display_name(result["label"])
        for result in results
    ]
    counts = Counter(names)
    return [name if counts[name] == 1 else str(result["name"]) for name, result in zip(names, results, strict=True)]
