"""Options that ``earlytom bench`` and its relatives share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earlytom.cli import options

__all__ = [
    "OUTPUT",
    "RUNS",
    "AccuracyOption",
    "ConfigOption",
    "DtypeOption",
    "FolderOption",
    "FramesOption",
    "MethodsOption",
    "NewTokensOption",
    "RedundantOption",
    "RepeatsOption",
    "RetentionsOption",
    "SecondsOption",
    "SeedOption",
    "SizeOption",
    "VideoOption",
    "WarmUpsOption",
]

RUNS, OUTPUT = "Runs", "Results"

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
    int, typer.Option("--repeats", metavar="N", min=1, help="Rounds that count.", rich_help_panel=RUNS)
]
WarmUpsOption = Annotated[
    int, typer.Option("--warm-ups", metavar="N", min=0, help="Rounds before them.", rich_help_panel=RUNS)
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", metavar="S", min=0, help="Of weights, made-up text and the generated video.", rich_help_panel=RUNS
    ),
]
NewTokensOption = Annotated[
    int, typer.Option("--new-tokens", metavar="N", min=1, help="Tokens of every answer.", rich_help_panel=RUNS)
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Keep bench.json, bench.md and plots here.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
AccuracyOption = Annotated[
    Path | None,
    typer.Option(
        "--accuracy",
        metavar="FILE",
        help="rows.json of 'earlytom eval testbed': fills the marks of throughput.png with the accuracy of methods and "
        "retentions that are in both.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
