"""How large pictures and clips may be: checked before memory is taken for them."""

from __future__ import annotations

from dataclasses import dataclass

from earlytom.errors import VideoError, shown

__all__ = ["Limits"]

_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused for its size; the defaults let 32 frames of 8K pass and stop a picture of 16000x16000.

    Attributes:
        max_pixels: pixels of one picture, 67,108,864 (8192x8192) by default. None: no limit.
        max_bytes: bytes of all frames taken (3 a pixel), and of a source that has to be read into memory to be read at
            all (a pipe, a data URL); 4 GiB by default. None: no limit.
        shrink_to: instead of keeping the frames of a larger video as they are, scale each down as it is decoded until
            its shorter side has this many pixels (384 for a model that takes 384x384). This is not the processor's own
            resizing: what comes out of it differs by about 1 of 255 on average, 99 of 100 values by at most 3 or 4. It
            needs PyAV as decoder, and leaves pictures, arrays and animated WebP alone. None, the default: never.

    Raises:
        VideoError: a field is out of range.
    """

    max_pixels: int | None = 1 << 26
    max_bytes: int | None = 1 << 32
    shrink_to: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes", "shrink_to"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise VideoError(f"Limits.{name} is {shown(value)}; allowed: None or an integer of at least 1")

    def kept_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in which decoded frames are kept: their own, unless ``shrink_to`` says less."""
        shorter = min(width, height)
        if self.shrink_to is None or shorter <= self.shrink_to:
            return width, height
        return round(width * self.shrink_to / shorter), round(height * self.shrink_to / shorter)

    def check(self, name: str, width: int, height: int, frames: int = 1) -> None:
        """Raise `VideoError`, with ``name`` and the figures, unless frames of this size may be read and kept."""
        self.check_picture(name, width, height)
        self.check_clip(name, width, height, frames)

    def check_picture(self, name: str, width: int, height: int) -> None:
        """Raise `VideoError` unless pictures of this size may be decoded."""
        pixels = width * height
        if self.max_pixels is not None and pixels > self.max_pixels:
            raise VideoError(
                f"{name}: pictures of {width}x{height} have {pixels:,} pixels; allowed: at most {self.max_pixels:,} "
                "(Limits.max_pixels)"
            )

    def check_clip(self, name: str, width: int, height: int, frames: int) -> None:
        """Raise `VideoError` unless as many frames of this size may be kept."""
        size = frames * width * height * _CHANNELS
        if self.max_bytes is not None and size > self.max_bytes:
            raise VideoError(
                f"{name}: {frames} frames of {width}x{height} take {size:,} bytes; allowed: at most "
                f"{self.max_bytes:,} (Limits.max_bytes); sample fewer frames, set Limits.shrink_to, or raise the limit"
            )
