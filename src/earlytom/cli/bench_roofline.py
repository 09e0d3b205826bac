"""``earlytom bench roofline``: how far each stage is from what the device can do."""

from __future__ import annotations

from typing import Annotated

import typer

from earlytom.cli import benching, choices, options
from earlytom.cli.bench_options import (
    ConfigOption,
    DtypeOption,
    MethodsOption,
    RepeatsOption,
    RetentionsOption,
    SeedOption,
    VideoOption,
    WarmUpsOption,
)
from earlytom.cli.bench_prompt import FolderOption, FrameCountOption, PromptChoice, open_prompt, tell
from earlytom.cli.display import progress, status

__all__ = ["roofline"]

DecodingOption = Annotated[
    int,
    typer.Option(
        "--decoding-steps",
        metavar="N",
        min=1,
        help="Tokens behind the first one, over which the time of a step is averaged.",
        rich_help_panel="Runs",
    ),
]


def roofline(
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
    repeats: RepeatsOption = 5,
    warm_ups: WarmUpsOption = 1,
    seed: SeedOption = 0,
    decoding_steps: DecodingOption = 8,
    folder: FolderOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Measure what the device can do at most, count what each stage does, and tell how far its time is from that.

    Ceilings are a large matrix product and a large copy. A stage's bound is the longer of its arithmetic and its bytes;
    docs/benchmark_device.md says what counts. The plain model is measured beside the methods (earlytom, if none is
    named).

    Examples:

      earlytom bench roofline

      earlytom bench roofline --config llava-onevision-7b --device cuda --output results
    """
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
    from earlytom.bench.ceilings import measure_ceilings
    from earlytom.bench.environment import machine_load
    from earlytom.bench.roofline import measure_rooflines, plain_results, roofline_tables
    from earlytom.runtime.devices import input_device

    with status("measuring the ceilings"):
        ceilings = measure_ceilings(input_device(prompt.model), next(prompt.model.parameters()).dtype)
    with progress() as bar:
        task = bar.add_task("", total=(repeats + warm_ups + 1) * len(prompt.methods))
        found = measure_rooflines(
            prompt.model,
            prompt.inputs,
            prompt.methods,
            ceilings,
            repeats=repeats,
            warm_ups=warm_ups,
            decoding_steps=decoding_steps,
            on_run=lambda name: bar.update(task, description=name, advance=1),
        )
    document = {
        **plain_results(found, ceilings),
        "environment": prompt.facts["environment"] | {"load_at_end": machine_load()},
        "settings": prompt.facts["settings"]
        | {"repeats": repeats, "warm_ups": warm_ups, "decoding_steps": decoding_steps},
        "model": prompt.facts["model"],
        "clip": prompt.facts["clip"],
    }
    tell("roofline", "Roofline", document, roofline_tables(document), folder=folder, as_json=as_json)
