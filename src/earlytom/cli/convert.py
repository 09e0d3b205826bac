"""``earlytom convert``: a checkpoint in LLaVA's own layout, written so that it loads faster."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from earlytom.cli.display import output, print_json, status
from earlytom.cli.options import JsonOption

__all__ = ["convert"]


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Local folder or hub id of a checkpoint in LLaVA's own layout, such as lmms-lab/LLaVA-Video-7B-Qwen2.",
            show_default=False,
        ),
    ],
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help="Folder to write.", show_default=False)],
    pool_mode: Annotated[
        str | None,
        typer.Option(
            "--pool-mode",
            metavar="MODE",
            help="average, max or bilinear, instead of the checkpoint's own.",
            show_default=False,
        ),
    ] = None,
    newline_position: Annotated[
        str | None,
        typer.Option(
            "--newline-position",
            metavar="POSITION",
            help="grid, frame, one_token or no_token, instead of the checkpoint's own.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the checkpoint in a folder that holds one.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert a LLaVA-Video checkpoint from the layout that it was published in.

    Commands load that layout as it is; what this writes means the same and loads faster. The weights keep their values
    and their type. The destination is replaced once everything is written, or stays as it was.
    """
    from earlytom.models.llava_video.conversion import convert as write

    with status("converting"):
        done = write(source, destination, force=force, pool_mode=pool_mode, newline_position=newline_position)
    if as_json:
        print_json({"source": source, **dataclasses.asdict(done)})
        return
    console = output()
    console.print(f"Converted {source} to {destination}", soft_wrap=True)
    console.print(f"Weights: {done.parameters:,} in {done.dtype}, {done.bytes / 1e9:.2f} GB")
    console.print(f"Layers: {done.vision_layers} of the vision tower, {done.language_layers} of the language model")
    console.print(f"Frames: {done.tokens_per_frame} tokens each, {done.pool_mode} pooling")
    console.print(
        f"Prompt: {done.prompt_tokens} positions for {done.frames} frames, newlines included ({done.newline_position})"
    )
