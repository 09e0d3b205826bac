"""Methods, references and the published way on one prompt, in turns: times, memory and tokens of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from earlytom import Uncompressed, compress, parse_method
from earlytom.bench.memory import PeakMemory
from earlytom.bench.quartiles import Quartiles
from earlytom.bench.rounds import in_rounds
from earlytom.methods.base import Method
from earlytom.runtime.devices import computing_devices, synchronize
from earlytom.trace import Stopwatch, Trace
from reference.published_earlytom import PublishedSettings, PublishedTokens, published_generate

PARTS = ("vision_encoding", "token_processing", "prefill", "overhead")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one call says of itself.

    Attributes:
        parts: milliseconds of `PARTS`, as far as they are told.
        details: tokens, method.
        rest: what is left of the time to first token, by name.
    """

    parts: Mapping[str, float]
    details: Mapping[str, Any]
    rest: str = "overhead"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something that is measured.

    Attributes:
        name: of it.
        label: the name without how much it keeps.
        retention: the share of visual tokens that it keeps; ``None`` for the plain model.
        attention: transformers' attention implementation.
        call: answers with so many new tokens, and gives what says, untimed, how that went.
    """

    name: str
    label: str
    retention: float | None
    attention: str
    call: Callable[[int], Callable[[], Outcome]]


@dataclass
class Measured:
    """The runs of a subject; times in milliseconds."""

    ttft: list[float] = field(default_factory=list)
    generate: list[float] = field(default_factory=list)
    peaks: list[int | None] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


def plain_subject(model: Any, inputs: Mapping[str, Tensor], attention: str) -> Subject:
    """The plain model."""
    call = _calling(model, inputs, Uncompressed())
    return Subject(name=f"none {attention}", label="none", retention=None, attention=attention, call=call)


def method_subject(model: Any, inputs: Mapping[str, Tensor], label: str, retention: float) -> Subject:
    """A method, as a user runs it."""
    call = _calling(model, inputs, parse_method(f"{label}:retention={retention}"))
    name = f"{label} {100 * retention:g}%"
    return Subject(name=name, label=label, retention=retention, attention="sdpa", call=call)


def published_subject(model: Any, inputs: dict[str, Tensor], settings: PublishedSettings) -> Subject:
    """EarlyTom as its authors run it, see ``tests/reference/published_earlytom.py``."""

    def call(new_tokens: int) -> Callable[[], Outcome]:
        clock = Stopwatch(*computing_devices(model))
        _, visual = published_generate(model, inputs, settings, clock, **_exactly(new_tokens))
        return lambda: _published(clock, visual, settings)

    name = f"published {100 * settings.retention:g}%"
    return Subject(name=name, label="published", retention=settings.retention, attention="sdpa", call=call)


def _calling(model: Any, inputs: Mapping[str, Tensor], method: Method) -> Callable[[int], Callable[[], Outcome]]:

    def call(new_tokens: int) -> Callable[[], Outcome]:
        with compress(model, method) as trace:
            model.generate(**inputs, **_exactly(new_tokens))
        return lambda: _traced(trace)

    return call


def measure(
    model: Any, subjects: Sequence[Subject], *, repeats: int, warm_ups: int, new_tokens: int, deadline: float
) -> dict[str, Measured]:
    """Let subjects take turns; rounds end early, but not before the first one, where the time is up.

    Args:
        model: that all of them run.
        subjects: to be measured.
        repeats: rounds, at most.
        warm_ups: rounds before them.
        new_tokens: of the runs that time decoding, at least 2.
        deadline: on the clock of ``time.monotonic``.
    """
    measured = {subject.name: Measured() for subject in subjects}
    for turn, subject in in_rounds(subjects, repeats=repeats, warm_ups=warm_ups):
        if turn > 0 and time.monotonic() > deadline and len({len(found.ttft) for found in measured.values()}) == 1:
            break
        if model.config._attn_implementation != subject.attention:
            model.set_attn_implementation(subject.attention)
        found = measured[subject.name] if turn >= 0 else Measured()
        _run(model, subject, new_tokens, found)
    return measured


def results(
    measured: Mapping[str, Measured], subjects: Sequence[Subject], frames: int, new_tokens: int
) -> list[dict[str, Any]]:
    """Plain data for JSON, see docs/benchmark_device.md."""
    return [_times_of(subject, measured[subject.name], new_tokens) | {"frames": frames} for subject in subjects]


def _run(model: Any, subject: Subject, new_tokens: int, found: Measured) -> None:
    devices = computing_devices(model)
    memory = PeakMemory(devices[0])
    ttft, say = _timed(devices, subject, 1)
    found.peaks.append(memory.bytes())
    found.ttft.append(ttft)
    outcome = say()
    for name, spent in (dict(outcome.parts) | {outcome.rest: ttft - sum(outcome.parts.values())}).items():
        found.parts.setdefault(name, []).append(spent)
    found.details = outcome.details
    found.generate.append(_timed(devices, subject, new_tokens)[0])


def _timed(devices: Any, subject: Subject, new_tokens: int) -> tuple[float, Callable[[], Outcome]]:
    """Milliseconds on the host's clock, everything queued on the device done."""
    synchronize(devices)
    started = time.perf_counter()
    say = subject.call(new_tokens)
    synchronize(devices)
    return (time.perf_counter() - started) * 1000, say


def _exactly(new_tokens: int) -> dict[str, Any]:
    return {"do_sample": False, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}


def _traced(trace: Trace) -> Outcome:
    split, video = trace.last.split(), trace.videos[0]
    details = {
        "method": trace.method,
        "tokens": {
            "uncompressed": video.grid.tokens,
            "visual": video.tokens,
            "prefill": trace.last.prefill_tokens,
            "average_per_layer": round(trace.last.average_visual_tokens, 3),
            "temporal_grids": video.grid.temporal_grids,
            "grids_after": {str(merge.layer): merge.grids_after for merge in video.merges},
        },
    }
    return Outcome(parts={name: split[name] for name in PARTS if name != "overhead"}, details=details)


def _published(clock: Stopwatch, visual: PublishedTokens, settings: PublishedSettings) -> Outcome:
    parts = {"vision_encoding": 0.0, "token_processing": 0.0}
    for name, spent in clock.milliseconds().items():
        parts["vision_encoding" if name == "encoder" else "token_processing"] += spent
    after = dict(zip(map(str, settings.merge_layers), visual.frames_after, strict=True))
    details = {
        "method": f"published {settings}",
        # The newline is no visual token.
        "tokens": {"visual": visual.tokens.shape[0] - 1, "grids_after": after},
    }
    return Outcome(parts=parts, details=details, rest="prefill_and_overhead")


def _times_of(subject: Subject, found: Measured, new_tokens: int) -> dict[str, Any]:
    steps = [whole - first for whole, first in zip(found.generate, found.ttft, strict=True)]
    known = [peak for peak in found.peaks if peak is not None]
    times = {"ttft": found.ttft, **found.parts, "generate": found.generate}
    return {
        "name": subject.name,
        "label": subject.label,
        "retention": subject.retention,
        "attention": subject.attention,
        **found.details,
        "milliseconds": {name: Quartiles(tuple(values)).to_dict() for name, values in times.items()},
        # Where answers are so short that noise is larger, there is no speed to tell.
        "tokens_per_second": (
            Quartiles(tuple(1000 * (new_tokens - 1) / step for step in steps)).to_dict() if min(steps) > 0 else None
        ),
        "throughput": Quartiles(tuple(1000 * new_tokens / whole for whole in found.generate)).to_dict(),
        "peak_bytes": {"all": max(known) if known else None},
    }
