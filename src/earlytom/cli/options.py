"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["DecoderName", "DtypeName", "SpacingName"]


class DtypeName(StrEnum):
    """Floating-point types that a model can be loaded in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class DecoderName(StrEnum):
    """Video decoders."""

    pyav = "pyav"
    torchcodec = "torchcodec"


class SpacingName(StrEnum):
    """What frames are spread evenly over."""

    by_index = "index"
    by_time = "time"


_MODEL, _METHOD, _CLIP = "Model", "Method", "Video"

VideoArgument = Annotated[
    str,  # no Path, which would make one slash of the two in data: URLs, and of ./- standard input
    typer.Argument(
        metavar="VIDEO",
        help="Video file (mp4, mkv, webm ...), folder of frame files, or - for standard input.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Local folder or hub id of a checkpoint, such as llava-hf/llava-onevision-qwen2-7b-ov-hf. "
        "Without it: the test model that comes with the package.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MODEL)
]
DtypeOption = Annotated[
    DtypeName,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="float32, bfloat16, float16, or auto: the checkpoint's on CUDA, float32 on CPU.",
        rich_help_panel=_MODEL,
    ),
]
AttentionOption = Annotated[
    str | None,
    typer.Option(
        "--attention",
        metavar="NAME",
        help="Attention implementation: sdpa, eager or flash_attention_2. Without it: transformers' own choice.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="METHOD",
        help="Name and options, such as earlytom:tau_seg=0.5,merge_layers=6/14/20, or stages of several, such as "
        "earlytom+visionzip; none is the plain model. 'earlytom methods' lists all.",
        rich_help_panel=_METHOD,
    ),
]
RetentionOption = Annotated[
    float | None,
    typer.Option(
        "--retention",
        metavar="SHARE",
        help="Share of the visual tokens that are kept, above 0 and at most 1. Without it: the method's.",
        show_default=False,
        rich_help_panel=_METHOD,
    ),
]
VisualTokensOption = Annotated[
    int | None,
    typer.Option(
        "--visual-tokens",
        metavar="N",
        help="Instead of --retention: the number of visual tokens that are kept of the clip, which keeps all if it has "
        "fewer.",
        show_default=False,
        rich_help_panel=_METHOD,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Settings by name: fast, quality, paper, or the paper's for a benchmark, such as videomme ('earlytom "
        "methods earlytom' lists them). Without it: settings that need no tuning.",
        show_default=False,
        rich_help_panel=_METHOD,
    ),
]
FramesOption = Annotated[
    int | None,
    typer.Option(
        "--frames",
        metavar="N",
        min=1,
        help="Frames to sample, evenly spread. Without it: the model's own number.",
        show_default=False,
        rich_help_panel=_CLIP,
    ),
]
FpsOption = Annotated[
    float | None,
    typer.Option(
        "--fps",
        metavar="F",
        help="Frames to sample per second, instead of --frames.",
        show_default=False,
        rich_help_panel=_CLIP,
    ),
]
MaxFramesOption = Annotated[
    int | None,
    typer.Option(
        "--max-frames", metavar="N", min=1, help="Limit for --fps.", show_default=False, rich_help_panel=_CLIP
    ),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        metavar="N",
        min=1,
        help="Most visual tokens of the clip before it is compressed: pictures become smaller (Qwen models), or frames "
        "fewer. Without it: as many as the frames have.",
        show_default=False,
        rich_help_panel=_CLIP,
    ),
]
SpacingOption = Annotated[
    SpacingName,
    typer.Option(
        "--spacing",
        metavar="NAME",
        help="What frames are evenly spread over: index, as many frames of the file between them (the paper's), or "
        "time, as many seconds. It makes a difference where frames do not come evenly, as in screen recordings; by "
        "time, a frame that stands still is taken once, so that fewer than --frames may come out.",
        rich_help_panel=_CLIP,
    ),
]
NearOption = Annotated[
    float,
    typer.Option(
        "--near",
        metavar="SHARE",
        min=0.0,
        max=0.5,
        help="How far off a sampled frame may be, as a share of the distance to the next, where another costs less to "
        "decode. With 0: exactly the frames asked for.",
        rich_help_panel=_CLIP,
    ),
]
DecoderOption = Annotated[
    DecoderName,
    typer.Option("--decoder", metavar="NAME", help="pyav, or torchcodec where it is installed.", rich_help_panel=_CLIP),
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        metavar="N",
        min=1,
        help="Refuse pictures of more pixels. Without it: 67,108,864 (8192 x 8192).",
        show_default=False,
        rich_help_panel=_CLIP,
    ),
]
MaxBytesOption = Annotated[
    int | None,
    typer.Option(
        "--max-bytes",
        metavar="N",
        min=1,
        help="Refuse clips whose sampled frames take more bytes, 3 a pixel. Without it: 4 GiB.",
        show_default=False,
        rich_help_panel=_CLIP,
    ),
]
ShrinkOption = Annotated[
    int | None,
    typer.Option(
        "--shrink-to",
        metavar="N",
        min=1,
        help="Scale larger videos down to N pixels on the shorter side as they are decoded: less memory, pixels not "
        "quite those of the model's own resizing.",
        show_default=False,
        rich_help_panel=_CLIP,
    ),
]

DamageOption = Annotated[
    float,
    typer.Option(
        "--damage-tolerance",
        metavar="SHARE",
        min=0.0,
        max=1.0,
        help="Share of the video's frames that may be damaged; whole ones near them are taken. With 0, any damage met "
        "is an error.",
        rich_help_panel=_CLIP,
    ),
]
