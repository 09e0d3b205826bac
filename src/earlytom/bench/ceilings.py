"""What a device can do at most, measured: arithmetic by a large matrix product, memory by a large copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from earlytom.errors import EarlyTomError
from earlytom.trace import Stopwatch

__all__ = ["Ceilings", "measure_ceilings"]

# Large enough that starting costs nothing and no cache holds them; on a CPU small enough to be done in seconds.
_SIDE, _SIDE_CPU = 8192, 2048
_COPIED, _COPIED_CPU = 1 << 30, 1 << 28
_WARM_UPS = 2


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Two measured ceilings of a device.

    Attributes:
        flops: floating-point operations a second of a square matrix product, two for each multiply-add.
        bandwidth: bytes a second of a copy on the device, those read and those written.
        dtype: of the product's matrices.
        side: rows and columns of each of them.
        copied: bytes of the tensor that was copied.
        repeats: runs of each, of which the fastest counts.
    """

    flops: float
    bandwidth: float
    dtype: str
    side: int
    copied: int
    repeats: int

    def __post_init__(self) -> None:
        for name in ("flops", "bandwidth"):
            if not getattr(self, name) > 0:
                raise EarlyTomError(f"the ceiling of {name} must be above 0, got {getattr(self, name)}")

    def seconds(self, flops: int, bytes_: int) -> float:
        """The time below which this device cannot do so much: its arithmetic and its memory work side by side."""
        return max(flops / self.flops, bytes_ / self.bandwidth)

    def limited_by(self, flops: int, bytes_: int) -> str:
        """``"arithmetic"`` or ``"memory"``, whichever takes longer."""
        return "arithmetic" if flops / self.flops >= bytes_ / self.bandwidth else "memory"

    @property
    def product(self) -> str:
        """The product, in words."""
        return f"{self.side} x {self.side} by {self.side} x {self.side}, {self.dtype}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        return {
            "flops_per_second": self.flops,
            "bytes_per_second": self.bandwidth,
            "product": self.product,
            "copied_bytes": self.copied,
            "repeats": self.repeats,
        }


def measure_ceilings(
    device: torch.device,
    dtype: torch.dtype,
    *,
    side: int | None = None,
    copied: int | None = None,
    repeats: int = 10,
) -> Ceilings:
    """Measure both ceilings; seconds at most.

    Args:
        device: which.
        dtype: of the product, a floating one.
        side: rows and columns of the product's matrices; 8192, on a CPU 2048.
        copied: bytes to copy; 1 GiB, on a CPU 256 MiB.
        repeats: runs of each; the fastest counts, since a ceiling is what can be reached.

    Raises:
        EarlyTomError: a size is below 1, or the device has no room.
    """
    on_cpu = device.type == "cpu"
    side = side or (_SIDE_CPU if on_cpu else _SIDE)
    copied = copied or (_COPIED_CPU if on_cpu else _COPIED)
    for name, value in (("side", side), ("copied", copied), ("repeats", repeats)):
        if value < 1:
            raise EarlyTomError(f"{name} must be at least 1, got {value}")
    with torch.no_grad():
        return Ceilings(
            flops=2 * side**3 / _fastest(_product(side, dtype, device), device, repeats),
            bandwidth=2 * copied / _fastest(_copy(copied, device), device, repeats),
            dtype=str(dtype).removeprefix("torch."),
            side=side,
            copied=copied,
            repeats=repeats,
        )


def _product(side: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    # Random: a GPU draws less power for zeros, and runs faster than it could with data.
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty(side, side, dtype=dtype, device=device)
    return lambda: torch.mm(first, second, out=product)


def _copy(size: int, device: torch.device) -> Callable[[], object]:
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def _fastest(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of some runs."""
    for _ in range(_WARM_UPS):
        run()
    seconds = []
    for _ in range(repeats):
        clock = Stopwatch(device)
        with clock.stage("run"):
            run()
        seconds.append(clock.milliseconds()["run"] / 1000)
    return min(seconds)
