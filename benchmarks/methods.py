"""What each method's own decisions cost: merging frames or tokens, selecting, and reducing in the language model.

``python benchmarks/methods.py --output benchmarks/results/methods_cpu.json``; see README.md for what is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from _harness import environment, interleave, summarise, write_json
from _method_references import disagreements
from _synthetic import Sizes, SyntheticClip, processing
from earlytom.bench.tables import plain_table
from earlytom.methods import METHODS, make_method

STAGES = ("merging", "selection", "language")
_COMPARED = "earlytom"


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 0 when it could report, 1 when a reference test is red."""
    options = _parse(arguments)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    if options.threads:
        torch.set_num_threads(options.threads)
    started = environment(device)
    failures = disagreements(device)
    if failures:
        print("a reference test is red, so there is nothing to report:", *failures, sep="\n  ", file=sys.stderr)
        return 1
    results = {}
    for sizes in options.sizes:
        clip = SyntheticClip(sizes, device, dtype)
        variants = {text: processing(clip, make_method(text), device) for text in options.methods}
        with torch.no_grad():
            runs = interleave(variants, variants, options.warmup, options.repeats, device)
        results[sizes.name] = {name: summarise(found) for name, found in runs.items()}
        print(report(sizes, results[sizes.name]), end="\n\n", flush=True)
    if options.output:
        content = {
            "benchmark": "methods",
            "environment": started,
            "options": {key: value for key, value in vars(options).items() if key not in ("output", "sizes")},
            "reference_tests": "passed",
            "results": results,
        }
        write_json(options.output, content)
    return 0


def report(sizes: Sizes, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of one size: medians in milliseconds, quartiles of the whole, tokens."""
    header = ["", *STAGES, "all", "quartiles", f"over {_COMPARED}", "tokens kept"]
    compared = results.get(_COMPARED)
    rows = []
    for name, result in results.items():
        total = result["total_ms"]
        rows.append([
            name, *(f"{result['stages_ms'][stage]['median']:.1f}" for stage in STAGES), f"{total['median']:.1f}",
            f"{total['lower_quartile']:.1f}-{total['upper_quartile']:.1f}",
            f"{total['median'] / compared['total_ms']['median']:.2f}x" if compared else "-",
            " > ".join(map(str, [result["visual_tokens"], *result["inside_the_language_model"]])),
        ])  # fmt: skip
    whole = sizes.grid.tokens
    return f"{sizes.name} tokens of width {sizes.width}, {whole} in all\n{plain_table(header, rows)}"


def _numbers(count: int) -> Callable[[str], tuple[int, ...]]:
    def read(text: str) -> tuple[int, ...]:
        parts = text.split("x")
        if len(parts) != count or not all(part.isdigit() and int(part) for part in parts):
            raise argparse.ArgumentTypeError(f"expected {count} numbers joined by x, got {text!r}")
        return tuple(map(int, parts))

    return read


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="with options if wanted (default: all)")
    parser.add_argument(
        "--clips", type=_numbers(3), nargs="+", metavar="FxRxC", default=[(32, 14, 14), (64, 13, 14)],
        help="frames, rows and columns of the clips (default: 32x14x14 64x13x14)",
    )  # fmt: skip
    parser.add_argument("--width", type=int, default=3584, help="of the tokens (default: 3584)")
    parser.add_argument(
        "--encoder", type=_numbers(2), metavar="SxW", default=(27, 1152),
        help="patches along a side, and width, inside the encoder (default: 27x1152)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="float32 on cpu, else bfloat16")
    parser.add_argument("--repeats", type=int, default=5, help="kept rounds (default: 5)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before them (default: 1)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--output", type=Path, help="write the results to this JSON file")
    options = parser.parse_args(arguments)
    options.dtype = options.dtype or ("float32" if torch.device(options.device).type == "cpu" else "bfloat16")
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    side, encoder_width = options.encoder
    options.sizes = [
        Sizes(frames=frames, rows=rows, columns=columns, width=options.width, side=side, encoder_width=encoder_width)
        for frames, rows, columns in options.clips
    ]
    return options


if __name__ == "__main__":
    sys.exit(main())
