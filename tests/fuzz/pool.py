"""Children that are used again and again, each with a time limit for a case; one that dies is a finding."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
# Of one case. The first of a child also waits for its imports.
SECONDS = 30.0
_STARTING = 120.0
_TAIL = 3000


class Child:
    """One process."""

    def __init__(self, seed: int, folder: Path, number: int) -> None:
        self._arguments = [sys.executable, "-m", "fuzz.child", str(seed), str(folder)]
        self._log = folder / f"child_{number}.log"
        self._process: subprocess.Popen[str] | None = None

    def try_case(self, case: str) -> dict[str, Any]:
        """The outcome of a case; a finding where the process dies of it, or does not answer in time."""
        limit = SECONDS
        if self._process is None:
            self._start()
            limit += _STARTING
        process = self._process
        timer = threading.Timer(limit, process.kill)
        timer.start()
        try:
            process.stdin.write(case + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        late = not timer.is_alive()
        timer.cancel()
        return json.loads(line) if line.endswith("\n") else self._lost(late)

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError):  # of a case that it did not live to read
                self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    def _start(self) -> None:
        # The same package as here, whether it is installed or on a path.
        paths = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip

    def _lost(self, late: bool) -> dict[str, Any]:
        code = self._process.wait()
        self.stop()
        end = self._log.read_text(errors="replace")[-_TAIL:]
        cause = f"hangs: no answer in {SECONDS:g} s" if late else f"dies: exit status {code}"
        return {"outcome": "findings", "detail": f"{cause}\n{end}"}


def outcomes(cases: Iterator[str], seed: int, folder: Path, children: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Try cases in several children.

    Args:
        cases: names, drawn as children become free.
        seed: of all cases.
        folder: with the clips and checkpoints to damage.
        children: how many.

    Yields:
        The name of each case and what came of it.
    """
    done: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue()
    lock = threading.Lock()

    def work(number: int) -> None:
        child = Child(seed, folder, number)
        try:
            while True:
                with lock:
                    case = next(cases, None)
                if case is None:
                    return
                done.put((case, child.try_case(case)))
        finally:
            child.stop()
            done.put(None)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(children)]
    for thread in threads:
        thread.start()
    left = children
    while left:
        result = done.get()
        if result is None:
            left -= 1
        else:
            yield result
