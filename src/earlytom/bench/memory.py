"""Peak memory of a stretch of a program, and of each stage of a call."""

from __future__ import annotations

import ctypes
import weakref
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["LiveMemory", "Memory", "PeakMemory", "StagePeaks"]


class Memory(Protocol):
    """Tells a peak above the level at its construction."""

    def bytes(self) -> int | None:
        """The peak since construction or `restart`; ``None`` where the system does not tell."""

    def restart(self) -> None:
        """Let the next peak begin here; it counts from the same level."""


class LiveMemory:
    """Peak of the memory that tensors hold above its level at construction, in bytes, told operation by operation.

    Storages that operations make count from there on until nothing holds them any more; what the first operations are
    given was there before. What a process has in use besides plays no part, so that a call's peak does not depend on
    what ran before it; nor does what a kernel takes and gives back by itself.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._now = self._peak = 0

    def saw(self, given: Any, made: Any) -> None:
        """Note one operation.

        Args:
            given: its arguments, tensors anywhere in them.
            made: its results.
        """
        for storage in _storages(given):
            self._watch(storage, 0)
        for storage in _storages(made):
            self._watch(storage, storage.nbytes())
        self._peak = max(self._peak, self._now)

    def bytes(self) -> int:
        """The peak since construction or `restart`."""
        return self._peak

    def restart(self) -> None:
        """Let the next peak begin here; it counts from the same level."""
        self._peak = self._now

    def _watch(self, storage: torch.UntypedStorage, size: int) -> None:
        """Count a storage that has not been seen, until it is gone; only then can its place be another's."""
        place = storage._cdata
        if place in self._watched:
            return
        self._watched[place] = weakref.ref(storage, partial(self._lose, place))
        self._sizes[place] = size
        self._now += size

    def _lose(self, place: int, _: object) -> None:
        del self._watched[place]
        self._now -= self._sizes.pop(place)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]


class PeakMemory:
    """Peak of the memory in use above its level at construction, in bytes.

    CUDA: the allocator's peak. Linux: the peak resident set, whose high-water mark a process can reset; freed
    memory that the C library holds is given back first, so that every run starts from the same level. What a process
    takes up for the first time and keeps, as a library's buffers, is then told of whoever runs first. Else unknown.

    Args:
        device: that the model computes on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._give_back()
        self._known = self._reset()
        self._before = self._now() if self._known else 0

    def bytes(self) -> int | None:
        """The peak since construction or `restart`; ``None`` where the system does not tell."""
        if not self._known:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return _status("VmHWM") - self._before

    def restart(self) -> None:
        """Let the next peak begin here; it counts from the same level."""
        if self._known:
            self._reset()

    def _reset(self) -> bool:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return True
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return False
        return True

    def _now(self) -> int:
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else _status("VmRSS")

    def _give_back(self) -> None:
        if self._device.type == "cuda":
            return
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):
            return


class StagePeaks:
    """The peak of each stage of one call.

    Args:
        memory: that tells peaks.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._peaks: dict[str, int] = {}

    def credit(self, stage: str | None) -> None:
        """Credit what has been used since the last border to the stage that ran up to here; ``None``: to no one."""
        peak = self._memory.bytes()
        if peak is not None and stage is not None:
            self._peaks[stage] = max(self._peaks.get(stage, 0), peak)
        self._memory.restart()

    def bytes(self) -> dict[str, int]:
        """Bytes by stage, those that have been credited; empty where the system does not tell."""
        return dict(self._peaks)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
