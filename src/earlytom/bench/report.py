"""Results of a benchmark as tables and as a Markdown document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from earlytom.bench.results import PARTS_OF_MEMORY, BenchResults, Result
from earlytom.bench.tables import Table

__all__ = ["NOTES", "facts", "tables", "to_markdown"]

NOTES = (
    "Times are medians in milliseconds, all subjects in turns in one process; brackets: quartiles. TTFT is from pixels "
    "on the device to the first token, split as the paper splits it: the encoder's own layers; scores, merging, "
    "projector, pooling, selection and assembly; the language model; the rest. The wait is to the first token from a "
    "file that is neither open nor in the system's cache; file open: from one that has been opened. Speed-ups are over "
    "the plain model with sdpa, of the same frames; where that could not run, they tell what they are over. Memory is "
    "the peak above what was in use before the call. FLOPs are counted on what really ran, two for each multiply-add; "
    "the paper's are those of its own accounting."
)
_TERA, _MIB = 1e12, 2**20
_MISSING = "-"


def tables(found: BenchResults) -> list[Table]:
    """All tables, those that have anything to tell: times, wait, tokens, memory and work."""
    return [
        _time_table(found),
        _wait_table(found),
        _decoding_table(found),
        _token_table(found.results),
        _memory_table(found.results),
        _work_table(found.results),
    ]


def facts(found: BenchResults) -> list[tuple[str, str]]:
    """What was measured on, in words."""
    model, clip, environment = found.model, found.clip, found.environment
    size = f", {model['parameters'] / 1e9:.3g} B parameters" if model.get("parameters") else ""
    settings = found.settings
    return [
        ("model", f"{model['name']} ({model['weights']}{size})"),
        ("device", f"{environment['device']}, {settings['dtype']}, {settings['attention']}"),
        ("clip", f"{clip['name']}, {_clip_words(clip)}"),
        ("runs", f"{settings['repeats']} of each in turns, after {settings['warm_ups']} warm-up(s)"),
        ("load", f"{environment['load_at_start']} at the start, {environment['load_at_end']} at the end"),
    ]


def to_markdown(found: BenchResults) -> str:
    """The whole document."""
    lines = [f"- {name}: {value}" for name, value in (*facts(found), ("command", f"`{found.environment['command']}`"))]
    left_out = [f"- left out: {entry['name']}, {entry['frames']} frames: {entry['reason']}" for entry in found.left_out]
    parts = ["# Time, memory and work", "\n".join([*lines, *left_out]), NOTES]
    return "\n\n".join([*parts, *(table.to_markdown() for table in tables(found))]) + "\n"


def _clip_words(clip: Mapping[str, object]) -> str:
    share = clip.get("redundant_share")
    measured = f"{share:.0%} of the sampled frames nearly repeat the one before" if isinstance(share, float) else ""
    asked = clip.get("redundant_share_asked")
    return measured + (f" ({asked:.0%} of its time stands still)" if isinstance(asked, float) else "")


def _table(title: str, results: Sequence[Result], columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    """A table with a subject's name and frames in front."""
    rows = [(result.name, _frames(result), *row) for result, row in zip(results, cells, strict=True)]
    every = ("", "frames", *columns)
    return Table(title=title, columns=every, right=every[1:], cells=tuple(rows))


def _frames(result: Result) -> str:
    return str(result.frames) if result.asked == result.frames else f"{result.frames} of {result.asked} asked for"


def _time_table(found: BenchResults) -> Table:
    names = ("vision_encoding", "token_processing", "prefill", "overhead")
    columns = ("TTFT (ms)", "quartiles", "speed-up", *(name.replace("_", " ") for name in names))
    cells = [
        (
            _number(result.median("ttft")),
            _quartiles(result, "ttft"),
            _speed_up(found.reference(result.asked), result, "ttft"),
            *(_number(result.median(name)) for name in names),
        )
        for result in found.results
    ]
    return _table("Time to first token", found.results, columns, cells)


def _wait_table(found: BenchResults) -> Table:
    names = ("open", "decode", "preprocess", "to_device")
    columns = ("wait (ms)", "quartiles", "speed-up", "file open (ms)", *(name.replace("_", " ") for name in names))
    cells = [
        (
            _number(result.median("wait")),
            _quartiles(result, "wait"),
            _speed_up(found.reference(result.asked), result, "wait"),
            _number(result.median("wait_open")),
            *(_number(result.median(name)) for name in names),
        )
        for result in found.results
    ]
    return _table("The wait from the file to the first token", found.results, columns, cells)


def _decoding_table(found: BenchResults) -> Table:
    columns = ("generate (ms)", "tokens/s after the first", "new tokens/s")
    cells = [
        (
            _number(result.median("generate")),
            _MISSING if result.tokens_per_second is None else f"{result.tokens_per_second.median:.2f}",
            _MISSING if result.throughput is None else f"{result.throughput.median:.2f}",
        )
        for result in found.results
    ]
    return _table(f"{found.settings['new_tokens']} new tokens", found.results, columns, cells)


def _token_table(results: Sequence[Result]) -> Table:
    columns = ("temporal grids", "left behind layers", "visual tokens", "prefill", "a layer")
    cells = [
        (
            str(result.tokens.temporal_grids),
            ", ".join(f"{left} ({layer})" for layer, left in result.tokens.grids_after.items()) or _MISSING,
            f"{result.tokens.visual} of {result.tokens.uncompressed}",
            str(result.tokens.prefill),
            f"{result.tokens.average_per_layer:.4g}",
        )
        for result in results
    ]
    return _table("Tokens", results, columns, cells)


def _memory_table(results: Sequence[Result]) -> Table:
    names = (*PARTS_OF_MEMORY, "all")
    cells = [[_scaled(result.peak_bytes.get(name), _MIB, ".1f") for name in names] for result in results]
    return _table("Peak memory (MiB)", results, [name.replace("_", " ") for name in names], cells)


def _work_table(results: Sequence[Result]) -> Table:
    columns = ("TFLOP", "encoder", "projection", "decisions", "prefill", "paper's", "operations", "waits")
    cells = []
    for result in results:
        flops = result.flops
        names = ("total", "encoder", "projection", "decisions", "prefill")
        counted = [None if flops is None else getattr(flops, name) for name in names]
        paper = None if flops is None or flops.paper is None else flops.paper["total"]
        cells.append([
            *(_scaled(value, _TERA, ".4g") for value in (*counted, paper)),
            *(_MISSING if value is None else str(value) for value in (result.operations, result.waits)),
        ])  # fmt: skip
    return _table("Work up to the first token", results, columns, cells)


def _number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.1f}"


def _scaled(value: float | None, unit: float, form: str) -> str:
    return _MISSING if value is None else format(value / unit, form)


def _quartiles(result: Result, name: str) -> str:
    found = result.milliseconds.get(name)
    return _MISSING if found is None or len(found.values) < 2 else f"[{found.lower:.1f}, {found.upper:.1f}]"


def _speed_up(reference: Result | None, result: Result, name: str) -> str:
    before, after = None if reference is None else reference.median(name), result.median(name)
    if reference is None or not before or not after:
        return _MISSING
    over = "" if reference.attention == "sdpa" else f" over {reference.name}"
    return f"{before / after:.2f}x{over}"
