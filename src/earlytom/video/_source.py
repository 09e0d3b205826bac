"""Where an encoded video comes from: a file, bytes in memory or an open file, made readable from the start."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from earlytom.errors import VideoError, shown_cause
from earlytom.video._file import Reader, drain
from earlytom.video.address import resolve, source_name
from earlytom.video.limits import Limits

__all__ = ["Encoded", "locate", "open_file", "open_source"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A readable, seekable encoded video.

    Attributes:
        name: name for messages.
        file: the bytes, seekable. Decoders get these and never a name, which they would read more into.
        limits: how large pictures and clips may be.
    """

    name: str
    file: BinaryIO
    limits: Limits


def open_file(path: str, name: str) -> BinaryIO:
    """Open a regular file to read; waits for no pipe and no device.

    Raises:
        VideoError: there is none, it is something else, or it cannot be opened.
    """
    try:
        if not path:
            raise VideoError("'': no such file")
        place = Path(path)
        if place.is_dir():
            raise VideoError(f"{name}: is a directory, not a video file")
        if place.exists() and not place.is_file():
            raise VideoError(f"{name}: is not a regular file; open it and pass the file object instead")
        return place.open("rb")
    except FileNotFoundError as error:
        raise VideoError(f"{name}: no such file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{name}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def locate(source: object, limits: Limits) -> object:
    """A path as a string, whatever a caller named it by; the bytes of a data URL; any other source as it is.

    Raises:
        VideoError: an address that is not read.
    """
    if not isinstance(source, (str, os.PathLike)):
        return source
    try:
        text = os.fsdecode(source)
    except Exception as error:
        raise VideoError(f"{type(source).__name__} object: gives no path: {shown_cause(error)}") from error
    return resolve(text, limits.max_bytes)


@contextmanager
def open_source(source: object, limits: Limits) -> Iterator[Encoded]:
    """Open an encoded source for the length of the block.

    Args:
        source: a path (a string), bytes-like data or a binary file object. A seekable file object is read from its
            start and put back where it was; one that cannot seek is read to its end.
        limits: how large pictures and clips may be.

    Yields:
        The source, at position 0.

    Raises:
        VideoError: missing, a directory, empty, unreadable (also when that turns out within the block), or not a source
            of video.
    """
    if isinstance(source, str):
        name = source_name(source)
        with open_file(source, name) as file, _reading(file, name, limits) as encoded:
            yield encoded
    elif isinstance(source, (bytes, bytearray, memoryview)):
        # Not the view itself: BytesIO takes only contiguous ones.
        with _reading(io.BytesIO(bytes(source)), "<bytes>", limits) as encoded:
            yield encoded
    elif callable(getattr(source, "read", None)):
        with _borrowed(source, "<file object>", limits) as file, _reading(file, "<file object>", limits) as encoded:
            yield encoded
    else:
        raise VideoError(
            f"{type(source).__name__} is not a video source; allowed: a path, bytes, a binary file object, "
            "a numpy array, a torch tensor, or a list of images"
        )


@contextmanager
def _reading(file: BinaryIO, name: str, limits: Limits) -> Iterator[Encoded]:
    """Hand out a file; whatever fails because reading it fails is told as that."""
    reader = Reader(file, name)
    try:
        reader.seek(0)
        if not reader.read(1) and reader.failure is None:
            raise VideoError(f"{name}: is empty (0 bytes)")
        reader.seek(0)
        if reader.failure is None:
            yield Encoded(name=name, file=cast(BinaryIO, reader), limits=limits)
    except Exception:
        if reader.failure is None:
            raise
    if reader.failure is not None:
        raise reader.failure


@contextmanager
def _borrowed(source: object, name: str, limits: Limits) -> Iterator[BinaryIO]:
    """A caller's file object, or what is in it, put back where it was."""
    file = _synchronous(source, name)
    start = _position(file)
    if start is None:
        yield drain(file, name, limits.max_bytes)
        return
    try:
        yield file
    finally:
        if not getattr(file, "closed", False):
            # Where even this fails, reading has failed before, or has all that it wanted.
            _attempt(lambda: file.seek(start))


def _synchronous(source: object, name: str) -> BinaryIO:
    """The file behind an upload whose own ``read`` has to be awaited (Starlette's and FastAPI's ``UploadFile``)."""
    if isinstance(source, io.TextIOBase):
        raise VideoError(f"{name}: gives text, not bytes; open the file in binary mode")
    if not inspect.iscoroutinefunction(getattr(source, "read", None)):
        return cast(BinaryIO, source)
    inner = getattr(source, "file", None)
    read = getattr(inner, "read", None)
    if not callable(read) or inspect.iscoroutinefunction(read):
        raise VideoError(f"{name}: its read() has to be awaited; await it and pass the bytes")
    return cast(BinaryIO, inner)


def _position(file: BinaryIO) -> int | None:
    """Where a file stands, None for one that cannot seek."""
    # Some that can do not say so (SpooledTemporaryFile before Python 3.11).
    seekable = getattr(file, "seekable", None)
    if seekable is not None and not (callable(seekable) and _attempt(seekable)):
        return None
    start = _attempt(lambda: file.tell())
    return start if isinstance(start, int) and _attempt(lambda: file.seek(start) or True) else None


def _attempt(call: Callable[[], object]) -> object:
    """What a caller's object gives, None where it fails."""
    try:
        return call()
    except Exception:
        return None
