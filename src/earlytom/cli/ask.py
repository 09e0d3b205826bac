"""``earlytom ask``: answer a question about a video."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earlytom.cli import choices, options
from earlytom.cli.compare import compare_methods, comparison_table
from earlytom.cli.display import frame_counts, note, on_terminal, output, print_json, progress, status, timing
from earlytom.cli.session import TTFT_SCOPE, Session, describe_device, open_session

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.runtime.pipeline import Answer

__all__ = ["ask"]


def ask(
    video: options.VideoArgument,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask, in quotes.", show_default=False)],
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = options.DtypeName.auto,
    attention: options.AttentionOption = None,
    method: options.MethodOption = "earlytom",
    retention: options.RetentionOption = None,
    visual_tokens: options.VisualTokensOption = None,
    preset: options.PresetOption = None,
    frames: options.FramesOption = None,
    fps: options.FpsOption = None,
    max_frames: options.MaxFramesOption = None,
    max_tokens: options.MaxTokensOption = None,
    spacing: options.SpacingOption = options.SpacingName.by_index,
    near: options.NearOption = 0.0,
    decoder: options.DecoderOption = options.DecoderName.pyav,
    max_pixels: options.MaxPixelsOption = None,
    max_bytes: options.MaxBytesOption = None,
    shrink_to: options.ShrinkOption = None,
    damage_tolerance: options.DamageOption = 0.0,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", metavar="N", min=1, help="Longest answer, in tokens.")
    ] = 64,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run without compression as well, and show both side by side.")
    ] = False,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", min=1, help="Measured runs of each, with --compare.")
    ] = 3,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Answer a QUESTION about a VIDEO.

    The answer goes to stdout, what it cost to stderr.

    Examples:

      earlytom ask clip.mp4 "What happens?" --model llava-hf/llava-onevision-qwen2-7b-ov-hf

      earlytom ask clip.mp4 "What happens?" --retention 0.1 --compare

      earlytom ask clip.mp4 "What happens?" --method earlytom:tau_seg=0.5,merge_layers=6/14/20 --json

      earlytom ask film.mp4 "What happens?" --model path/to/qwen2.5-vl --fps 2 --max-frames 768 --max-tokens 23000
    """
    _check_combination(stream=stream, compare=compare, as_json=as_json)
    chosen = choices.build_method(method, retention, preset, visual_tokens)
    if compare and chosen.name == "none":
        raise typer.BadParameter("needs a --method other than none", param_hint="'--compare'")
    limits = (max_pixels, max_bytes, shrink_to)
    clip = choices.choose_clip(
        video,
        frames,
        fps,
        max_frames,
        decoder,
        *limits,
        spacing=spacing,
        damage_tolerance=damage_tolerance,
        near=near,
    )
    choice = choices.ModelChoice(path=model, device=device, dtype=dtype, attention=attention)
    session = open_session(choice, clip)
    for text in session.notes:
        note(text)
    if compare:
        document = _compare(session, question, chosen, repeats, max_new_tokens, max_tokens, show=not as_json)
    else:
        document = _answer(session, question, chosen, max_new_tokens, max_tokens, stream=stream, show=not as_json)
    if as_json:
        head = {"video": str(video), "model": model or "shipped", "device": describe_device(session.qa)}
        print_json(head | document | {"notes": list(session.notes)})


def _check_combination(*, stream: bool, compare: bool, as_json: bool) -> None:
    if stream and (compare or as_json):
        other = "--compare" if compare else "--json"
        raise typer.BadParameter(f"cannot be given together with {other}", param_hint="'--stream'")


def _answer(
    session: Session,
    question: str,
    method: Method,
    max_new_tokens: int,
    max_tokens: int | None,
    *,
    stream: bool,
    show: bool,
) -> dict[str, Any]:
    with nullcontext() if stream else status("answering"):
        answer = session.qa.ask(
            session.video,
            question,
            method=method,
            on_text=_write if stream else None,
            max_new_tokens=max_new_tokens,
            max_tokens=max_tokens,
        )
    if show:
        _write("\n" if stream else answer.text + "\n")
        timing(_cost(answer, describe_device(session.qa)))
    return {"question": question, "method": method.describe(), **answer.to_dict(), "ttft_scope": TTFT_SCOPE}


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _cost(answer: Answer, device: str) -> str:
    kept, whole = answer.visual_tokens, answer.visual_tokens_uncompressed
    line = (
        f"{frame_counts(answer)}, {kept} of {whole} visual tokens ({kept / whole:.1%}), "
        f"prefill {answer.prefill_tokens} tokens, first run: TTFT {answer.ttft * 1000:.0f} ms "
        f"[{device}]. Use --compare for warmed-up times."
    )
    reasons = [clip.stepped_aside for clip in answer.trace.videos if clip.stepped_aside]
    return line + "".join(f"\nleft uncompressed: {reason}" for reason in reasons)


def _compare(
    session: Session,
    question: str,
    method: Method,
    repeats: int,
    max_new_tokens: int,
    max_tokens: int | None,
    *,
    show: bool,
) -> dict[str, Any]:
    with progress() as bar:
        task = bar.add_task("running", total=2 * (repeats + 1))
        comparison = compare_methods(
            session.qa,
            session.video,
            question,
            method,
            repeats=repeats,
            max_new_tokens=max_new_tokens,
            max_tokens=max_tokens,
            on_run=lambda: bar.advance(task),
        )
    if show:
        console = output()
        console.print(comparison_table(comparison))
        warmed = f"Runs took turns in one process after one warm-up each, on {describe_device(session.qa)}."
        console.print(f"{TTFT_SCOPE} {warmed}", style="dim" if on_terminal() else None)
    return {**comparison.to_dict(), "repeats": repeats, "ttft_scope": TTFT_SCOPE}
