"""Peak memory, and that of stages."""

from __future__ import annotations

import sys

import pytest
import torch

from earlytom.bench.memory import PeakMemory, StagePeaks

CPU = torch.device("cpu")
MEBIBYTE = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak")


def use(mebibytes: int) -> None:
    torch.ones(mebibytes * MEBIBYTE // 4).add_(1)


def test_the_peak_is_what_was_used_in_between() -> None:
    memory = PeakMemory(CPU)
    if memory.bytes() is None:
        pytest.skip("the process may not reset its peak")
    use(64)
    assert 60 * MEBIBYTE < memory.bytes() < 90 * MEBIBYTE
    memory.restart()
    use(32)
    assert 28 * MEBIBYTE < memory.bytes() < 60 * MEBIBYTE


def test_each_stage_has_its_own() -> None:
    peaks = StagePeaks(CPU)
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


def test_on_a_system_that_does_not_tell_nothing_is_claimed(monkeypatch) -> None:
    def refuse(self, text):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    peaks = StagePeaks(CPU)
    peaks.credit("encoder")
    assert PeakMemory(CPU).bytes() is None
    assert peaks.bytes() == {}
