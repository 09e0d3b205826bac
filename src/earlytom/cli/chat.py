"""``earlytom chat``: a conversation about a video, which is encoded once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from earlytom.cli import choices, options
from earlytom.cli.chatting import Chat
from earlytom.cli.display import note
from earlytom.cli.session import open_session

__all__ = ["chat"]


def chat(
    video: options.VideoArgument,
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
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="System prompt.", show_default=False)
    ] = None,
    max_history: Annotated[
        int | None,
        typer.Option(
            "--max-history",
            metavar="N",
            min=0,
            help="How many past questions stand before the next one. Without it: all.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line for every answer.")] = False,
) -> None:
    """Talk about a VIDEO: it is encoded once, and every question knows what was said before.

    Questions are read from stdin, one a line; answers go to stdout, what they cost to stderr. A line that begins with a
    slash is a command: /video PATH and /method METHOD begin anew with another one, /save FILE writes the conversation
    for VideoQA.load_session, /quit ends. Where stdin is no terminal, the first error ends the command.

    Examples:

      earlytom chat film.mp4 --model llava-hf/llava-onevision-qwen2-7b-ov-hf --retention 0.1

      earlytom chat film.mp4 --json < questions.txt
    """
    if video == "-":
        raise typer.BadParameter("cannot be -: questions are read from standard input", param_hint="'VIDEO'")
    limits = (max_pixels, max_bytes, shrink_to)
    clip = choices.choose_clip(
        video, frames, fps, max_frames, decoder, *limits, spacing=spacing, damage_tolerance=damage_tolerance, near=near
    )
    chosen = choices.build_method(method, retention, preset, visual_tokens)
    loaded = open_session(choices.ModelChoice(path=model, device=device, dtype=dtype, attention=attention), clip)
    for text in loaded.notes:
        note(text)
    talk = Chat(
        qa=loaded.qa,
        clip=clip,
        video=loaded.video,
        method=chosen,
        opening={"system": system, "max_history": max_history, "max_tokens": max_tokens},
        max_new_tokens=max_new_tokens,
        as_json=as_json,
        interactive=sys.stdin.isatty(),
    )
    talk.run(sys.stdin)
