"""``earlytom eval``: what compression costs in answers, with intervals, and what it saves."""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earlytom.cli import choices, options, session
from earlytom.cli.display import can_draw, drawn, note, output, print_json, progress, status
from earlytom.errors import EarlyTomError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earlytom.eval.rows import Row
    from earlytom.eval.tasks import Benchmark
    from earlytom.eval.variants import Variant
    from earlytom.runtime.pipeline import VideoQA
    from earlytom.testbed.series import Series

__all__ = ["FormName", "SourceName", "evaluate_testbed"]

_CLIPS, _OUTPUT = "Clips and questions", "Results"
_USUAL_RETENTIONS = "0.25,0.10"


class SourceName(StrEnum):
    """How clips reach the model."""

    video = "video"
    frames = "frames"


class FormName(StrEnum):
    """Forms of questions."""

    any = "any"
    free = "free"
    letters = "letters"


MethodsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--methods",
        metavar="METHODS",
        help="Methods to compare with no compression, separated by commas; may be given several times. Options as in "
        "'earlytom methods': earlytom,earlytom:ema=0.5,max_window=4 are two methods. 'all' is every one that "
        "can run. Without it: earlytom.",
        show_default=False,
        rich_help_panel="Method",
    ),
]
RetentionsOption = Annotated[
    str | None,
    typer.Option(
        "--retention",
        metavar="SHARES",
        help="Shares of the visual tokens to keep, separated by commas, for every method that does not name its own; "
        f"one that a method refuses is left out. Without it: {_USUAL_RETENTIONS}.",
        show_default=False,
        rich_help_panel="Method",
    ),
]
VisualTokensOption = Annotated[
    str | None,
    typer.Option(
        "--visual-tokens",
        metavar="NUMBERS",
        help="Instead of --retention: numbers of visual tokens to keep of each clip, separated by commas.",
        show_default=False,
        rich_help_panel="Method",
    ),
]
ClipsOption = Annotated[
    int,
    typer.Option(
        "--clips",
        metavar="N",
        min=1,
        help="Clips, of about six free and four multiple choice questions each.",
        rich_help_panel=_CLIPS,
    ),
]
SeriesOption = Annotated[
    str,
    typer.Option(
        "--clips-of",
        metavar="SERIES",
        help="What the clips are like: usual, or harder: scenes (more of them), long and longer (32 and 64 frames), "
        "events (brief ones in still scenes), small (objects), lettering (marks like text). Without --skills each asks "
        "for those that the test models have at it.",
        rich_help_panel=_CLIPS,
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", metavar="S", min=0, help="Another number, other clips.", rich_help_panel=_CLIPS)
]
SkillsOption = Annotated[
    str | None,
    typer.Option(
        "--skills",
        metavar="SKILLS",
        help="Ask for these only, separated by commas: colour, shape, direction, count, order, brief, position. "
        "Without it: all.",
        show_default=False,
        rich_help_panel=_CLIPS,
    ),
]
MixOption = Annotated[
    str,
    typer.Option(
        "--mix",
        metavar="NAME",
        help="How accuracy over all skills averages them: even, or benchmarks, as the paper's benchmarks ask (most for "
        "what there is, less for motion and place). Answers do not depend on it: a last call with --output of a run "
        "that is done makes its report with another mix, under names of its own.",
        rich_help_panel=_OUTPUT,
    ),
]
ControlsOption = Annotated[
    bool,
    typer.Option(
        "--controls/--no-controls",
        help="Also run random tokens, uniform subsampling and average pooling at every retention.",
        rich_help_panel="Method",
    ),
]
FormOption = Annotated[
    FormName,
    typer.Option(
        "--form", help="Ask for free answers, for letters (multiple choice), or both.", rich_help_panel=_CLIPS
    ),
]
SourceOption = Annotated[
    SourceName,
    typer.Option(
        "--source",
        help="video: every clip goes through an H.264 file and its decoder; frames: the same pictures without that.",
        rich_help_panel=_CLIPS,
    ),
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Keep records, rows.json, report.md and the plots (accuracy, ttft and front, PNG and SVG) here. A stopped "
        "run goes on where it was; several runs with the same settings may share it.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]


def evaluate_testbed(
    methods: MethodsOption = None,
    retention: RetentionsOption = None,
    visual_tokens: VisualTokensOption = None,
    controls: ControlsOption = True,
    clips: ClipsOption = 100,
    clips_of: SeriesOption = "usual",
    seed: SeedOption = 0,
    skills: SkillsOption = None,
    form: FormOption = FormName.any,
    source: SourceOption = SourceName.video,
    frames: options.FramesOption = None,
    max_tokens: options.MaxTokensOption = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = options.DtypeName.auto,
    attention: options.AttentionOption = None,
    folder: FolderOption = None,
    mix: MixOption = "even",
    as_json: options.JsonOption = False,
) -> None:
    """Ask a model about generated clips, with and without compression.

    The clips come from seeds that training never used, so every answer is known. Every method is compared, on the same
    questions, with no compression (method none, always run) and with as many tokens at random: accuracy in each skill
    with a 95% interval, both differences with theirs, McNemar's p, the visual tokens and frames that are left, and the
    time to the first token. Runs with one seed give the same rows, times aside.

    Examples:

      earlytom eval testbed

      earlytom eval testbed --methods all --retention 0.25,0.10,0.05 --clips 200 --output results

      earlytom eval testbed --methods earlytom,earlytom:compat=official --skills brief,order --json

      earlytom eval testbed --methods earlytom,visionzip --visual-tokens 128,64

      earlytom eval testbed --methods all --clips 200 --output results --mix benchmarks

      earlytom eval testbed --model llava-hf/llava-onevision-qwen2-7b-ov-hf --form letters --output results
    """
    from earlytom.eval.variants import CONTROLS, make_variants, split_methods

    series = _series(clips_of)
    listed, wanted = split_methods(methods or ["earlytom"]), _skills(skills, series.skills)
    shares, numbers = _amounts(retention, visual_tokens)
    _check_mix(mix)
    make_variants(listed, shares, visual_tokens=numbers)  # slips are told before a model is loaded
    drawable = folder is None or can_draw("rows and report will be written, the plot will not")
    choice = choices.ModelChoice(path=model, device=device, dtype=dtype, attention=attention)
    qa = session.load_model(choice)

    from earlytom.eval.answering import check_fit
    from earlytom.eval.tasks import Benchmark, picture_size

    with status("trying the methods"):
        fits = partial(check_fit, qa, max_tokens=max_tokens)
        extra = CONTROLS if controls else ()
        variants, left_out = make_variants(listed, shares, fits, controls=extra, visual_tokens=numbers)
    for text in left_out:
        note(text)
    benchmark = Benchmark(
        seed=seed,
        source=source.value,
        frames=frames or series.frames(qa.default_frames),
        size=picture_size(qa.processor),
        skills=wanted,
        form=form.value,
        max_tokens=max_tokens,
        clips_of=clips_of,
    )
    with _place(folder) as place:
        rows = _run(qa, benchmark, variants, clips, place, mix)
    about = _about(benchmark, clips, model, session.describe_device(qa), mix)
    if as_json:
        print_json([row.to_dict() for row in rows])
    else:
        _show(rows, about)
    if folder is not None:
        _write(folder, rows, about, drawable=drawable, show=not as_json)


def _amounts(retention: str | None, visual_tokens: str | None) -> tuple[list[float], list[int]]:
    """The retentions, or the numbers of tokens, that methods are run at."""
    if visual_tokens is None:
        return choices.read_shares(_USUAL_RETENTIONS if retention is None else retention), []
    if retention is not None:
        raise typer.BadParameter("cannot be given together with --retention", param_hint="'--visual-tokens'")
    return [], choices.read_counts(visual_tokens, "--visual-tokens")


def _skills(text: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    from earlytom.testbed.questions import SKILLS

    if text is None:
        return usual
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [skill for skill in wanted if skill not in SKILLS]
    if unknown or not wanted:
        raise typer.BadParameter(f"must be some of {', '.join(SKILLS)}, got {shown(text)}", param_hint="'--skills'")
    return tuple(skill for skill in SKILLS if skill in wanted)


def _series(name: str) -> Series:
    from earlytom.testbed.series import find_series

    with _told_of("--clips-of"):
        return find_series(name)


def _check_mix(mix: str) -> None:
    from earlytom.eval.mixes import check_mix

    with _told_of("--mix"):
        check_mix(mix)


@contextmanager
def _told_of(option: str) -> Iterator[None]:
    """Tell what is wrong with the value of an option as other slips on the command line are told."""
    try:
        yield
    except EarlyTomError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{option}'") from error


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    """Where records go: the folder that was asked for, or one that is gone afterwards."""
    from tempfile import TemporaryDirectory

    if folder is not None:
        yield folder
        return
    with TemporaryDirectory(prefix="earlytom-") as passing:
        yield Path(passing)


def _run(qa: VideoQA, benchmark: Benchmark, variants: list[Variant], clips: int, folder: Path, mix: str) -> list[Row]:
    from earlytom.eval.runner import evaluate

    with progress() as bar:
        task = bar.add_task(f"{clips} clips, {len(variants)} methods", total=clips * len(variants))
        return evaluate(qa, benchmark, variants, clips, folder, on_done=lambda: bar.advance(task), mix=mix)


def _about(benchmark: Benchmark, clips: int, model: str | None, device: str, mix: str) -> list[tuple[str, str]]:
    from earlytom.eval.mixes import EVEN, describe_mix
    from earlytom.testbed.series import USUAL

    drawn = "through H.264 files" if benchmark.source == "video" else "straight from the generator"
    series = "" if benchmark.clips_of == USUAL else f"series {benchmark.clips_of}, "
    which = f"{clips} clips of {series}seed {benchmark.seed}"
    return [
        ("model", model or "the test model that comes with the package"),
        ("device", device),
        ("data", f"{which}, {drawn}, {benchmark.frames} frames each{_limit(benchmark)}"),
        *([] if mix == EVEN else [("mix", describe_mix(mix))]),
    ]


def _limit(benchmark: Benchmark) -> str:
    return "" if benchmark.max_tokens is None else f", at most {benchmark.max_tokens} visual tokens before compression"


def _show(rows: list[Row], about: list[tuple[str, str]]) -> None:
    from earlytom.eval.report import form_table, notes, skill_table, summary_table

    console = output()
    for name, value in about:
        console.print(f"{name}: {value}", soft_wrap=True)
    for made in (summary_table(rows), skill_table(rows), form_table(rows)):
        if made is not None:
            console.print(drawn(made))
    console.print(f"{notes(rows)} {session.TTFT_SCOPE}")


def _write(folder: Path, rows: list[Row], about: list[tuple[str, str]], *, drawable: bool, show: bool) -> None:
    from earlytom.eval.report import write_report

    written = [*write_report(folder, rows, about)]
    if drawable:
        from earlytom.eval.plot import write_plots

        written += write_plots(folder, rows, about)
    if show:
        output().print(f"Written: {', '.join(map(str, written))}", soft_wrap=True)
