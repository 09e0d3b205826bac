"""Is the default of EarlyTom well placed? Accuracy over encoder time: the default, the presets, a sweep, and others'
token selection behind EarlyTom's merging.

Every setting answers questions of the test benchmark (`earlytom eval testbed`, another seed), and its encoder is timed
on the same clips, in turn with all others. The front are the settings that no other one beats in both. Writes
``tuning.json`` and ``tuning.png`` to ``--output``; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch

from _harness import Progress, environment, write_json
from earlytom import EarlyTom, Method, parse_method
from earlytom.bench.tables import plain_table
from earlytom.eval.answering import ModelAnswerer
from earlytom.eval.records import claim_folder
from earlytom.eval.rows import ALL, ANY, Row
from earlytom.eval.runner import run, run_settings
from earlytom.eval.summary import summarise
from earlytom.eval.tasks import Benchmark, Task, make_task
from earlytom.eval.variants import Variant
from earlytom.methods.presets import EVERYDAY, PAPER_ROWS, PRESETS, WITHOUT_PRESET, preset_names, scale_layers
from earlytom.models import open_model
from earlytom.runtime.pipeline import VideoQA
from earlytom.shipped import shipped_model
from earlytom.types import EncoderShape

SEED = 77
# In the shipped model's encoder neighbouring frames have similarities of 0.84 to 1: everything up to 0.8 merges alike.
THRESHOLDS: tuple[float | None, ...] = (None, 0.9, 0.95, 0.98)
# Who selects tokens from the frames that EarlyTom leaves.
SELECTIONS = ("visionzip", "holitom", "prunevid", "fastvid:scores=received", "uniform")
# Of a 26-layer encoder, carried over to the model's; the first three merge early.
LAYERS = ((1, 6, 13), (3, 10, 16), (6, 14, 20), (10, 16, 20), (16, 20, 23), (13,))
EARLY_LAYERS = LAYERS[:3]
LEAST_FRAMES = (0.5, 0.6, 0.7, 0.8, 0.9)
DUPLICATES = (0.95, 0.97, 0.99, 1.0)


def settings(retention: float, encoder: EncoderShape) -> dict[str, Method]:
    """Every setting by name; equal ones once, under the first name."""
    found: dict[str, Method] = {"none": parse_method("none")}
    found["default"] = EarlyTom(retention=retention)
    found["no frame merging"] = EarlyTom(retention=retention, frame_merging=False)
    # The rows for the 0.5B model differ in the first layer alone; MVBench's are the preset `paper`.
    for name in (name for name in preset_names() if not name.endswith("-0.5b") and name != PAPER_ROWS):
        if name in PRESETS and retention not in PRESETS[name]:
            continue
        found[f"preset {name}"] = EarlyTom(retention=retention, preset=name)
    for name in SELECTIONS:
        found[f"selection {name}"] = parse_method(f"earlytom+{name}", {"retention": retention})
    for layers in (scale_layers(layers, encoder) for layers in LAYERS):
        for threshold in THRESHOLDS:
            name = f"tau {'none' if threshold is None else threshold}, layers {'/'.join(map(str, layers))}"
            found[name] = EarlyTom(retention=retention, tau_seg=threshold, merge_layers=layers, least_frames=0.0)
    named = [WITHOUT_PRESET["default"], *EVERYDAY.values()]
    taken = {(scale_layers(preset.merge_layers, encoder), preset.least_frames) for preset in named}
    for layers in (scale_layers(layers, encoder) for layers in EARLY_LAYERS):
        for least in LEAST_FRAMES:
            if (layers, least) in taken:
                continue
            name = f"least frames {least}, layers {'/'.join(map(str, layers))}"
            found[name] = EarlyTom(retention=retention, merge_layers=layers, least_frames=least)
    for similarity in DUPLICATES:
        found[f"duplicates from {similarity}"] = EarlyTom(retention=retention, duplicate_similarity=similarity)
    unique: dict[str, str] = {}
    for name, method in found.items():
        unique.setdefault(method.describe(), name)
    return {name: found[name] for name in unique.values()}


def encoder_times(qa: VideoQA, methods: dict[str, Method], tasks: list[Task]) -> dict[str, list[float]]:
    """Milliseconds in the vision encoder, merging included, of one clip after another; settings take turns."""
    progress = Progress(len(tasks))
    times: dict[str, list[float]] = {name: [] for name in methods}
    names = list(methods)
    for number, task in enumerate(tasks):
        progress.show(f"encoder times, clip {number + 1}")
        for name in names[number % len(names) :] + names[: number % len(names)]:
            answer = qa.ask(task.video, task.questions[0].text, method=methods[name], max_new_tokens=1)
            times[name].append(answer.trace.calls[-1].milliseconds["encoder"])
    progress.close()
    return times


def front(points: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the settings that no other setting beats in accuracy and encoder time together."""
    return [
        name
        for name, point in points.items()
        if not any(
            other["accuracy"] >= point["accuracy"]
            and other["encoder_ms"] <= point["encoder_ms"]
            and (other["accuracy"], -other["encoder_ms"]) != (point["accuracy"], -point["encoder_ms"])
            for other in points.values()
        )
    ]


def draw(measured: dict[float, dict[str, dict[str, Any]]], path: Path) -> None:
    """Draw accuracy over encoder time, one panel a retention."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5 * len(measured), 6.5), layout="constrained")
    panels = figure.subplots(1, len(measured), squeeze=False)[0]
    for axes, (retention, points) in zip(panels, measured.items(), strict=True):
        _draw_panel(axes, points)
        axes.set(
            title=f"{retention:.0%} of the visual tokens",
            xlabel="vision encoder, milliseconds (median)",
            ylabel="accuracy over all skills",
        )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


def _draw_panel(axes: Any, points: dict[str, dict[str, Any]]) -> None:
    groups = {
        "sweep of threshold and layers": "tau",
        "sweep of the least share of frames": "least",
        "sweep of what is a duplicate": "duplicates",
        "others' selection": "selection",
        "presets": "preset",
        "default": "default",
        "no frame merging": "no frame",
        "none": "none",
    }
    for label, start in groups.items():
        chosen = {name: point for name, point in points.items() if name.startswith(start)}
        low = [point["accuracy"] - point["low"] for point in chosen.values()]
        high = [point["high"] - point["accuracy"] for point in chosen.values()]
        special = label in ("default", "none", "no frame merging", "presets")
        axes.errorbar(
            [point["encoder_ms"] for point in chosen.values()],
            [point["accuracy"] for point in chosen.values()],
            yerr=[low, high] if special else None,
            fmt="*" if label == "default" else "o",
            markersize=16 if label == "default" else 6,
            capsize=3,
            label=label,
            zorder=3 if special else 2,
        )
    ordered = sorted((points[name]["encoder_ms"], points[name]["accuracy"]) for name in front(points))
    axes.plot(*zip(*ordered, strict=True), color="grey", linewidth=1, zorder=1, label="front")
    axes.grid(alpha=0.3)
    for name in ("preset fast", "preset quality", "preset paper"):
        point = points.get(name)
        if point is not None:
            place = (point["encoder_ms"], point["accuracy"])
            axes.annotate(name.removeprefix("preset "), place, (6, -10), textcoords="offset points", fontsize=8)


def measure(qa: VideoQA, retention: float, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Answer and time with every setting."""
    benchmark = Benchmark(seed=SEED, source="frames")
    methods = settings(retention, open_model(qa.model).shape)
    claim_folder(options.output, run_settings(qa, benchmark))
    variants = {name: Variant(method=method) for name, method in methods.items()}
    answerers = {variant: ModelAnswerer(qa, variant.method) for variant in variants.values()}
    progress = Progress(options.clips * len(variants))
    shown = f"questions at {retention:.0%}"
    records = run(benchmark, options.clips, answerers, options.output, lambda: progress.show(shown))
    progress.close()
    rows: dict[str, Row] = {
        f"{row.method}|{row.retention}": row for row in summarise(records) if (row.skill, row.form) == (ALL, ANY)
    }
    tasks = [task for clip in range(options.timed_clips) if (task := make_task(benchmark, clip)) is not None]
    encoder_times(qa, methods, tasks[:2])
    times = encoder_times(qa, methods, tasks)
    points = {}
    for name, variant in variants.items():
        row = rows[f"{variant.label}|{variant.retention}"]
        points[name] = {
            "method": variant.spec,
            "accuracy": row.accuracy,
            "low": row.low,
            "high": row.high,
            "questions": row.n,
            "frames_left": row.frames_left,
            "encoder_ms": round(statistics.median(times[name]), 3),
        }
    return points


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for tuning.json, tuning.png and the records")
    parser.add_argument("--model", default=str(shipped_model()), help="checkpoint (default: the shipped one)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--retention", type=float, nargs="+", default=[0.25, 0.10], help="retentions, one panel each")
    parser.add_argument("--clips", type=int, default=100, help="clips to ask about (about nine questions each)")
    parser.add_argument("--timed-clips", type=int, default=20, help="clips to time the encoder on")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    qa = VideoQA.load(options.model, device=options.device)
    measured = {retention: measure(qa, retention, options) for retention in options.retention}
    for retention, points in measured.items():
        print(f"{retention:.0%} of the visual tokens")
        print(plain_table(["setting", "accuracy", "encoder ms", "frames left", "front"], _lines(points)))
    content = {
        "environment": environment(next(qa.model.parameters()).device),
        "results": [
            {"retention": retention, "front": front(points), "points": points} for retention, points in measured.items()
        ],
    }
    write_json(options.output / "tuning.json", content)
    draw(measured, options.output / "tuning.png")


def _lines(points: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Rows of the printed table, by rising encoder time."""
    best = front(points)
    return [
        [
            name,
            f"{point['accuracy']:.3f}",
            f"{point['encoder_ms']:.1f}",
            f"{point['frames_left']:.1f}",
            "*" * (name in best),
        ]
        for name, point in sorted(points.items(), key=lambda item: item[1]["encoder_ms"])
    ]


if __name__ == "__main__":
    main()
