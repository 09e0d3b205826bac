"""``earlytom bench load``: requests a second and times to first token when many ask at once."""

from __future__ import annotations

from typing import Annotated

import typer

from earlytom.cli import benching, choices, options
from earlytom.cli.bench_options import (
    ConfigOption,
    DtypeOption,
    MethodsOption,
    NewTokensOption,
    RetentionsOption,
    SeedOption,
    VideoOption,
)
from earlytom.cli.bench_prompt import FolderOption, FrameCountOption, PromptChoice, open_prompt, tell
from earlytom.cli.display import progress

__all__ = ["load"]

CallersOption = Annotated[
    str,
    typer.Option(
        "--callers",
        metavar="NUMBERS",
        help="Callers at the same time, ascending, separated by commas.",
        rich_help_panel="Load",
    ),
]
RequestsOption = Annotated[
    int,
    typer.Option("--requests", metavar="N", min=1, help="Of each caller in a round.", rich_help_panel="Load"),
]
RoundsOption = Annotated[
    int, typer.Option("--rounds", metavar="N", min=1, help="Rounds at each number of callers.", rich_help_panel="Load")
]
TurnsOption = Annotated[
    bool,
    typer.Option(
        "--turns", help="Let one call compute at a time, as VideoQA does, not all at once.", rich_help_panel="Load"
    ),
]


def load(
    methods: MethodsOption = None,
    retention: RetentionsOption = "0.1",
    preset: options.PresetOption = None,
    video: VideoOption = None,
    frames: FrameCountOption = 32,
    near: options.NearOption = 0.0,
    max_tokens: options.MaxTokensOption = None,
    config: ConfigOption = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: DtypeOption = options.DtypeName.auto,
    attention: options.AttentionOption = None,
    callers: CallersOption = "1,2,4,8",
    requests: RequestsOption = 3,
    rounds: RoundsOption = 3,
    turns: TurnsOption = False,
    new_tokens: NewTokensOption = 16,
    seed: SeedOption = 0,
    folder: FolderOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Put one model under rising load, with and without compression: requests a second, and percentiles of the time to
    first token.

    Callers in threads ask again as soon as they have their answer. The plain model and the methods (earlytom, if none
    is named) take turns. docs/benchmark_device.md says more.

    Examples:

      earlytom bench load --callers 1,2

      earlytom bench load --config llava-onevision-7b --device cuda --callers 1,4,16 --output results
    """
    levels = choices.read_counts(callers, "--callers")
    if levels != sorted(set(levels)):
        raise typer.BadParameter(f"must be ascending, got {callers}", param_hint="'--callers'")
    choice = PromptChoice(
        config=config,
        model=choices.ModelChoice(path=model, device=device, dtype=dtype, attention=attention),
        methods=methods,
        retention=retention,
        video=video,
        frames=frames,
        near=near,
        max_tokens=max_tokens,
        preset=preset,
        seed=seed,
    )
    benching.make_folder(folder)
    prompt = open_prompt(choice)
    from earlytom.bench.environment import machine_load
    from earlytom.bench.load import SCHEMA, load_table, measure_load, model_callers

    variants = {
        name: model_callers(prompt.model, prompt.inputs, method, new_tokens=new_tokens, in_turns=turns)
        for name, method in prompt.methods.items()
    }
    with progress() as bar:
        task = bar.add_task("", total=(rounds * len(levels) + 1) * len(variants))
        found = measure_load(
            variants,
            levels=levels,
            requests=requests,
            rounds=rounds,
            on_round=lambda name, level: bar.update(task, description=f"{name}, {level} callers", advance=1),
        )
    document = {
        "schema": SCHEMA,
        "environment": prompt.facts["environment"] | {"load_at_end": machine_load()},
        "settings": prompt.facts["settings"]
        | {"callers": levels, "requests": requests, "rounds": rounds, "turns": turns, "new_tokens": new_tokens},
        "model": prompt.facts["model"],
        "clip": prompt.facts["clip"],
        "results": [level.to_dict() for level in found],
    }
    tell("load", "Load", document, [load_table(document["results"])], folder=folder, as_json=as_json)
