"""Peak memory of a stretch of a program, and of each stage of a call."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

__all__ = ["PeakMemory", "StagePeaks"]


class PeakMemory:
    """Peak of the memory in use above its level at construction, in bytes.

    CUDA: the allocator's peak. Linux: the peak resident set, whose high-water mark a process can reset; freed
    memory that the C library holds is given back first, so that every run starts from the same level. Else unknown.

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
        device: that the model computes on.
    """

    def __init__(self, device: torch.device) -> None:
        self._memory = PeakMemory(device)
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
