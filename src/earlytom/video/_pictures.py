"""Picture files, read with Pillow: frames that lie in a folder, and animations that libav does not read."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from earlytom.errors import VideoError, shown_cause
from earlytom.video._source import Encoded, open_file
from earlytom.video.address import source_name
from earlytom.video.limits import Limits
from earlytom.video.sampling import Sampling
from earlytom.video.types import Video

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["frame_files", "header_size", "is_animated_webp", "read_animated_webp", "read_picture"]

# Pillow would also read what runs other programs (EPS) or is read by few.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
# Bits of the flags of an extended WebP.
_ANIMATED = 0x02
# Milliseconds that browsers show a picture of an animation which declares none.
_DEFAULT_TIME = 100


def header_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height that a picture file declares, whatever they are; 0, 0 for others. Moves ``file``."""
    file.seek(0)
    head = file.read(24)
    if head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        return struct.unpack("<HH", head[6:10])
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR" and len(head) == 24:
        return struct.unpack(">II", head[16:])
    return _size_by_pillow(file)


def _size_by_pillow(file: BinaryIO) -> tuple[int, int]:
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.TiffImagePlugin import TiffImageFile

    # Not `Image.open`: it raises for a large picture, without a size.
    for kind in (JpegImageFile, BmpImageFile, TiffImageFile):
        file.seek(0)
        try:
            width, height = kind(file).size
            return width, height
        except Exception:  # not of this kind, or broken in any way
            continue
    return 0, 0


def frame_files(folder: str) -> list[Path]:
    """The pictures in a folder in the order of their names, numbers by value (``f2.png`` before ``f10.png``).

    Empty for what is no folder, or not to be read.
    """
    try:
        pictures = [path for path in Path(folder).iterdir() if path.suffix.lower() in _SUFFIXES and path.name[0] != "."]
        found = [path for path in pictures if not path.is_dir()]
    except (OSError, ValueError):
        return []
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(part), "") if part.isdecimal() and len(part) < 19 else (-1, part) for part in parts], path.name


def read_picture(path: str | os.PathLike[str], limits: Limits) -> npt.NDArray[np.uint8]:
    """Read one picture file, upright (EXIF), to RGB ``[H, W, 3]``; alpha is dropped.

    Raises:
        VideoError: missing, no picture or corrupt, more than 8 bits a channel, or larger than the limit.
    """
    from PIL import ImageOps

    name = source_name(os.fsdecode(path))
    with open_file(os.fsdecode(path), name) as file:
        picture = _open(file, name, limits)
        if picture.mode[0] in "IF":
            raise VideoError(f"{name}: has more than 8 bits a channel (mode {picture.mode}); allowed: 8")
        try:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        except Exception as error:
            raise VideoError(f"{name}: corrupt: {shown_cause(error)}") from error


def _open(file: BinaryIO, name: str, limits: Limits) -> Image:
    """Open a picture, nothing of it decoded yet."""
    import PIL.Image

    limits.check(name, *header_size(file))
    file.seek(0)
    try:
        picture = PIL.Image.open(file, formats=_FORMATS)
    except PIL.UnidentifiedImageError as error:
        raise VideoError(f"{name}: not a picture; allowed: {', '.join(_FORMATS)}") from error
    except Exception as error:
        raise VideoError(f"{name}: corrupt: {shown_cause(error)}") from error
    limits.check(name, *picture.size)
    return picture


def is_animated_webp(source: Encoded) -> bool:
    """Tell an animated WebP, of which libav reads nothing, from everything else."""
    source.file.seek(0)
    head = source.file.read(21)
    return len(head) == 21 and head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20] & _ANIMATED)


def read_animated_webp(source: Encoded, sampling: Sampling) -> Video:
    """Read frames of an animated WebP.

    Args:
        source: a source for which :func:`is_animated_webp` holds.
        sampling: which frames.

    Returns:
        The frames, alpha dropped, at the times that the file's own durations give.

    Raises:
        VideoError: corrupt, or larger than the limits.
    """
    picture: Any = _open(source.file, source.name, source.limits)
    count = picture.n_frames
    times = np.zeros(count + 1)
    # Durations are known of decoded frames only, and frames of an animation build on one another.
    for index in range(count):
        _show(picture, index, source.name)
        times[index + 1] = times[index] + (picture.info.get("duration") or _DEFAULT_TIME) / 1000
    stamps = times[:-1].tolist()
    indices = sampling.indices(count, timestamps=stamps)
    width, height = picture.size
    source.limits.check(source.name, width, height, len(indices))
    frames = np.empty((len(indices), height, width, 3), dtype=np.uint8)
    for slot, index in enumerate(indices):
        _show(picture, index, source.name)
        frames[slot] = np.asarray(picture.convert("RGB"))
    return Video(
        frames=frames,
        indices=tuple(indices),
        timestamps=tuple(stamps[index] for index in indices),
        source_frames=count,
        source_fps=count / float(times[-1]),
        duration=float(times[-1]),
        decoder="pillow",
        source=source.name,
        decoded=count + indices[-1] + 1,
    )


def _show(picture: Any, index: int, name: str) -> None:
    try:
        picture.seek(index)
        picture.load()
    except Exception as error:
        raise VideoError(f"{name}: corrupt: frame {index} cannot be decoded: {shown_cause(error)}") from error
