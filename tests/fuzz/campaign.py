"""A run over many cases, and its report."""

from __future__ import annotations

import platform
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.checkpoints import make_folders
from fuzz.outcomes import OUTCOMES
from fuzz.pool import outcomes
from fuzz.videos import make_clips

# So many of each kind a round, where a run is limited by time: about as long for each, videos longer.
ROUND = {"video": 60, "source": 40, "method": 200, "checkpoint": 4}
_FINDINGS_TOLD = 100


@dataclass
class Report:
    """What came of every case."""

    seed: int
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, case: str, result: Mapping[str, Any]) -> None:
        """Count a case."""
        kind = case.partition("/")[0]
        self.counts.setdefault(kind, Counter())[result["outcome"]] += 1
        if result["outcome"] not in OUTCOMES:
            self.findings.append({"case": case, "repeat": self.repeat(case), "detail": result["detail"]})

    def repeat(self, case: str) -> str:
        """The command that tries a case again."""
        return f'make fuzz FUZZ="--seed {self.seed} --case {case}"'

    def as_json(self) -> dict[str, Any]:
        """Counts of each kind, and what was found."""
        counts = {kind: {"inputs": sum(found.values()), **found} for kind, found in sorted(self.counts.items())}
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "with": _versions(),
            "inputs": sum(entry["inputs"] for entry in counts.values()),
            "kinds": counts,
            "findings": [finding | {"detail": _brief(finding["detail"])} for finding in self.findings[:_FINDINGS_TOLD]],
        }

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.seconds:.0f} s"]
        for kind, found in sorted(self.counts.items()):
            told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(found.items()))
            lines.append(f"{kind}: {sum(found.values()):,} inputs: {told}")
        for finding in self.findings[:_FINDINGS_TOLD]:
            lines.append(f"\nFINDING {finding['case']}, again by: {finding['repeat']}\n{finding['detail']}")
        return "\n".join(lines)


def run(
    seed: int,
    counts: Mapping[str, int],
    *,
    seconds: float | None = None,
    cases: list[str] | None = None,
    children: int = 2,
) -> Report:
    """Try cases.

    Args:
        seed: the same gives the same cases.
        counts: how many of each kind; with ``seconds``, so many a round.
        seconds: go on for as long.
        cases: these instead.
        children: processes at once.
    """
    report = Report(seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        make_clips(Path(place) / "clips")
        make_folders(Path(place) / "bases")
        start = time.monotonic()
        names = iter(cases) if cases else _names(counts, seconds)
        for case, result in outcomes(names, seed, Path(place), children):
            report.add(case, result)
        report.seconds = time.monotonic() - start
    return report


def _names(counts: Mapping[str, int], seconds: float | None) -> Iterator[str]:
    """``kind/number``, the kinds side by side: rounds until the time is over, or one."""
    end = None if seconds is None else time.monotonic() + seconds
    turn = 0
    while turn == 0 or end is not None:
        for kind, count in counts.items():
            for number in range(turn * count, (turn + 1) * count):
                if end is not None and time.monotonic() >= end:
                    return
                yield f"{kind}/{number}"
        turn += 1


def _brief(detail: str) -> str:
    """The line that says it: the first about a child, the last of a traceback."""
    lines = detail.strip().splitlines()
    return lines[0] if lines[0].startswith(("dies", "hangs")) else lines[-1]


def _versions() -> dict[str, str]:
    import av
    import torch
    import transformers

    import earlytom

    found = {module.__name__: str(module.__version__) for module in (earlytom, av, torch, transformers)}
    return {
        "python": platform.python_version(),
        **found,
        "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
    }
