"""One model, one prompt with a clip, and methods on it: what ``earlytom bench roofline`` and ``load`` measure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earlytom.cli import benching, choices, session
from earlytom.cli.display import drawn, note, output, print_json, status

if TYPE_CHECKING:
    import torch

    from earlytom.bench.tables import Table
    from earlytom.methods.base import Method
    from earlytom.runtime.pipeline import VideoQA
    from earlytom.video import Video

__all__ = ["BenchPrompt", "FolderOption", "FrameCountOption", "PromptChoice", "open_prompt", "tell"]

FrameCountOption = Annotated[
    int,
    typer.Option("--frames", metavar="N", min=1, help="Frames to sample, evenly spread.", rich_help_panel="Video"),
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Keep the results here, as JSON and as Markdown.",
        show_default=False,
        rich_help_panel="Results",
    ),
]


@dataclass(frozen=True, kw_only=True)
class PromptChoice:
    """What the options say.

    Attributes:
        config: an architecture with random weights, instead of ``model.path``.
        model: the model.
        methods: in the grammar of `earlytom.methods.parse_method`, as ``--methods`` has them; ``None``: EarlyTom.
        retention: shares to keep, as ``--retention`` has them.
        video: a file; ``None``: one is generated.
        frames: to sample.
        near: how far off they may be, see `earlytom.Sampling`.
        max_tokens: most visual tokens of the clip before it is compressed; ``None``: as many as its frames have.
        preset: for methods that have presets and name none.
        seed: of weights, made-up text and the generated video.
    """

    config: str | None
    model: choices.ModelChoice
    methods: list[str] | None
    retention: str
    video: Path | None
    frames: int
    near: float = 0.0
    max_tokens: int | None = None
    preset: str | None = None
    seed: int


@dataclass(frozen=True, kw_only=True)
class BenchPrompt:
    """A model, what it is asked, and who is compared.

    Attributes:
        model: the stock model.
        inputs: the processor's output, on the model's device.
        methods: by name, the plain model first.
        facts: ``environment``, ``settings``, ``model`` and ``clip``, as plain data for JSON.
    """

    model: torch.nn.Module
    inputs: Mapping[str, Any]
    methods: Mapping[str, Method]
    facts: Mapping[str, Any]


def open_prompt(choice: PromptChoice) -> BenchPrompt:
    """Make or load the model, read the clip, and prepare the prompt.

    Raises:
        typer.BadParameter: options contradict one another.
        EarlyTomError: the model, the video or a method cannot be had.
    """
    shares = choices.read_shares(choice.retention)
    if choice.config is not None and choice.model.path is not None:
        raise typer.BadParameter("cannot be given together with --model", param_hint="'--config'")
    benching.check_there(choice.video)
    from earlytom.bench.clips import ClipSettings, redundant_share
    from earlytom.bench.environment import describe_environment
    from earlytom.bench.whole import describe_clip
    from earlytom.eval.variants import make_variants, split_methods
    from earlytom.runtime.devices import input_device
    from earlytom.video import Sampling

    listed = benching.with_preset(split_methods(choice.methods or ["earlytom"]), choice.preset)
    make_variants(listed, shares)  # slips are told before a model is built
    qa, question = _asked_model(choice)
    attention = choice.model.attention or benching.attention_of(qa)
    with benching.open_clip(choice.video, ClipSettings(seed=choice.seed)) as clip, status("reading the video"):
        video = qa.read(str(clip.path), Sampling(frames=choice.frames, near=choice.near))
        inputs = qa.prepare_inputs(video, question, max_tokens=choice.max_tokens)
        facts = {
            "environment": describe_environment(input_device(qa.model)),
            "settings": _settings(choice, qa.model, attention),
            "model": benching.describe_opened(qa, choice.config, choice.model.path, choice.seed),
            "clip": describe_clip(clip, redundant_share(video.frames)) | _entering(qa.model, inputs) | _off(video),
        }
    methods = _methods(qa.model, listed, shares, attention, choice.frames)
    return BenchPrompt(model=qa.model, inputs=inputs, methods=methods, facts=facts)


def _asked_model(choice: PromptChoice) -> tuple[VideoQA, str]:
    """The model, and what it is asked."""
    from earlytom.bench.processors import made_up_question

    if choice.config is None:
        return session.load_model(choice.model), benching.QUESTION
    qa = benching.build_configured(choice.config, choice.model, choice.seed)
    return qa, made_up_question(choice.seed)


def _settings(choice: PromptChoice, model: torch.nn.Module, attention: str) -> dict[str, Any]:
    named = ("frames", "near", "max_tokens", "preset", "seed")
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return {"dtype": dtype, "attention": attention, **{name: getattr(choice, name) for name in named}}


def _entering(model: torch.nn.Module, inputs: Mapping[str, Any]) -> dict[str, int]:
    """What of the clip goes into the model, which a budget of tokens or a short video can make less than was asked."""
    from earlytom.models import open_model

    call = open_model(model).open(inputs)
    grids = () if call is None else call.grids
    return {
        "temporal_grids": sum(grid.temporal_grids for grid in grids),
        "visual_tokens": sum(grid.tokens for grid in grids),
    }


def _off(video: Video) -> dict[str, Any]:
    """How far frames are from those asked for, in seconds; ``None`` where these were read."""
    off = [abs(seconds) for seconds in video.deviations]
    told = {"mean": round(sum(off) / len(off), 4), "largest": round(max(off), 4)} if off else None
    return {"deviation": told}


def tell(
    name: str, title: str, document: Mapping[str, Any], tables: Sequence[Table], *, folder: Path | None, as_json: bool
) -> None:
    """Show results, and keep them where a folder is given.

    Args:
        name: of the files, without their endings.
        title: of the Markdown page.
        document: everything, for JSON.
        tables: for people.
        folder: ``--output``.
        as_json: ``--json``.
    """
    facts = _facts(document)
    if as_json:
        print_json(document)
    else:
        console = output()
        for line in facts:
            console.print(line, soft_wrap=True)
        for made in tables:
            console.print(drawn(made))
    if folder is None:
        return
    lines = "\n".join(f"- {line}" for line in (*facts, f"command: `{document['environment']['command']}`"))
    page = "\n\n".join([f"# {title}", lines, *(made.to_markdown() for made in tables)]) + "\n"
    written = benching.write_texts(folder, {f"{name}.json": json.dumps(document, indent=2) + "\n", f"{name}.md": page})
    if not as_json:
        output().print(f"Written: {', '.join(map(str, written))}", soft_wrap=True)


def _methods(
    model: torch.nn.Module, listed: list[str], shares: list[float], attention: str, frames: int
) -> dict[str, Method]:
    from earlytom.bench.subjects import make_subjects
    from earlytom.eval.variants import make_variants
    from earlytom.models import open_model
    from earlytom.runtime.plans import Plans

    host = open_model(model)
    variants, left_out = make_variants(listed, shares, lambda method: Plans.of(method, host))
    for text in left_out:
        note(text)
    subjects = make_subjects([(variant.label, variant.method) for variant in variants], [frames], attention)
    return {subject.name: subject.method for subject in subjects if subject.attention == attention}


def _facts(document: Mapping[str, Any]) -> list[str]:
    model, clip, settings, environment = (document[key] for key in ("model", "clip", "settings", "environment"))
    return [
        f"model: {model['name']} ({model['weights']})",
        f"device: {environment['device']}, {settings['dtype']}, {settings['attention']}",
        f"clip: {clip['name']}, {settings['frames']} frames, {clip['visual_tokens']} visual tokens in "
        f"{clip['temporal_grids']} temporal grids",
        f"load: {environment['load_at_start']} at the start, {environment['load_at_end']} at the end",
    ]
