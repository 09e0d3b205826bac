"""The page that `gpu.py` writes for people: goals, steps, and tables of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from earlytom.bench.load import load_table
from earlytom.bench.roofline import roofline_tables
from earlytom.bench.tables import Table

if TYPE_CHECKING:
    from gpu import Record

_STAGES = ("vision_encoding", "token_processing", "prefill", "overhead")


def page(
    environment: Mapping[str, Any],
    records: Sequence[Record],
    goals: str,
    results: Mapping[str, Mapping[str, Any]],
    size: str,
) -> str:
    """The whole page, as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    parts = [
        "# Results on a GPU"
        if size == "full"
        else f"# Results at {size} sizes\n\nSmall stand-ins ran under the models' names, which says nothing of speed.",
        f"{environment['device']}; CUDA {environment['cuda']}; Python {environment['python']}, {versions}; commit "
        f"{environment['commit']}{' with changes' if environment['uncommitted_changes'] else ''}; "
        f"{environment['date']}.\n\n`{environment['command']}`\n\n"
        "Random weights, one generated clip; times are medians, and start where pixels and prompt are on the device.",
        "## Goals\n\n" + goals,
        "## Steps\n\n" + steps_table(records),
    ]
    for name, content in results.items():
        title = next(record.title for record in records if record.name == name)
        table = TABLES[name](content)
        parts.append(f"## {title}\n\n{table}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def steps_table(records: Sequence[Record]) -> str:
    rows = [[record.title, record.status, f"{record.seconds:.0f}", record.reason] for record in records]
    return markdown(["step", "", "s", "reason"], rows)


def methods_table(content: Mapping[str, Any]) -> str:
    """Times, speed-ups over the first method, tokens and memory."""
    base = content["results"][0]["milliseconds"]["ttft"]["median"]
    rows = []
    for result in content["results"]:
        times = {name: values["median"] for name, values in result["milliseconds"].items()}
        peak, tokens, speed = result["peak_bytes"]["all"], result.get("tokens", {}), result["tokens_per_second"]
        rows.append(
            [
                result["name"],
                f"{times['ttft']:.1f}",
                f"{base / times['ttft']:.2f}",
                *(f"{times[stage]:.2f}" if stage in times else "" for stage in _STAGES),
                f"{speed['median']:.1f}" if speed else "",
                "" if peak is None else f"{peak / 2**20:.0f}",
                str(tokens.get("visual", "")),
                ", ".join(f"{layer}: {grids}" for layer, grids in tokens.get("grids_after", {}).items()),
            ]
        )
    header = ["method", "TTFT ms", "x", *(stage.replace("_", " ") for stage in _STAGES), "tokens/s", "peak MiB"]
    text = markdown([*header, "visual tokens", "grids after layer"], rows)
    differences = content.get("published_differs")
    return text if not differences else f"{text}\nThe published way decides otherwise here: {differences}\n"


def tests_table(content: Mapping[str, Any]) -> str:
    """How many tests passed, and which were left out."""
    counts = ", ".join(f"{count} {name}" for name, count in content["counts"].items())
    left_out = "".join(f"\n- left out: {name} ({reason})" for name, reason in content["left_out"].items())
    return f"{counts}\n{left_out}\n"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without a title; the first column to the left."""
    made = Table(title="", columns=tuple(header), right=tuple(header[1:]), cells=tuple(map(tuple, rows)))
    return made.to_markdown().partition("\n\n")[2] + "\n"


def _under(tables: Sequence[Table]) -> str:
    """Tables below a heading of the page."""
    return "\n\n".join(f"#{table.to_markdown()}" for table in tables)


TABLES = {
    "tests": tests_table,
    "onevision": methods_table,
    "video": methods_table,
    "qwen": methods_table,
    "roofline": lambda content: _under(roofline_tables(content)),
    "load": lambda content: _under([load_table(content["results"])]),
}
