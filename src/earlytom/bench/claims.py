"""What the supplementary says of its Figures 7 and 8, and what a measurement here says of the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from earlytom.bench.plots.readings import BASELINE, Document, Result, display_name, median

__all__ = ["CLAIMS", "Claim"]

_OTHERS = ("visionzip", "holitom")
_OURS = "earlytom"
_LOWEST = 0.1


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the supplementary, in our words, and what to read in a measurement beside it.

    Attributes:
        says: what it says.
        measured: the same of a document, in words.
    """

    says: str
    measured: Callable[[Document], str]


def _of(document: Document, label: str) -> list[Result]:
    """The timed results of a method, by rising retention."""
    found = [result for result in document["results"] if result["label"] == label and median(result, "ttft")]
    return sorted(found, key=lambda result: result.get("retention") or 1.0)


def _range(values: Sequence[float], form: str, unit: str) -> str:
    """Lowest and highest of some values as text."""
    if not values:
        return "not measured"
    low, high = format(min(values), form), format(max(values), form)
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _vision_shares(document: Document) -> str:
    """The share of vision encoding in the time to the first token of all but EarlyTom."""
    parts = []
    for label in (BASELINE, *_OTHERS):
        shares = [_percent(result, "vision_encoding") for result in _of(document, label)]
        parts.append(f"{display_name(label)} {_range(shares, '.0f', '%')}")
    return "vision encoding takes of the time to the first token: " + ", ".join(parts)


def _percent(result: Result, part: str) -> float:
    """A part's share of the time to the first token."""
    return 100 * (median(result, part) or 0.0) / (median(result, "ttft") or 1.0)


def _token_processing(document: Document) -> str:
    parts = []
    for label in (*_OTHERS, _OURS):
        times = [median(result, "token_processing") or 0.0 for result in _of(document, label)]
        parts.append(f"{display_name(label)} {_range(times, '.3g', ' ms')}")
    return "token processing takes: " + ", ".join(parts)


def _wins(document: Document, cost: Callable[[Result], float]) -> str:
    """At how many retentions EarlyTom has the lowest cost."""
    ours = _of(document, _OURS)
    others = [result for label in _OTHERS for result in _of(document, label)]
    beaten = [
        result
        for result in ours
        if all(cost(result) < cost(other) for other in others if other.get("retention") == result.get("retention"))
    ]
    return f"it has the lowest at {len(beaten)} of {len(ours)} retentions"


def _lowest_ttft(document: Document) -> str:
    return _wins(document, lambda result: median(result, "ttft") or 0.0)


def _lowest_vision_side(document: Document) -> str:
    names = ("vision_encoding", "token_processing")
    return _wins(document, lambda result: sum(median(result, name) or 0.0 for name in names))


def _speed_up(label: str) -> Callable[[Document], str]:
    """How many times sooner a method is at 10% than each way to run without compression."""

    def measured(document: Document) -> str:
        found = [result for result in _of(document, label) if result.get("retention") == _LOWEST]
        plain = _of(document, BASELINE)
        if not found or not plain:
            return "not measured"
        mine = median(found[0], "ttft") or 1.0
        ratios = [f"{(median(result, 'ttft') or 0.0) / mine:.2f}x over {result['attention']}" for result in plain]
        return f"{display_name(label)} at 10%: {', '.join(ratios)}"

    return measured


CLAIMS: Mapping[str, tuple[Claim, ...]] = {
    "figure7": (
        Claim(
            says="Vision encoding is a dominant part of the time of the plain model, of HoliTom and of VisionZip.",
            measured=_vision_shares,
        ),
        Claim(
            says="HoliTom's token processing takes back part of what its shorter prefill saves.",
            measured=_token_processing,
        ),
        Claim(says="EarlyTom has the lowest time to the first token in all settings.", measured=_lowest_ttft),
        Claim(says="It is up to 2.65x faster than the plain model, at 10%.", measured=_speed_up(_OURS)),
    ),
    "figure8": (
        Claim(says="HoliTom is slower than the plain model: 0.90x at 10%.", measured=_speed_up("holitom")),
        Claim(says="EarlyTom spends the least on vision encoding and token processing.", measured=_lowest_vision_side),
        Claim(says="It is 1.48x faster than the plain model, at 10%.", measured=_speed_up(_OURS)),
    ),
}
"""By figure."""
