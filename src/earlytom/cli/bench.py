"""``earlytom bench``: time, memory and work of methods, at true sizes, without weights where wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from earlytom.cli import bench_options as own
from earlytom.cli import benching, choices, options, session
from earlytom.cli.display import can_draw, drawn, note, output, print_json, progress
from earlytom.errors import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from earlytom.bench.clips import ClipSettings
    from earlytom.bench.results import BenchResults
    from earlytom.bench.subjects import Subject
    from earlytom.bench.whole import Clip
    from earlytom.runtime.pipeline import VideoQA

__all__ = ["bench"]

_RESULTS, _REPORT = "bench.json", "bench.md"


def bench(
    context: typer.Context,
    methods: own.MethodsOption = None,
    retention: own.RetentionsOption = "0.1,0.15,0.2,0.25",
    preset: options.PresetOption = None,
    video: own.VideoOption = None,
    redundant: own.RedundantOption = None,
    size: own.SizeOption = None,
    seconds: own.SecondsOption = None,
    frames: own.FramesOption = "32",
    near: options.NearOption = 0.0,
    max_tokens: options.MaxTokensOption = None,
    config: own.ConfigOption = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: own.DtypeOption = options.DtypeName.auto,
    attention: options.AttentionOption = None,
    repeats: own.RepeatsOption = 5,
    warm_ups: own.WarmUpsOption = 1,
    seed: own.SeedOption = 0,
    new_tokens: own.NewTokensOption = 16,
    folder: own.FolderOption = None,
    accuracy: own.AccuracyOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Measure what compression saves: the time to the first token and its parts, the whole wait from the file,
    decoding, memory, tokens, launches and FLOPs.

    All methods and the plain model (with sdpa and with eager attention) run in turns in one process, so that a machine
    that gets slower favours none. docs/benchmark.md says what each figure is.

    Examples:

      earlytom bench

      earlytom bench --config llava-onevision-7b --frames 32 --output results

      earlytom bench --config qwen2.5-vl-7b --methods earlytom --retention 0.15 --frames 64,256 --video talk.mp4

      earlytom bench --model llava-hf/llava-onevision-qwen2-7b-ov-hf --preset paper --json
    """
    if context.invoked_subcommand is not None:
        return
    if config is not None and model is not None:
        raise typer.BadParameter("cannot be given together with --model", param_hint="'--config'")
    from earlytom.bench.configurations import find_configuration
    from earlytom.bench.processors import made_up_question
    from earlytom.eval.variants import make_variants, split_methods

    texts = split_methods(methods or ["earlytom,visionzip,holitom"])
    listed, shares = benching.with_preset(texts, preset), choices.read_shares(retention)
    counts = choices.read_counts(frames, "--frames")
    make_variants(listed, shares)  # slips are told before a model is built
    known = {} if accuracy is None else _accuracies(accuracy)
    drawable = folder is not None and can_draw("the measurement will be written, its plots will not")
    generated = _generated(video, redundant, size, seconds, seed)
    choice = choices.ModelChoice(path=model, device=device, dtype=dtype, attention=attention)
    if config is not None:
        find_configuration(config)
    benching.make_folder(folder)
    qa = session.load_model(choice) if config is None else benching.build_configured(config, choice, seed)
    implementation = attention or benching.attention_of(qa)
    subjects, left_out = _subjects(qa, listed, shares, counts, implementation)
    for text in left_out:
        note(text)
    settings = {
        "dtype": str(next(qa.model.parameters()).dtype).removeprefix("torch."),
        "attention": implementation,
        "preset": preset,
        "repeats": repeats,
        "warm_ups": warm_ups,
        "seed": seed,
        "new_tokens": new_tokens,
        "retentions": shares,
        "methods": texts,
        "frames": counts,
        "near": near,
        "max_tokens": max_tokens,
    }
    question = benching.QUESTION if config is None else made_up_question(seed)
    with benching.open_clip(video, generated) as clip:
        described = benching.describe_opened(qa, config, model, seed)
        found = _measure(qa, clip, subjects, question, settings, described)
    for entry in found.left_out:
        note(f"left out: {entry['name']}, {entry['frames']} frames: {entry['reason']}")
    _tell(found, as_json=as_json)
    if folder is not None:
        written = _write(found, folder, known, drawable=drawable)
        if not as_json:
            output().print(f"Written: {', '.join(map(str, written))}", soft_wrap=True)


def _generated(
    video: Path | None, redundant: float | None, size: str | None, seconds: float | None, seed: int
) -> ClipSettings:
    """Settings of the video that is made where none is given.

    Raises:
        typer.BadParameter: some are given beside a video, or a size that is none.
        VideoError: there is no such file.
        EarlyTomError: a value is out of range.
    """
    from earlytom.bench.clips import ClipSettings

    for flag, value in {"--redundant": redundant, "--size": size, "--seconds": seconds}.items():
        if video is not None and value is not None:
            raise typer.BadParameter("is of the generated video; leave --video out", param_hint=f"'{flag}'")
    benching.check_there(video)
    given: dict[str, Any] = {"redundant_share": redundant, "seconds": seconds} | _size(size)
    return ClipSettings(seed=seed, **{name: value for name, value in given.items() if value is not None})


def _size(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"must be two numbers joined by x, got {shown(text)}", param_hint="'--size'")
    return {"width": int(width), "height": int(height)}


def _subjects(
    qa: VideoQA, methods: list[str], shares: list[float], counts: list[int], attention: str
) -> tuple[list[Subject], list[str]]:
    """Who is measured, and what was left out since the model does not take it, in words."""
    from earlytom.bench.subjects import make_subjects
    from earlytom.eval.variants import make_variants
    from earlytom.models import open_model
    from earlytom.runtime.plans import Plans

    host = open_model(qa.model)
    variants, left_out = make_variants(methods, shares, lambda method: Plans.of(method, host))
    return make_subjects([(variant.label, variant.method) for variant in variants], counts, attention), left_out


def _measure(
    qa: VideoQA, clip: Clip, subjects: list[Subject], question: str, settings: dict[str, Any], model: dict[str, Any]
) -> BenchResults:
    from earlytom.bench.running import steps_of
    from earlytom.bench.whole import measure_whole

    with progress() as bar:
        task = bar.add_task("", total=steps_of(subjects, settings["repeats"], settings["warm_ups"]))

        def on_run(name: str) -> None:
            bar.update(task, description=name, advance=1)

        return measure_whole(qa, clip, subjects, question=question, settings=settings, model=model, on_run=on_run)


def _tell(found: BenchResults, *, as_json: bool) -> None:
    from earlytom.bench.report import NOTES, facts, tables

    if as_json:
        print_json(found.to_dict())
        return
    console = output()
    for name, value in facts(found):
        console.print(f"{name}: {value}", soft_wrap=True)
    for made in tables(found):
        console.print(drawn(made))
    console.print(NOTES)


def _write(
    found: BenchResults, folder: Path, known: Mapping[tuple[str, float | None], float], *, drawable: bool
) -> list[Path]:
    from earlytom.bench.plots import write_plots
    from earlytom.bench.report import to_markdown

    document = found.to_dict()
    texts = {_RESULTS: json.dumps(document, indent=2) + "\n", _REPORT: to_markdown(found)}
    written = benching.write_texts(folder, texts)
    if not drawable:
        return written
    matched = {result.name: known.get((result.label, result.retention)) for result in found.results}
    return written + write_plots(
        document | {"results": _one_of_equal_frames(document["results"])},
        folder,
        {name: value for name, value in matched.items() if value is not None},
    )


def _one_of_equal_frames(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results, each at its number of frames; of numbers that a short clip or a budget made the same, the first."""
    chosen: dict[tuple[int, str], dict[str, Any]] = {}
    for result in results:
        chosen.setdefault((result["frames"], result["name"]), result)
    return list(chosen.values())


def _accuracies(path: Path) -> dict[tuple[str, float | None], float]:
    """Percent by method and retention, over all skills and forms, of an evaluation's rows.

    Raises:
        EarlyTomError: the file cannot be read, or holds something else.
    """
    from earlytom.eval.rows import ALL, ANY, read_rows

    chosen = [row for row in read_rows(path) if (row.skill, row.form) == (ALL, ANY)]
    # The plain model keeps everything in the one, and has no share in the other.
    return {(row.method, None if row.method == "none" else row.retention): 100 * row.accuracy for row in chosen}
