"""What shortens a command's start: work in a thread, and no garbage collection meanwhile."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest

from earlytom.cli.background import in_background, without_collection


def test_work_goes_on_beside_its_caller_and_gives_its_result() -> None:
    reached, go = threading.Event(), threading.Event()

    def work() -> int:
        reached.set()
        assert go.wait(10)
        return 7

    result = in_background(work)
    assert reached.wait(10)
    assert not result.done()
    go.set()
    assert result.result() == 7


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    def work() -> None:
        raise ValueError("no")

    result = in_background(work)
    with pytest.raises(ValueError, match="no"):
        result.result()


def test_work_that_nobody_waits_for_does_not_hold_up_the_end() -> None:
    program = (
        "import threading; from earlytom.cli.background import in_background; in_background(threading.Event().wait)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_left_as_it_was(before) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with without_collection():
            assert not gc.isenabled()
        assert gc.isenabled() == before
        with pytest.raises(KeyError), without_collection():
            raise KeyError
        assert gc.isenabled() == before
    finally:
        (gc.enable if was else gc.disable)()
