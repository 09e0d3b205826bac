"""Where an encoded video comes from: a file, bytes in memory or an open file, made readable from the start."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from earlytom.errors import VideoError

__all__ = ["Encoded", "open_source"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A readable, seekable encoded video.

    Attributes:
        name: name for messages.
        file: the bytes, seekable.
        path: absolute path when the source is a file on disk, else None.
    """

    name: str
    file: BinaryIO
    path: Path | None


def _open_path(source: str | os.PathLike[str], name: str) -> tuple[Path, BinaryIO]:
    # Own checks before libav: it would take "http:..." or "concat:..." for a protocol, and words errors less clearly.
    try:
        path = Path(source).absolute()
        if path.is_dir():
            raise VideoError(f"{name}: is a directory, not a video file")
        if path.exists() and not path.is_file():
            raise VideoError(f"{name}: is not a regular file; open it and pass the file object instead")
        return path, path.open("rb")
    except FileNotFoundError as error:
        raise VideoError(f"{name}: no such file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{name}: cannot be opened: {error}") from error


@contextmanager
def open_source(source: object) -> Iterator[Encoded]:
    """Open an encoded source for the length of the block.

    Args:
        source: a path, bytes-like data or a binary file object. A seekable file object is read from its start and put
            back where it was; one that cannot seek is read to its end.

    Yields:
        The source, at position 0.

    Raises:
        VideoError: missing, a directory, empty, unreadable, or not a source of video.
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        path, file = _open_path(source, name)
        with file:
            yield _checked(Encoded(name=name, file=file, path=path))
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield _checked(Encoded(name="<bytes>", file=io.BytesIO(source), path=None))
    elif callable(getattr(source, "read", None)):
        file = cast(BinaryIO, source)
        seekable = getattr(file, "seekable", None)
        if callable(seekable) and seekable():
            start = file.tell()
            try:
                yield _checked(Encoded(name="<file object>", file=file, path=None))
            finally:
                if not file.closed:
                    file.seek(start)
        else:
            yield _checked(Encoded(name="<file object>", file=_drained(file), path=None))
    else:
        raise VideoError(
            f"{type(source).__name__} is not a video source; allowed: a path, bytes, a binary file object, "
            "a numpy array, a torch tensor, or a list of images"
        )


def _drained(file: BinaryIO) -> BinaryIO:
    try:
        data: object = file.read()
    except (OSError, ValueError) as error:
        raise VideoError(f"<file object>: cannot be read: {error}") from error
    if not isinstance(data, bytes):
        raise VideoError("<file object>: gives text, not bytes; open the file in binary mode")
    return io.BytesIO(data)


def _checked(source: Encoded) -> Encoded:
    try:
        source.file.seek(0)
        first: object = source.file.read(1)
        source.file.seek(0)
    except (OSError, ValueError) as error:
        raise VideoError(f"{source.name}: cannot be read: {error}") from error
    if not isinstance(first, bytes):
        raise VideoError(f"{source.name}: gives text, not bytes; open the file in binary mode")
    if not first:
        raise VideoError(f"{source.name}: is empty (0 bytes)")
    return source
