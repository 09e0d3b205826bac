"""What a call does besides taking time, from runs that are not timed: memory, operations, waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from earlytom.bench.memory import LiveMemory, PeakMemory, StagePeaks
from earlytom.bench.roofline import PARTS, call_stage
from earlytom.bench.work import Work, count_work

__all__ = ["Inspection", "count_waits", "inspect_call"]

DECODING = "decoding"
# Of the driver's calls that make the host wait, those that a program makes for one of its queues or events.
_WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What one call did.

    Attributes:
        work: by stage, as `earlytom.bench.roofline.PARTS` names them; ``decoding`` is all behind the first token.
        peaks: by stage, bytes above what was there before the call: the allocator's, on a CPU those of live tensors;
            empty where the system does not tell.
        waits: times that the host waited for the device up to the first token; ``None`` where there is no device to
            wait for.
    """

    work: Mapping[str, Work]
    peaks: Mapping[str, int]
    waits: int | None

    @property
    def operations(self) -> int:
        """Tensor operations up to the first token; views are none."""
        return sum(work.operations for stage, work in self.work.items() if stage != DECODING)

    def peak_of(self, part: str) -> int | None:
        """The peak of a part; ``None`` where none of its stages ran, or the system does not tell."""
        return max((peak for stage, peak in self.peaks.items() if PARTS[stage] == part), default=None)

    @property
    def peak(self) -> int | None:
        """The peak of the whole call."""
        return max(self.peaks.values(), default=None)


def inspect_call(run: Callable[[], object], first_token: Callable[[], object], device: torch.device) -> Inspection:
    """Run a call under counters, which slow it down.

    Args:
        run: the call, in a `earlytom.compress` block of its own.
        first_token: the same call up to the first token.
        device: that the model computes on.
    """
    peaks = _Peaks(device)
    with peaks:
        work = count_work(run, call_stage, device)
        peaks.close()
    return Inspection(work=work, peaks=peaks.bytes(), waits=count_waits(first_token, device))


def count_waits(run: Callable[[], object], device: torch.device) -> int | None:
    """How often the host waits for the device while ``run`` runs; ``None`` where it is the device."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        run()
    return sum(event.name in _WAITS for event in profiled.events() or ())


class _Peaks(TorchDispatchMode):
    """Notes the peak of each stage: memory is taken by operations only, so that the first one of a stage is its border.

    Args:
        device: that the model computes on.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        # An allocator knows its peak; of the host the process tells only what it holds, whatever for.
        self._live = LiveMemory() if device.type == "cpu" else None
        self._memory = StagePeaks(self._live or PeakMemory(device))
        self._stage: str | None = None

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        stage = call_stage()
        if stage != self._stage:
            self.close()
            self._stage = stage
        output = function(*args, **(kwargs or {}))
        if self._live is not None:
            self._live.saw((args, kwargs), output)
        return output

    def close(self) -> None:
        """End the stage that runs."""
        self._memory.credit(self._stage)

    def bytes(self) -> dict[str, int]:
        """Bytes by stage."""
        return self._memory.bytes()
