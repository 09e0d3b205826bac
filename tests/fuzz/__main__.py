"""``make fuzz``: damaged videos, odd sources, methods' texts and broken checkpoints, until something is found.

Every input is made from a seed and its number and tried in a child with limits of time and memory. What may come of it:
a clear error, pictures equal to those of plain decoding, an answer. Anything else (another exception, other pictures,
a hang, a crash, an error that quotes too much) is a finding, told with the command that repeats it; the exit status is
then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from fuzz.campaign import ROUND, run


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="go on for as long; by default 240, without --counts")
    parser.add_argument("--counts", help="how many of each kind instead, as in video=1000,method=5000")
    parser.add_argument("--case", action="append", help="try these alone, as in video/17")
    parser.add_argument("--children", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--output", type=Path, help="write the report as JSON")
    options = parser.parse_args()
    counts = ROUND
    if options.counts:
        counts = {kind: int(count) for kind, count in (pair.split("=") for pair in options.counts.split(","))}
        if unknown := set(counts) - set(ROUND):
            parser.error(f"--counts has {', '.join(sorted(unknown))}; allowed: {', '.join(ROUND)}")
    seconds = options.seconds if options.seconds or options.counts else 240.0
    report = run(options.seed, counts, seconds=seconds, cases=options.case, children=options.children)
    print(report)
    if options.output:
        options.output.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
