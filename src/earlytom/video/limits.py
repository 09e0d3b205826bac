"""How large pictures and clips may be: checked before memory is taken for them."""

from __future__ import annotations

from dataclasses import dataclass

from earlytom.errors import VideoError, brief_repr

__all__ = ["Limits"]

_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused for its size; the defaults let 32 frames of 8K pass and stop a picture of 16000x16000.

    Attributes:
        max_pixels: pixels of one picture, 67,108,864 (8192x8192) by default. None: no limit.
        max_bytes: bytes of all frames taken (3 a pixel), and of a source that has to be read into memory to be read at
            all (a pipe, a data URL); 4 GiB by default. None: no limit.

    Raises:
        VideoError: a field is out of range.
    """

    max_pixels: int | None = 1 << 26
    max_bytes: int | None = 1 << 32

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise VideoError(f"Limits.{name} is {brief_repr(value)}; allowed: None or an integer of at least 1")

    def check(self, name: str, width: int, height: int, frames: int = 1) -> None:
        """Raise `VideoError`, with ``name`` and the figures, unless frames of this size may be read."""
        pixels = width * height
        if self.max_pixels is not None and pixels > self.max_pixels:
            raise VideoError(
                f"{name}: pictures of {width}x{height} have {pixels:,} pixels; allowed: at most {self.max_pixels:,} "
                "(Limits.max_pixels)"
            )
        size = frames * pixels * _CHANNELS
        if self.max_bytes is not None and size > self.max_bytes:
            raise VideoError(
                f"{name}: {frames} frames of {width}x{height} take {size:,} bytes; allowed: at most "
                f"{self.max_bytes:,} (Limits.max_bytes); sample fewer frames or raise the limit"
            )
