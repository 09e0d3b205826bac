"""A caller's file object, made safe for C code: whole reads, no exception inside a callback, no name."""

from __future__ import annotations

import io
import sys
from typing import BinaryIO

from earlytom.errors import VideoError, shown_cause

__all__ = ["Reader", "drain"]

_CHUNK = 1 << 20


class Reader:
    """The seekable bytes of a source.

    libav calls it from C, where an exception cannot pass: a failure is kept in ``failure``, and the source ends there
    until whoever opened it raises what was kept. It has no ``name``, since libav would take one for a hint.

    Attributes:
        failure: what went wrong, None so far.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.failure: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, all without one; fewer only at the end."""
        parts: list[bytes] = []
        left = sys.maxsize if size < 0 else size
        try:
            while left > 0 and self.failure is None:
                asked = min(left, _CHUNK)
                part = _bytes(self._file.read(asked), self._name)
                if len(part) > asked:
                    raise VideoError(f"{self._name}: gives {len(part)} bytes where {asked} were asked for")
                if not part:
                    break
                parts.append(part)
                left -= len(part)
        except BaseException as error:
            self._keep(error)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; the new position, -1 after a failure."""
        try:
            if self.failure is None:
                at: int | None = self._file.seek(offset, whence)
                # Not every object that seeks says where it is afterwards.
                return self._file.tell() if at is None else at
        except BaseException as error:
            self._keep(error)
        return -1

    def tell(self) -> int:
        """The position, -1 after a failure."""
        return self.seek(0, io.SEEK_CUR)

    def _keep(self, error: BaseException) -> None:
        if isinstance(error, VideoError) or not isinstance(error, Exception):
            self.failure = error
            return
        self.failure = VideoError(f"{self._name}: cannot be read: {shown_cause(error)}")
        self.failure.__cause__ = error


def _bytes(data: object, name: str) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    if isinstance(data, str):
        raise VideoError(f"{name}: gives text, not bytes; open the file in binary mode")
    if data is None:
        raise VideoError(f"{name}: has nothing to read yet; open the file in blocking mode")
    raise VideoError(f"{name}: its read() gives a {type(data).__name__}; allowed: bytes")


def drain(file: BinaryIO, name: str, limit: int | None) -> BinaryIO:
    """Read a file that cannot seek into memory.

    Raises:
        VideoError: reading fails, or there are more than ``limit`` bytes.
    """
    parts: list[bytes] = []
    size = 0
    try:
        while part := _bytes(file.read(_CHUNK), name):
            parts.append(part)
            size += len(part)
            if limit is not None and size > limit:
                raise VideoError(
                    f"{name}: cannot seek and holds more than {limit:,} bytes, the limit (Limits.max_bytes); "
                    "save it as a file"
                )
    except VideoError:
        raise
    except Exception as error:
        raise VideoError(f"{name}: cannot be read: {shown_cause(error)}") from error
    return io.BytesIO(b"".join(parts))
