"""How far each stage of a call is from what the device can do: measured times beside bounds from counted work."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from earlytom.bench.ceilings import Ceilings
from earlytom.bench.rounds import in_rounds
from earlytom.bench.tables import Table
from earlytom.bench.work import Work, count_work
from earlytom.errors import EarlyTomError
from earlytom.runtime.compression import compress
from earlytom.runtime.devices import computing_devices, synchronize
from earlytom.runtime.router import call_being_served
from earlytom.trace import CallTrace, Stopwatch, Trace

if TYPE_CHECKING:
    from earlytom.methods.base import Method

__all__ = [
    "PARTS",
    "SCHEMA",
    "Roofline",
    "StageBound",
    "call_stage",
    "measure_rooflines",
    "plain_results",
    "roofline_tables",
    "stage_times",
]

SCHEMA = "earlytom.roofline/1"

PARTS: Mapping[str, str] = {
    "encoder": "vision_encoding",
    "attention": "token_processing",
    "merging": "token_processing",
    "projection": "token_processing",
    "selection": "token_processing",
    "assembly": "token_processing",
    "prefill": "prefill",
    "overhead": "overhead",
    "decoding": "decoding",
}
"""The stages, each named as a trace names it, and the part that it belongs to where time is split as in the paper.
``overhead`` is what else happens up to the first token, ``decoding`` one step behind it."""


@dataclass(frozen=True, kw_only=True)
class StageBound:
    """A stage, or several: what it does, how long that must take, and how long it took.

    Attributes:
        name: of the stage or of the part.
        flops: see `earlytom.bench.work.Work`, as ``bytes``, ``moved_bytes`` and ``operations``.
        bytes: see there.
        moved_bytes: see there.
        operations: see there.
        bound: milliseconds below which the device cannot do it, however it is written: for each stage the longer of its
            arithmetic and its bytes.
        as_written: milliseconds below which these very operations cannot run one after another: for each the longer of
            its arithmetic and the bytes that it moves. Fewer, fused operations would come below.
        limited_by: ``"arithmetic"`` or ``"memory"``, whichever makes the bound.
        measured: milliseconds of each run.
    """

    name: str
    flops: int
    bytes: int
    moved_bytes: int
    operations: int
    bound: float
    as_written: float
    limited_by: str
    measured: tuple[float, ...]

    @property
    def milliseconds(self) -> float:
        """The median of what was measured."""
        return statistics.median(self.measured)

    @property
    def ratio(self) -> float | None:
        """How many times its bound the stage took; ``None`` where there is nothing that it must do."""
        return self.milliseconds / self.bound if self.bound else None

    @property
    def ratio_as_written(self) -> float | None:
        """How many times the bound of its operations as they are it took."""
        return self.milliseconds / self.as_written if self.as_written else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON; times in milliseconds."""
        return {
            "flops": self.flops,
            "bytes": self.bytes,
            "moved_bytes": self.moved_bytes,
            "operations": self.operations,
            "bound": self.bound,
            "as_written": self.as_written,
            "limited_by": self.limited_by,
            "measured": self.milliseconds,
            "measured_values": list(self.measured),
            "ratio": self.ratio,
            "ratio_as_written": self.ratio_as_written,
        }


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """One method on one prompt.

    Attributes:
        method: in full.
        stages: in the order of `PARTS`, those that did something.
        parts: sums over the stages of a part.
        uncounted: operations of other libraries whose arithmetic is not known, so that bounds are too low.
    """

    method: str
    stages: tuple[StageBound, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[StageBound, ...]:
        """The stages as the paper puts them together; a part's bound is the sum of its stages'."""
        names = dict.fromkeys(PARTS[stage.name] for stage in self.stages)
        return tuple(_together(name, [stage for stage in self.stages if PARTS[stage.name] == name]) for name in names)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        return {
            "method": self.method,
            "stages": {stage.name: stage.to_dict() for stage in self.stages},
            "parts": {part.name: part.to_dict() for part in self.parts},
            "uncounted": list(self.uncounted),
        }


def measure_rooflines(
    model: nn.Module,
    inputs: Mapping[str, Any],
    methods: Mapping[str, Method | str],
    ceilings: Ceilings,
    *,
    repeats: int = 5,
    warm_ups: int = 1,
    decoding_steps: int = 8,
    on_run: Callable[[str], object] = lambda name: None,
) -> dict[str, Roofline]:
    """Time some methods on one prompt, in turns, and count what each does in a run of its own.

    Args:
        model: a supported stock model, on the device that the ceilings are of.
        inputs: the processor's output, on its device.
        methods: by name, each a method or its text.
        ceilings: of the device.
        repeats: measured rounds.
        warm_ups: rounds before them.
        decoding_steps: tokens behind the first one, whose mean time is that of a step.
        on_run: told the name before each run.

    Raises:
        EarlyTomError: a number is too small.
        ModelError: the model is not supported.
        MethodError: a method is unknown or does not fit the model.
    """
    for name, value, least in (
        ("repeats", repeats, 1),
        ("warm_ups", warm_ups, 0),
        ("decoding_steps", decoding_steps, 1),
    ):
        if value < least:
            raise EarlyTomError(f"{name} must be at least {least}, got {value}")
    runs = _Runs(model, inputs)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    described: dict[str, str] = {}
    for turn, name in in_rounds(list(methods), repeats=repeats, warm_ups=warm_ups):
        on_run(name)
        described[name], found = runs.timed(methods[name], decoding_steps)
        if turn >= 0:
            times[name].append(found)
    rooflines = {}
    for name, method in methods.items():
        on_run(name)
        rooflines[name] = _roofline(described[name], runs.counted(method), times[name], ceilings)
    return rooflines


def call_stage() -> str | None:
    """The stage of `PARTS` that this thread's call is in; ``None`` outside calls of a model in a `compress` block."""
    call = call_being_served()
    if call is None:
        return None
    clock = call.trace.clock
    if clock.running == "ttft":
        return "overhead"
    return clock.running or ("decoding" if clock.seen("ttft") else None)


def stage_times(call: CallTrace) -> dict[str, float]:
    """Milliseconds of the stages of `PARTS` up to the first token, none inside another; they add up to ``ttft``."""
    spent = dict(call.milliseconds)
    ttft = spent.pop("ttft")
    inside = sum(spent.get(name, 0.0) for name in ("attention", "merging"))
    own = {name: spent[name] - (inside if name == "encoder" else 0.0) for name in PARTS if name in spent}
    return own | {"overhead": ttft - sum(own.values())}


class _Runs:
    """Runs of a prompt: timed, and counted."""

    def __init__(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        self._model: Any = model
        self._inputs, self._devices = inputs, computing_devices(model)

    def timed(self, method: Method | str, steps: int) -> tuple[str, dict[str, float]]:
        """The method in full, and the milliseconds of its stages."""
        clock = Stopwatch(*self._devices)
        synchronize(self._devices)
        trace = self._run(method, 1 + steps, clock)
        times, whole = stage_times(trace.last), clock.milliseconds()["generate"]
        return trace.method, times | {"decoding": (whole - trace.last.milliseconds["ttft"]) / steps}

    def counted(self, method: Method | str) -> dict[str, Work]:
        """The work of its stages, one decoding step among them."""
        return count_work(lambda: self._run(method, 2, Stopwatch()), call_stage, self._devices[0])

    def _run(self, method: Method | str, new_tokens: int, clock: Stopwatch) -> Trace:
        options = {"do_sample": False, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
        with compress(self._model, method) as trace, clock.stage("generate"):
            self._model.generate(**self._inputs, **options)
        return trace


def _roofline(
    method: str, work: Mapping[str, Work], times: Sequence[Mapping[str, float]], ceilings: Ceilings
) -> Roofline:
    stages = [
        _bound(name, work[name], tuple(run[name] for run in times), ceilings)
        for name in PARTS
        if name in work and all(name in run for run in times)
    ]
    uncounted = dict.fromkeys(name for done in work.values() for name in done.uncounted)
    return Roofline(method=method, stages=tuple(stages), uncounted=tuple(uncounted))


def _bound(name: str, work: Work, measured: tuple[float, ...], ceilings: Ceilings) -> StageBound:
    steps = sum(times * ceilings.seconds(flops, moved) for (flops, moved), times in work.steps.items())
    return StageBound(
        name=name,
        flops=work.flops,
        bytes=work.bytes,
        moved_bytes=work.moved_bytes,
        operations=work.operations,
        bound=1000 * ceilings.seconds(work.flops, work.bytes),
        as_written=1000 * steps,
        limited_by=ceilings.limited_by(work.flops, work.bytes),
        measured=measured,
    )


def _together(name: str, stages: Sequence[StageBound]) -> StageBound:
    longest = max(stages, key=lambda stage: stage.bound)
    return StageBound(
        name=name,
        flops=sum(stage.flops for stage in stages),
        bytes=sum(stage.bytes for stage in stages),
        moved_bytes=sum(stage.moved_bytes for stage in stages),
        operations=sum(stage.operations for stage in stages),
        bound=sum(stage.bound for stage in stages),
        as_written=sum(stage.as_written for stage in stages),
        limited_by=longest.limited_by,
        measured=tuple(map(sum, zip(*(stage.measured for stage in stages), strict=True))),
    )


def plain_results(rooflines: Mapping[str, Roofline], ceilings: Ceilings) -> dict[str, Any]:
    """Ceilings and results as plain data, for JSON."""
    return {
        "schema": SCHEMA,
        "ceilings": ceilings.to_dict(),
        "results": [{"name": name, **roofline.to_dict()} for name, roofline in rooflines.items()],
    }


def roofline_tables(document: Mapping[str, Any]) -> list[Table]:
    """The ceilings, and for each method its stages beside their bounds.

    Args:
        document: plain data that holds what `plain_results` gives.
    """
    return [_ceilings_table(document["ceilings"]), *map(_stages_table, document["results"])]


def _ceilings_table(ceilings: Mapping[str, Any]) -> Table:
    product, copy = (
        f"{ceilings['flops_per_second'] / 1e12:.4g} TFLOP/s",
        f"{ceilings['bytes_per_second'] / 1e9:.4g} GB/s",
    )
    copied = f"a copy of {ceilings['copied_bytes'] / 2**20:.4g} MiB, read and written"
    cells = (("arithmetic", product, ceilings["product"]), ("memory", copy, copied))
    return Table(title="Ceilings", columns=("", "measured", "by"), right=("measured",), cells=cells)


def _stages_table(result: Mapping[str, Any]) -> Table:
    columns = ("stage", "GFLOP", "MB", "bound ms", "by", "written ms", "ms", "x bound", "x written", "operations")
    sizes = Counter(PARTS[name] for name in result["stages"])
    parts = {name: found for name, found in result["parts"].items() if sizes[name] > 1}
    cells = tuple(_cells(name, found) for name, found in {**result["stages"], **parts}.items())
    right = tuple(name for name in columns if name not in ("stage", "by"))
    return Table(title=f"Stages of {result['name']}", columns=columns, right=right, cells=cells)


def _cells(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name.replace("_", " "),
        f"{found['flops'] / 1e9:.4g}",
        f"{found['bytes'] / 1e6:.4g}",
        f"{found['bound']:.3g}",
        found["limited_by"],
        f"{found['as_written']:.3g}",
        f"{found['measured']:.3g}",
        *("" if found[ratio] is None else f"{found[ratio]:.3g}" for ratio in ("ratio", "ratio_as_written")),
        str(found["operations"]),
    )
