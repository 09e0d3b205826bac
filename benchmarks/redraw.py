"""The plots of folders that ``earlytom eval testbed`` filled, drawn again from their ``rows.json`` and ``report.md``.

``python benchmarks/redraw.py benchmarks/results/methods benchmarks/results/twin`` writes what the command itself would
write there. Nothing is answered anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from earlytom.eval.plot import write_plots
from earlytom.eval.report import read_report


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, draw, print what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="what was given as --output")
    for folder in parser.parse_args(arguments).folders:
        print(*write_plots(folder, *read_report(folder)), sep="\n")


if __name__ == "__main__":
    main()
