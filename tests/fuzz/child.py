"""What runs in a child: cases come in by name, a line of JSON goes out for each."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch

from fuzz import checkpoints, sources, texts, videos
from fuzz.outcomes import Trial, judged

KINDS: dict[str, Callable[[Random, Path], Trial]] = {
    "video": videos.trial,
    "source": sources.trial,
    "method": texts.trial,
    "checkpoint": checkpoints.trial,
}
FINDING = "findings"
# What a child may take beyond what its imports have taken: four times what `videos.LIMITS` lets a clip have, and more.
MEMORY = 3 << 30
_MOST_CHARACTERS = 4000


def tried(seed: int, case: str, folder: Path) -> dict[str, str]:
    """Try the input of a case (``kind/number``)."""
    kind, _, _ = case.partition("/")
    trial = KINDS[kind](Random(f"{seed}/{case}"), folder)
    try:
        outcome, detail = judged(trial)
    except BaseException:  # whatever is raised that is no clear error is what we look for
        return {"outcome": FINDING, "detail": traceback.format_exc()[-_MOST_CHARACTERS:]}
    return {"outcome": outcome, "detail": detail}


def _limit_memory() -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return  # no Linux: the time limit remains
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Serve until standard input ends. Whatever libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    faulthandler.enable()
    torch.set_num_threads(1)
    seed, folder = int(sys.argv[1]), Path(sys.argv[2])
    _limit_memory()
    for line in sys.stdin:
        answers.write(json.dumps(tried(seed, line.strip(), folder)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
