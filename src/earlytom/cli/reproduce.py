"""``earlytom reproduce``: the supplementary's figures, made here, each beside what the supplementary says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earlytom.cli import benching, choices, options, session
from earlytom.cli.bench_options import RepeatsOption, SeedOption, VideoOption
from earlytom.cli.display import drawn, note, output, progress, status

if TYPE_CHECKING:
    from earlytom.bench.reproduce import BarChart
    from earlytom.bench.results import BenchResults
    from earlytom.bench.subjects import Subject
    from earlytom.bench.whole import Clip
    from earlytom.runtime.pipeline import VideoQA

__all__ = ["figure6", "figure7", "figure8", "flops"]

FolderOption = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="Folder for the picture (SVG and PNG) and the text beside it."),
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="NAME",
        help="Another architecture than the figure's, as in 'earlytom bench'; tiny is for trying things out.",
        show_default=False,
        rich_help_panel="Model",
    ),
]
DtypeOption = Annotated[
    options.DtypeName,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="float32, bfloat16, float16, or auto: bfloat16 on CUDA, float32 on CPU.",
        rich_help_panel="Model",
    ),
]
FramesOption = Annotated[
    int, typer.Option("--frames", metavar="N", min=1, help="Frames to sample.", rich_help_panel="Video")
]


def figure6(
    videos: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[VIDEO]...", help="Videos. Without any: the sample videos.", show_default=False),
    ] = None,
    folder: FolderOption = Path("figure6"),
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = options.DtypeName.auto,
    attention: options.AttentionOption = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="METHOD",
            help="A method that looks at attention. Without it: EarlyTom without merging, so that all frames show.",
            rich_help_panel="Method",
        ),
    ] = "earlytom:frame_merging=false,ranked_by=attention",
    frames: options.FramesOption = None,
) -> None:
    """Draw the attention that tokens receive in several VIDEOS on one sheet.

    Columns that are bright in every frame are attention sinks. Without --model, the small test model looks at its own
    sample videos; its encoder has far fewer tokens than a real one.

    Example:

      earlytom reproduce figure6 a.mp4 b.mp4 --model llava-hf/llava-onevision-qwen2-7b-ov-hf --output sinks
    """
    from earlytom.bench.files import make_folder
    from earlytom.bench.reproduce import make_sheet
    from earlytom.shipped import sample_videos
    from earlytom.video import Sampling
    from earlytom.viz.inspect import check_matplotlib

    check_matplotlib()
    choices.build_method(method)
    chosen = videos or sample_videos()
    for path in chosen:
        benching.check_there(path)
    make_folder(folder)
    qa = session.load_model(choices.ModelChoice(path=model, device=device, dtype=dtype, attention=attention))
    sampling = None if frames is None else Sampling(frames=frames)
    with status("looking at the videos"):
        sheet = make_sheet(qa, chosen, folder, method=method, sampling=sampling)
    _tell(sheet.lines, sheet.files)


def figure7(
    folder: FolderOption = Path("figure7"),
    config: ConfigOption = None,
    device: options.DeviceOption = "auto",
    dtype: DtypeOption = options.DtypeName.auto,
    video: VideoOption = None,
    frames: FramesOption = 32,
    repeats: RepeatsOption = 5,
    seed: SeedOption = 0,
) -> None:
    """Measure the time to the first token of LLaVA-OneVision-7B and its parts, as in the supplementary's Figure 7.

    The model has its true size and random weights; nothing is downloaded. The paper's own numbers stand beside, in
    panels of their own.

    Example:

      earlytom reproduce figure7 --output figure7
    """
    _bars("figure7", folder, config, choices.ModelChoice(device=device, dtype=dtype), video, frames, repeats, seed)


def figure8(
    folder: FolderOption = Path("figure8"),
    config: ConfigOption = None,
    device: options.DeviceOption = "auto",
    dtype: DtypeOption = options.DtypeName.auto,
    video: VideoOption = None,
    frames: FramesOption = 32,
    repeats: RepeatsOption = 5,
    seed: SeedOption = 0,
) -> None:
    """Measure the time to the first token of LLaVA-OneVision-0.5B and its parts, as in the supplementary's Figure 8.

    As figure7 does for the larger model.

    Example:

      earlytom reproduce figure8 --device cpu --dtype bfloat16 --frames 16 --repeats 3
    """
    _bars("figure8", folder, config, choices.ModelChoice(device=device, dtype=dtype), video, frames, repeats, seed)


def flops(
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="NAME",
            help="One of the paper's models: llava-onevision-7b, llava-onevision-0.5b, llava-video-7b or "
            "qwen2.5-vl-7b. Without it: all.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the FLOPs of the paper's tables beside its own formula and true operations, with the differences.

    Shapes are counted, nothing is computed. Where frames merge in the encoder the paper does not tell how many are
    left: there stands what its figure leaves for the vision side. Of causal attention true operations count the half
    that is not masked, as 'earlytom bench' does. docs/reproduce.md says what the formula is.
    """
    from earlytom.bench.accounting import PAPER_MODELS
    from earlytom.bench.paper_clips import accounting_table

    for name in PAPER_MODELS if config is None else (config,):
        with status(f"counting {name}"):
            made = accounting_table(name)
        output().print(drawn(made))


def _bars(
    name: str,
    folder: Path,
    config: str | None,
    choice: choices.ModelChoice,
    video: Path | None,
    frames: int,
    repeats: int,
    seed: int,
) -> None:
    from earlytom.bench.clips import ClipSettings
    from earlytom.bench.configurations import find_configuration
    from earlytom.bench.files import make_folder
    from earlytom.bench.reproduce import BARS, bar_subjects, write_bars
    from earlytom.viz.inspect import check_matplotlib

    chart = BARS[name]
    check_matplotlib()
    benching.check_there(video)
    find_configuration(config or chart.model)
    make_folder(folder)
    qa = benching.build_configured(config or chart.model, choice, seed)
    subjects = bar_subjects(chart, frames=frames)
    with benching.open_clip(video, ClipSettings(seed=seed)) as clip:
        found = _measure(chart, config or chart.model, qa, clip, subjects, repeats=repeats, seed=seed)
    for entry in found.left_out:
        note(f"left out: {entry['name']}, {entry['frames']} frames: {entry['reason']}")
    table, lines, files = write_bars(chart, found, folder)
    output().print(drawn(table))
    _tell(lines, files)


def _measure(
    chart: BarChart, name: str, qa: VideoQA, clip: Clip, subjects: list[Subject], *, repeats: int, seed: int
) -> BenchResults:
    from earlytom.bench.processors import made_up_question
    from earlytom.bench.running import steps_of
    from earlytom.bench.whole import describe_model, measure_whole

    settings: dict[str, Any] = {
        "dtype": str(qa.model.dtype).removeprefix("torch."),
        "attention": "sdpa",
        "preset": None,
        "repeats": repeats,
        "warm_ups": 1,
        "seed": seed,
        "new_tokens": 1,
        "retentions": list(chart.retentions),
        "methods": list(dict.fromkeys(subject.label for subject in subjects if not subject.is_reference)),
        "frames": [subjects[0].frames],
    }
    model = describe_model(qa.model, name, f"random, seed {seed}")
    question = made_up_question(seed)
    with progress() as bar:
        task = bar.add_task("", total=steps_of(subjects, repeats, settings["warm_ups"]))
        return measure_whole(
            qa, clip, subjects, question=question, settings=settings, model=model,
            on_run=lambda running: bar.update(task, description=running, advance=1),
        )  # fmt: skip


def _tell(lines: list[str], files: list[Path]) -> None:
    console = output()
    for line in lines:
        console.print(line, soft_wrap=True)
    console.print(f"Written: {', '.join(map(str, files))}", soft_wrap=True)
