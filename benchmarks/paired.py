"""How one method differs from another on the same questions, from a folder that ``earlytom eval testbed`` filled.

``python benchmarks/paired.py FOLDER earlytom:retention=0.1 visionzip:retention=0.1`` prints the accuracy of the first
less that of the second in points, over all skills and in each, with 95% intervals from resampled clips and McNemar's p
(docs/evaluation.md); ``--mix benchmarks`` averages the skills in another way. Nothing is answered anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


from earlytom import parse_method
from earlytom.bench.tables import plain_table
from earlytom.eval.mixes import EVEN, MIXES
from earlytom.eval.records import Record, RecordFile
from earlytom.eval.rows import ANY
from earlytom.eval.summary import summarise
from earlytom.eval.variants import Variant


def read(folder: Path, variant: Variant) -> dict[int, Record]:
    """The records of a variant by clip."""
    file = RecordFile(folder, variant.spec)
    records = dict(file.records())
    if not records:
        raise SystemExit(f"{folder}: holds no records of {variant.spec} ({file.path.name})")
    return records


def compare(folder: Path, method: str, other: str, mix: str = EVEN) -> list[list[str]]:
    """Lines of the table, one a skill, about the clips that both answered; ``mix``: how skills are averaged."""
    mine, its = (Variant(method=parse_method(text)) for text in (method, other))
    records = {variant: read(folder, variant) for variant in (its, mine)}
    clips = sorted(records[mine].keys() & records[its].keys())
    chosen = {one: [found[clip] for clip in clips] for one, found in records.items()}
    rows = summarise(chosen, against=its, mix=mix)
    return [
        [
            row.skill,
            str(row.n),
            f"{100 * row.difference:+.1f}",
            f"[{100 * (row.difference_low or 0):.1f}, {100 * (row.difference_high or 0):.1f}]",
            f"{row.p_value:.3g}",
        ]
        for row in rows
        if row.form == ANY and row.difference is not None
    ]


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what was given as --output; it holds records/")
    parser.add_argument("method", help="the method, with its retention and options")
    parser.add_argument("other", help="what it is compared with, likewise")
    parser.add_argument("--mix", choices=list(MIXES), default=EVEN, help="how all skills are averaged")
    options = parser.parse_args(arguments)
    table = compare(options.folder, options.method, options.other, options.mix)
    print(plain_table(["skill", "questions", "points", "95%", "p"], table))


if __name__ == "__main__":
    main()
