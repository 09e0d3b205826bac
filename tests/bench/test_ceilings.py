"""Measured ceilings, and the bounds that they make."""

from __future__ import annotations

import pytest
import torch

from earlytom.bench.ceilings import Ceilings, measure_ceilings
from earlytom.errors import EarlyTomError

CPU = torch.device("cpu")


def made(**changes) -> Ceilings:
    given = {"flops": 1e12, "bandwidth": 1e9, "dtype": "float32", "side": 8, "copied": 64, "repeats": 1}
    return Ceilings(**given | changes)


def test_a_bound_is_the_longer_of_arithmetic_and_memory() -> None:
    ceilings = made()
    assert ceilings.seconds(2 * 10**12, 10**9) == 2.0
    assert ceilings.seconds(10**12, 3 * 10**9) == 3.0
    assert (ceilings.limited_by(10**12, 10**6), ceilings.limited_by(10**6, 10**9)) == ("arithmetic", "memory")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ceilings_are_measured(dtype) -> None:
    found = measure_ceilings(CPU, dtype, side=64, copied=1 << 16, repeats=2)
    assert found.flops > 0
    assert found.bandwidth > 0
    assert found.to_dict()["product"] == f"64 x 64 by 64 x 64, {str(dtype)[6:]}"


def test_more_work_takes_the_device_longer_than_the_ceiling_says() -> None:
    """A ceiling is a rate: a product of twice the side does eight times as much."""
    ceilings = made()
    assert ceilings.seconds(2 * 16**3, 0) == 8 * ceilings.seconds(2 * 8**3, 0)


@pytest.mark.parametrize("changes", [{"flops": 0.0}, {"bandwidth": float("nan")}])
def test_a_ceiling_of_nothing_is_refused(changes) -> None:
    with pytest.raises(EarlyTomError, match="must be above 0"):
        made(**changes)


@pytest.mark.parametrize("changes", [{"side": -1}, {"copied": -5}, {"repeats": 0}])
def test_sizes_are_checked(changes) -> None:
    with pytest.raises(EarlyTomError, match=f"{next(iter(changes))} must be at least 1"):
        measure_ceilings(CPU, torch.float32, **changes)


@pytest.mark.gpu
def test_a_gpu_is_measured_by_its_events() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda", torch.cuda.current_device())
    half, single = (measure_ceilings(device, dtype, side=4096, repeats=5) for dtype in (torch.bfloat16, torch.float32))
    assert half.flops > 2 * single.flops > 1e12
    assert half.bandwidth > 1e11
