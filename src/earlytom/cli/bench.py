"""``earlytom bench``: time, memory and work of methods, at true sizes, without weights where wanted."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earlytom.cli import choices, options, session
from earlytom.cli.display import drawn, note, output, print_json, progress, status
from earlytom.errors import EarlyTomError, VideoError, shortened, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from earlytom.bench.clips import ClipSettings
    from earlytom.bench.results import BenchResults
    from earlytom.bench.subjects import Subject
    from earlytom.bench.whole import Clip
    from earlytom.methods.base import Method
    from earlytom.runtime.pipeline import VideoQA

__all__ = [
    "QUESTION",
    "attention_of",
    "bench",
    "build_configured",
    "describe_opened",
    "open_clip",
    "with_preset",
    "write_texts",
]

_RUNS, _OUTPUT = "Runs", "Results"
QUESTION = "What happens in this video, and in which order? Describe it in a few sentences."
_RESULTS, _REPORT = "bench.json", "bench.md"

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="NAME",
        help="Instead of --model: an architecture at its published size with random weights: llava-onevision-7b, "
        "llava-onevision-0.5b, llava-video-7b, qwen2.5-vl-7b, qwen3-vl-8b or tiny. Nothing is downloaded; text tokens "
        "are made up.",
        show_default=False,
        rich_help_panel="Model",
    ),
]
DtypeOption = Annotated[
    options.DtypeName,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="float32, bfloat16, float16, or auto: the checkpoint's on CUDA (bfloat16 with --config), float32 on CPU.",
        rich_help_panel="Model",
    ),
]
MethodsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--methods",
        metavar="METHODS",
        help="Methods to measure beside the plain model, separated by commas; may be given several times. Options as "
        "in 'earlytom methods'. Without it: earlytom,visionzip,holitom.",
        show_default=False,
        rich_help_panel="Method",
    ),
]
RetentionsOption = Annotated[
    str,
    typer.Option(
        "--retention",
        metavar="SHARES",
        help="Shares of the visual tokens to keep, separated by commas, for every method that does not name its own.",
        rich_help_panel="Method",
    ),
]
VideoOption = Annotated[
    Path | None,
    typer.Option(
        "--video",
        metavar="FILE",
        help="The video to look at. Without it: a generated one with cuts, static stretches and motion.",
        show_default=False,
        rich_help_panel="Video",
    ),
]
RedundantOption = Annotated[
    float | None,
    typer.Option(
        "--redundant",
        metavar="SHARE",
        help="Of the generated video: the share of its time in which it stands still. Without it: 0.5.",
        show_default=False,
        rich_help_panel="Video",
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="WxH",
        help="Of the generated video: its pixels. Without it: 1280x720.",
        show_default=False,
        rich_help_panel="Video",
    ),
]
SecondsOption = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        metavar="S",
        help="Of the generated video: its length. Without it: 60.",
        show_default=False,
        rich_help_panel="Video",
    ),
]
FramesOption = Annotated[
    str,
    typer.Option("--frames", metavar="N", help="Numbers of frames, separated by commas.", rich_help_panel="Video"),
]
RepeatsOption = Annotated[
    int, typer.Option("--repeats", metavar="N", min=1, help="Rounds that count.", rich_help_panel=_RUNS)
]
WarmUpsOption = Annotated[
    int, typer.Option("--warm-ups", metavar="N", min=0, help="Rounds before them.", rich_help_panel=_RUNS)
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", metavar="S", min=0, help="Of weights, made-up text and the generated video.", rich_help_panel=_RUNS
    ),
]
NewTokensOption = Annotated[
    int, typer.Option("--new-tokens", metavar="N", min=1, help="Tokens of every answer.", rich_help_panel=_RUNS)
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help=f"Keep {_RESULTS} and {_REPORT} here.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]


def bench(
    context: typer.Context,
    methods: MethodsOption = None,
    retention: RetentionsOption = "0.1,0.15,0.2,0.25",
    preset: options.PresetOption = None,
    video: VideoOption = None,
    redundant: RedundantOption = None,
    size: SizeOption = None,
    seconds: SecondsOption = None,
    frames: FramesOption = "32",
    config: ConfigOption = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: DtypeOption = options.DtypeName.auto,
    attention: options.AttentionOption = None,
    repeats: RepeatsOption = 5,
    warm_ups: WarmUpsOption = 1,
    seed: SeedOption = 0,
    new_tokens: NewTokensOption = 16,
    folder: FolderOption = None,
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
    from earlytom.bench.processors import made_up_question
    from earlytom.eval.variants import make_variants, split_methods

    texts = split_methods(methods or ["earlytom,visionzip,holitom"])
    listed, shares = with_preset(texts, preset), choices.read_shares(retention)
    counts = choices.read_counts(frames, "--frames")
    make_variants(listed, shares)  # slips are told before a model is built
    generated = _generated(video, redundant, size, seconds, seed)
    choice = choices.ModelChoice(path=model, device=device, dtype=dtype, attention=attention)
    qa = session.load_model(choice) if config is None else build_configured(config, choice, seed)
    implementation = attention or attention_of(qa)
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
    }
    question = QUESTION if config is None else made_up_question(seed)
    with open_clip(video, generated) as clip:
        described = describe_opened(qa, config, model, seed)
        found = _measure(qa, clip, subjects, question, settings, described)
    for entry in found.left_out:
        note(f"left out: {entry['name']}, {entry['frames']} frames: {entry['reason']}")
    _tell(found, folder, as_json=as_json)


def attention_of(qa: VideoQA) -> str:
    """The attention implementation that a model runs with."""
    config: Any = qa.model.config
    return config._attn_implementation or "eager"


def describe_opened(qa: VideoQA, config: str | None, model: str | None, seed: int) -> dict[str, Any]:
    """A model that ``--config`` or ``--model`` asked for, as plain data for JSON."""
    from earlytom.bench.whole import describe_model

    if config is not None:
        return describe_model(qa.model, config, f"random, seed {seed}")
    # A folder's place is nobody's business.
    name = "the test model" if model is None else Path(model).name if Path(model).exists() else model
    return describe_model(qa.model, name, "checkpoint")


def with_preset(texts: list[str], preset: str | None) -> list[str]:
    """The methods, with the preset for those that have presets and name none."""
    return texts if preset is None else [_preset_added(text, preset) for text in texts]


def _preset_added(text: str, preset: str) -> str:
    from earlytom.methods import parse_method
    from earlytom.methods.grammar import written_option

    method = parse_method(text)
    takes = any(hasattr(part, "preset") for part in _parts(method))
    if not takes or written_option(text, "preset") is not None:
        return text
    last = text.rpartition("+")[2]
    return f"{text}{',' if ':' in last else ':'}preset={preset}"


def _parts(method: Method) -> list[Method]:
    """A method, and the methods that it was put together from."""
    stages = (getattr(method, stage, None) for stage in ("encoder", "tokens", "llm"))
    return [method, *(part for part in stages if part is not None)]


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
    if video is not None and not video.is_file():
        raise VideoError(f"{shortened(video)}: no such file")
    given: dict[str, Any] = {"redundant_share": redundant, "seconds": seconds} | _size(size)
    return ClipSettings(seed=seed, **{name: value for name, value in given.items() if value is not None})


def _size(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"must be two numbers joined by x, got {shown(text)}", param_hint="'--size'")
    return {"width": int(width), "height": int(height)}


def build_configured(config: str, choice: choices.ModelChoice, seed: int) -> VideoQA:
    """An architecture with random weights."""
    from earlytom.bench.configurations import build_video_qa, find_configuration

    find_configuration(config)
    with status(f"making {config}"):
        import torch

        from earlytom.runtime.loading import find_device, find_dtype

        device = find_device(choice.device)
        usual = torch.bfloat16 if device.type == "cuda" else torch.float32
        dtype = find_dtype(choice.dtype.value) or usual
        return build_video_qa(config, device=device, dtype=dtype, attention=choice.attention or "sdpa", seed=seed)


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


@contextmanager
def open_clip(video: Path | None, settings: ClipSettings) -> Iterator[Clip]:
    """The video that was given, or a made one that is gone afterwards."""
    from tempfile import TemporaryDirectory

    from earlytom.bench.clips import write_clip
    from earlytom.bench.whole import Clip

    if video is not None:
        yield Clip(path=video)
        return
    with TemporaryDirectory(prefix="earlytom-") as folder:
        path = Path(folder) / "generated.mp4"
        with status("making a video"):
            write_clip(path, settings)
        yield Clip(path=path, made=settings)


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


def _tell(found: BenchResults, folder: Path | None, *, as_json: bool) -> None:
    from earlytom.bench.report import NOTES, facts, tables

    document = found.to_dict()
    if as_json:
        print_json(document)
    else:
        console = output()
        for name, value in facts(found):
            console.print(f"{name}: {value}", soft_wrap=True)
        for made in tables(found):
            console.print(drawn(made))
        console.print(NOTES)
    if folder is not None:
        written = _write(found, folder)
        if not as_json:
            output().print(f"Written: {', '.join(map(str, written))}", soft_wrap=True)


def _write(found: BenchResults, folder: Path) -> list[Path]:
    from earlytom.bench.report import to_markdown

    return write_texts(folder, {_RESULTS: json.dumps(found.to_dict(), indent=2) + "\n", _REPORT: to_markdown(found)})


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write files into a folder, which is made where it is missing. Raises `EarlyTomError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise EarlyTomError(f"{shortened(folder)}: cannot be written: {error.strerror or error}") from error
    return [folder / name for name in texts]
