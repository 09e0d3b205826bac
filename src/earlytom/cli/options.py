"""Options that several commands share, and the values they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earlytom.errors import shown
from earlytom.methods import parse_method
from earlytom.methods.grammar import written_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from earlytom.methods.base import Method
    from earlytom.video import Decoder, Limits, Sampling, Spacing

__all__ = [
    "Clip",
    "DecoderName",
    "DtypeName",
    "ModelChoice",
    "SpacingName",
    "build_method",
    "choose_clip",
    "read_counts",
    "read_shares",
]


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
        "methods earlytom' lists them). Without it: the threshold is chosen from the clip.",
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


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model, and how it is loaded. ``path=None``: the shipped one."""

    path: str | None = None
    device: str = "auto"
    dtype: DtypeName = DtypeName.auto
    attention: str | None = None


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Which video, and which of its frames.

    ``sampling=None``: as many as the model likes, spread over ``spacing``, others taken as ``near`` allows.
    """

    source: str
    sampling: Sampling | None
    decoder: Decoder
    limits: Limits
    spacing: Spacing = "index"
    damage_tolerance: float = 0.0
    near: float = 0.0

    @property
    def path(self) -> Path:
        """The video as a file."""
        return Path(self.source)

    def sampling_for(self, frames: int) -> Sampling:
        """Which frames, where the model likes so many."""
        from earlytom.video import Sampling

        return self.sampling or Sampling(frames=frames, spacing=self.spacing, near=self.near)


def choose_clip(
    source: str | Path,
    frames: int | None,
    fps: float | None,
    max_frames: int | None,
    decoder: DecoderName,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
    shrink_to: int | None = None,
    *,
    spacing: SpacingName = SpacingName.by_index,
    damage_tolerance: float = 0.0,
    near: float = 0.0,
) -> Clip:
    """The clip that the options ask for.

    Raises:
        typer.BadParameter: options that exclude one another.
        VideoError: a value is out of range.
    """
    from earlytom.video import Limits, Sampling

    if frames is not None and fps is not None:
        raise typer.BadParameter("cannot be given together with --frames", param_hint="'--fps'")
    if max_frames is not None and fps is None:
        raise typer.BadParameter("is a limit for --fps, which is missing", param_hint="'--max-frames'")
    sampling = None
    if fps is not None:
        sampling = Sampling(fps=fps, max_frames=max_frames, spacing=spacing.value, near=near)
    elif frames is not None:
        sampling = Sampling(frames=frames, spacing=spacing.value, near=near)
    given = {"max_pixels": max_pixels, "max_bytes": max_bytes, "shrink_to": shrink_to}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    return Clip(
        source=str(source),
        sampling=sampling,
        decoder=decoder.value,
        limits=limits,
        spacing=spacing.value,
        damage_tolerance=damage_tolerance,
        near=near,
    )


def build_method(
    text: str, retention: float | None = None, preset: str | None = None, visual_tokens: int | None = None
) -> Method:
    """The method that ``--method``, ``--retention`` or ``--visual-tokens``, and ``--preset`` name together.

    Raises:
        typer.BadParameter: an option is given twice with different values, or both say how much is kept.
        MethodError: the method or an option is unknown, or a value is not allowed.
    """
    more: dict[str, object] = {}
    for key, value in (("retention", retention), ("preset", preset), ("visual_tokens", visual_tokens)):
        if value is None:
            continue
        written = written_option(text, key)
        if written is None:
            more[key] = value
        elif not _same(str(written).strip(), value):
            raise typer.BadParameter(
                f"{value} differs from {key}={str(written).strip()} in --method {text}; give it once",
                param_hint=f"'{_flag(key)}'",
            )
    _check_amount(text, more)
    return parse_method(text, more)


def _check_amount(text: str, more: Mapping[str, object]) -> None:
    """Raise unless at most one of retention and number of tokens is given, by flag or in the method's text."""
    for key, other in (("visual_tokens", "retention"), ("retention", "visual_tokens")):
        if key not in more:
            continue
        if other in more:
            raise typer.BadParameter(f"cannot be given together with {_flag(other)}", param_hint=f"'{_flag(key)}'")
        written = written_option(text, other)
        if written is not None:
            raise typer.BadParameter(
                f"cannot be given together with {other}={str(written).strip()} in --method {text}",
                param_hint=f"'{_flag(key)}'",
            )


def _flag(knob: str) -> str:
    return f"--{knob.replace('_', '-')}"


def _same(written: str, value: float | str) -> bool:
    if isinstance(value, str):
        return written == value
    try:
        return float(written) == value
    except ValueError:
        return False


def read_counts(text: str, flag: str) -> list[int]:
    """Numbers that an option lists.

    Raises:
        typer.BadParameter: there are none, or one is no integer of at least 1.
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(
            f"must be integers of at least 1, separated by commas, got {shown(text)}", param_hint=f"'{flag}'"
        )
    return numbers


def read_shares(text: str) -> list[float]:
    """The shares that ``--retention`` lists. Raises `typer.BadParameter` unless they are above 0 and at most 1."""
    try:
        shares = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise typer.BadParameter(
            f"must be shares above 0 and at most 1, separated by commas, got {shown(text)}", param_hint="'--retention'"
        )
    return shares
