"""Where each method breaks, as clips grow harder: accuracy on every series of clips of `earlytom eval testbed`.

``python benchmarks/harder.py --clips 100 --output results/harder`` asks about clips of every series
(docs/evaluation.md), with no compression and with every method at every retention, and prints accuracy, the difference
on the same questions in points, with 95% intervals, and in which skills a method breaks: where the whole interval lies
below -10 points. Writes ``harder.json`` and ``harder.md``. Records lie in a folder a series, as ``earlytom eval testbed
--clips-of SERIES`` fills it; a run that was stopped goes on, and a last call with more clips or methods, or with
another ``--mix``, adds to it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch

from _harness import Progress, environment, write_json
from earlytom.bench.tables import Table, plain_table
from earlytom.errors import MethodError
from earlytom.eval.answering import check_fit
from earlytom.eval.mixes import EVEN, MIXES
from earlytom.eval.rows import ALL, ANY, Row
from earlytom.eval.runner import evaluate
from earlytom.eval.tasks import Benchmark, Form, picture_size
from earlytom.eval.variants import BASELINE, Variant, make_variants, split_methods
from earlytom.runtime.pipeline import VideoQA
from earlytom.shipped import shipped_model
from earlytom.testbed.series import SERIES, find_series

METHODS = "earlytom,visionzip,holitom,tome,random"
BROKEN = -0.1
"""A method breaks in a skill where the upper end of its difference from no compression lies below this."""


def benchmark_of(name: str, qa: VideoQA, seed: int, form: Form) -> Benchmark:
    """The clips of a series, as ``earlytom eval testbed --clips-of`` takes them."""
    series = find_series(name)
    return Benchmark(
        seed=seed,
        source="frames",
        frames=series.frames(qa.default_frames),
        size=picture_size(qa.processor),
        skills=series.skills,
        form=form,
        clips_of=name,
    )


def accuracy_table(rows: Mapping[str, Sequence[Row]]) -> Table:
    """Over all skills of a series: accuracy of no compression and chance, then of every method, and what it changes."""
    found = {name: _overall(mine) for name, mine in rows.items()}
    plain = {name: mine[BASELINE, 1.0] for name, mine in found.items()}
    cells = [
        ("no compression (%)", "", *(f"{100 * plain[name].accuracy:.1f}" for name in rows)),
        ("chance (%)", "", *(f"{100 * plain[name].chance:.1f}" for name in rows)),
    ]
    for method, retention in _methods(rows):
        mine = (found[name].get((method, retention)) for name in rows)
        cells.append((method, _share(retention), *("-" if row is None else _cell(row) for row in mine)))
    columns = ("method", "retention", *rows)
    return Table(
        title="Accuracy, and points over no compression", columns=columns, right=columns[1:], cells=tuple(cells)
    )


def break_table(rows: Mapping[str, Sequence[Row]]) -> Table:
    """In which skills of a series a method loses more than ten points for sure, the worst first."""
    cells = []
    for method, retention in _methods(rows):
        broken = []
        for mine in rows.values():
            lost = [row for row in mine if (row.method, row.retention) == (method, retention) and _is_broken(row)]
            lost.sort(key=lambda row: row.difference or 0.0)
            broken.append(", ".join(f"{row.skill} {100 * (row.difference or 0.0):+.0f}" for row in lost) or "-")
        cells.append((method, _share(retention), *broken))
    columns = ("method", "retention", *rows)
    return Table(title="Breaks in", columns=columns, right=("retention",), cells=tuple(cells))


def _overall(rows: Sequence[Row]) -> dict[tuple[str, float | None], Row]:
    return {(row.method, row.retention): row for row in rows if (row.skill, row.form) == (ALL, ANY)}


def _methods(rows: Mapping[str, Sequence[Row]]) -> list[tuple[str, float | None]]:
    keys = dict.fromkeys((row.method, row.retention) for mine in rows.values() for row in mine)
    return [key for key in keys if key[0] != BASELINE]


def _is_broken(row: Row) -> bool:
    high = row.difference_high
    return row.form == ANY and row.skill != ALL and high is not None and high < BROKEN


def _cell(row: Row) -> str:
    low, value, high = (100 * (number or 0.0) for number in (row.difference_low, row.difference, row.difference_high))
    return f"{100 * row.accuracy:.1f}, {value:+.1f} [{low:.1f}, {high:.1f}]"


def _share(retention: float | None) -> str:
    return "-" if retention is None else f"{retention:g}"


def fitting(qa: VideoQA, methods: str, shares: Sequence[float]) -> list[Variant]:
    """No compression, and the methods that fit the model, at the retentions that they take; says what is left out."""
    found, _ = make_variants([], [])
    for method in split_methods([methods]):
        try:
            made, left_out = make_variants([method], shares, partial(check_fit, qa))
        except MethodError as error:
            made, left_out = [], [f"left out: {method}: {error}"]
        found += [variant for variant in made if not variant.is_baseline]
        print(*left_out, sep="\n", end="\n" if left_out else "", file=sys.stderr)
    return found


def measure(options: argparse.Namespace) -> dict[str, list[Row]]:
    """The rows of every series that was asked for."""
    qa = VideoQA.load(options.model, device=options.device)
    shares = [float(share) for share in options.retention.split(",")]
    variants = fitting(qa, options.methods, shares)
    found = {}
    for name in options.series.split(","):
        benchmark, progress = (
            benchmark_of(name, qa, options.seed, options.form),
            Progress(options.clips * len(variants)),
        )
        done = lambda name=name, progress=progress: progress.show(name)  # noqa: E731
        found[name] = evaluate(qa, benchmark, variants, options.clips, options.output / name, done, options.mix)
    return found


def write(folder: Path, rows: Mapping[str, Sequence[Row]], about: Mapping[str, Any]) -> None:
    """Rows and tables, with another mix than the even one under names of its own."""
    mix = str(about["mix"])
    stem = "harder" if mix == EVEN else f"harder_{mix}"
    plain = {name: [row.to_dict() for row in mine] for name, mine in rows.items()}
    write_json(folder / f"{stem}.json", {**about, "environment": environment(torch.device("cpu")), "rows": plain})
    heads = [f"- {name}: {SERIES[name].about}" for name in rows]
    tables = [accuracy_table(rows).to_markdown(), break_table(rows).to_markdown()]
    text = "\n\n".join(["# As clips grow harder", "\n".join(heads), *tables])
    (folder / f"{stem}.md").write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for records, harder.json and harder.md")
    parser.add_argument("--clips", type=int, default=100, help="clips of every series")
    parser.add_argument("--series", default=",".join(SERIES), help="which series, separated by commas")
    parser.add_argument("--methods", default=METHODS, help="methods, as --methods of earlytom eval testbed")
    parser.add_argument("--retention", default="0.25,0.1", help="shares of the visual tokens, separated by commas")
    parser.add_argument("--mix", choices=list(MIXES), default=EVEN, help="how all skills are averaged")
    parser.add_argument("--form", choices=["any", "free", "letters"], default="any", help="form of the questions")
    parser.add_argument("--seed", type=int, default=0, help="another number, other clips")
    parser.add_argument("--model", default=shipped_model(), help="a checkpoint; the test model if not given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows = measure(options)
    asked = ("clips", "seed", "form", "mix", "methods", "retention")
    write(options.output, rows, {name: getattr(options, name) for name in asked} | {"model": str(options.model)})
    for table in (accuracy_table(rows), break_table(rows)):
        print(f"\n{table.title}\n{plain_table(table.columns, table.cells)}")


if __name__ == "__main__":
    main()
