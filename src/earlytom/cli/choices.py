"""What options stand for: the model, the clip, the method, lists of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from earlytom.cli.options import DecoderName, DtypeName, SpacingName
from earlytom.errors import shown
from earlytom.methods import parse_method
from earlytom.methods.grammar import written_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from earlytom.methods.base import Method
    from earlytom.video import Decoder, Limits, Sampling, Spacing

__all__ = ["Clip", "ModelChoice", "build_method", "choose_clip", "read_counts", "read_shares"]


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
