"""Peak memory, and that of stages."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from earlytom.bench.memory import LiveMemory, PeakMemory, StagePeaks

CPU = torch.device("cpu")
MEBIBYTE = 2**20

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak")


def use(mebibytes: int) -> None:
    torch.ones(mebibytes * MEBIBYTE // 4).add_(1)


@linux
def test_the_peak_is_what_was_used_in_between() -> None:
    memory = PeakMemory(CPU)
    if memory.bytes() is None:
        pytest.skip("the process may not reset its peak")
    use(64)
    assert 60 * MEBIBYTE < memory.bytes() < 90 * MEBIBYTE
    memory.restart()
    use(32)
    assert 28 * MEBIBYTE < memory.bytes() < 60 * MEBIBYTE


@linux
def test_each_stage_has_its_own() -> None:
    peaks = StagePeaks(PeakMemory(CPU))
    use(64)
    peaks.credit(None)
    use(48)
    peaks.credit("encoder")
    use(16)
    peaks.credit("prefill")
    use(32)
    peaks.credit("prefill")
    found = peaks.bytes()
    if not found:
        pytest.skip("the process may not reset its peak")
    assert set(found) == {"encoder", "prefill"}
    assert 44 * MEBIBYTE < found["encoder"] < 64 * MEBIBYTE
    assert 28 * MEBIBYTE < found["prefill"] < 44 * MEBIBYTE


@linux
def test_on_a_system_that_does_not_tell_nothing_is_claimed(monkeypatch) -> None:
    def refuse(self, text):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    peaks = StagePeaks(PeakMemory(CPU))
    peaks.credit("encoder")
    assert PeakMemory(CPU).bytes() is None
    assert peaks.bytes() == {}


class Seen(TorchDispatchMode):
    """Shows every operation."""

    def __init__(self, memory: LiveMemory) -> None:
        super().__init__()
        self._memory = memory

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        self._memory.saw((args, kwargs), output)
        return output


def test_live_tensors_are_counted_until_nothing_holds_them() -> None:
    before, memory = torch.ones(1000), LiveMemory()
    with Seen(memory):
        view = before[10:20]
        before.add_(1)
        assert (memory.bytes(), view.shape) == (0, (10,))
        one = before + 1
        part = one[:1]
        del one
        two = torch.cat([part, before[:499]])
        assert memory.bytes() == 4 * (1000 + 500)
        del part, two
        memory.restart()
        assert memory.bytes() == 0
        (before + 1).mul_(2)
        assert memory.bytes() == 4 * 1000


def test_live_tensors_of_stages_count_from_the_level_at_the_start() -> None:
    peaks = StagePeaks(memory := LiveMemory())
    with Seen(memory):
        kept = torch.zeros(100)
        torch.zeros(50).add_(1)
        peaks.credit("encoder")
        torch.zeros(10).add_(1)
        peaks.credit("prefill")
    assert peaks.bytes() == {"encoder": 600, "prefill": 440}
    assert kept.nbytes == 400
