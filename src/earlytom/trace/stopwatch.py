"""Times of the stages of a call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Times of stages.

    On one CUDA device events are recorded always and read only when asked for. Events of several devices cannot be
    compared: there every border of a stage waits until all of them are done, and the host's clock is read. So it is on
    a CPU, without waiting.

    Args:
        devices: on which the model computes.
    """

    def __init__(self, *devices: torch.device) -> None:
        self._cuda = tuple(dict.fromkeys(device for device in devices if device.type == "cuda"))
        self._events = len(self._cuda) == 1
        self._open: dict[str, Any] = {}
        self._inside: list[str] = []
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        start = self._now()
        self._inside.append(name)
        try:
            yield
        finally:
            self._inside.pop()
            self._spans.append((name, start, self._now()))

    def start(self, name: str) -> None:
        """Begin a stage that ends elsewhere."""
        self._open[name] = self._now()

    def stop(self, name: str) -> None:
        """End a stage that `start` began; nothing happens when it has ended already."""
        if name in self._open:
            self._spans.append((name, self._open.pop(name), self._now()))

    def seen(self, name: str) -> bool:
        """Whether a stage has been timed."""
        return any(span[0] == name for span in self._spans)

    @property
    def running(self) -> str | None:
        """The stage that is being timed, the innermost one; else what `start` began last; ``None`` where nothing is."""
        return next(reversed(self._inside or self._open), None)

    def _now(self) -> Any:
        if not self._events:
            self._wait()
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._cuda[0]))
        return event

    def _wait(self) -> None:
        """Until all devices have done what was queued."""
        if not self._cuda:
            return
        import torch

        for device in self._cuda:
            torch.cuda.synchronize(device)

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds of each stage, summed over its spans; waits for the device on CUDA."""
        self._wait()
        totals: dict[str, float] = {}
        for name, start, end in self._spans:
            spent = start.elapsed_time(end) if self._events else (end - start) * 1000
            totals[name] = totals.get(name, 0.0) + spent
        return totals
