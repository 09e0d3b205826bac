"""File objects that give little at a time, fail, cannot seek, or say little of themselves."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from earlytom.errors import VideoError
from earlytom.video import Limits, Sampling, read_video

from .clips import numbers_of
from .conftest import Factory


def message(source: Any, **arguments: Any) -> str:
    with pytest.raises(VideoError) as caught:
        read_video(source, **arguments)
    return str(caught.value)


class Slow(io.BytesIO):
    """Gives at most 1000 bytes at a time, as sockets and decompressors may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1000 if size is None or size < 0 else min(size, 1000))


@pytest.mark.parametrize("name", ["short_gop", "matroska", "avi", "transport"])
def test_short_reads(clip: Factory, name: str) -> None:
    data = clip(name).read_bytes()
    expected = read_video(data, Sampling(frames=5))
    assert np.array_equal(read_video(Slow(data), Sampling(frames=5)).frames, expected.frames)

    class Stream(Slow):
        def seekable(self) -> bool:
            return False

        def seek(self, *arguments: Any) -> int:
            raise io.UnsupportedOperation("seek")

    assert np.array_equal(read_video(Stream(data), Sampling(frames=5)).frames, expected.frames)


FAILURES: dict[str, tuple[Any, str]] = {
    "os": (OSError("the wire is cut"), "cannot be read: the wire is cut"),
    "library": (KeyError("chunk 7"), "cannot be read: 'chunk 7'"),
    "silent": (RuntimeError(), "cannot be read: RuntimeError"),
    "long": (RuntimeError("x" * 100_000), "cannot be read: xxx"),
    "text": ("text", "gives text, not bytes; open the file in binary mode"),
    "nothing yet": (None, "has nothing to read yet; open the file in blocking mode"),
    "number": (5, "its read() gives a int; allowed: bytes"),
    "too much": (b"x" * 10_000_000, "gives 10000000 bytes where"),
}


@pytest.mark.parametrize("decode_all", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_reading_that_fails_at_any_time(clip: Factory, failure: str, decode_all: bool) -> None:
    data = clip("avi_h264_b" if decode_all else "short_gop", noise=True).read_bytes()
    given, text = FAILURES[failure]

    class Failing(io.BytesIO):
        left = 0

        def read(self, size: int | None = -1, /) -> Any:
            self.left -= 1
            if self.left >= 0:
                return super().read(size)
            if isinstance(given, Exception):
                raise given
            return given

    reads = 0
    while True:
        file = Failing(data)
        file.left = reads
        try:
            video = read_video(file, Sampling(frames=3))
        except VideoError as error:
            assert str(error).startswith(f"<file object>: {text}")  # noqa: PT017
            assert len(str(error)) < 300  # noqa: PT017
            assert error.__cause__ is (given if isinstance(given, Exception) else None)  # noqa: PT017
        else:
            assert numbers_of(video.frames) == [0, 29, 59]
            break
        reads += 1
    assert reads > 5


def test_an_object_that_does_not_say_whether_it_seeks(clip: Factory) -> None:
    """It is read from its start and put back, like others that seek, where it can."""
    held = io.BytesIO(clip("short_gop").read_bytes())
    held.seek(100)
    file: Any = SimpleNamespace(read=held.read, seek=held.seek, tell=held.tell)
    assert numbers_of(read_video(file, Sampling(frames=3)).frames) == [0, 29, 59]
    assert held.tell() == 100
    held.seek(0)
    cannot: Any = SimpleNamespace(read=held.read)
    assert numbers_of(read_video(cannot, Sampling(frames=3)).frames) == [0, 29, 59]


@pytest.mark.parametrize("method", ["seek", "tell", "seekable"])
def test_moving_that_fails_at_any_time(clip: Factory, method: str) -> None:
    data = clip("short_gop").read_bytes()
    for allowed in range(40):

        class Failing(io.BytesIO):
            left = allowed

            def __getattribute__(self, name: str) -> Any:
                if name == method:
                    self.left -= 1
                    if self.left < 0:
                        return self._fail
                return super().__getattribute__(name)

            def _fail(self, *arguments: Any) -> Any:
                raise LookupError("no such place")

        try:
            video = read_video(Failing(data), Sampling(frames=3))
        except VideoError as error:
            assert "no such place" in str(error)  # noqa: PT017
        else:
            assert numbers_of(video.frames) == [0, 29, 59]


def test_a_failing_object_leaves_nothing_behind(clip: Factory) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 3000:
                raise OSError("gone")
            return super().read(min(size or 1, 1000))

    for _ in range(3):
        assert message(Failing(clip("short_gop", noise=True).read_bytes())).endswith("cannot be read: gone")
        assert numbers_of(read_video(clip("short_gop"), Sampling(frames=2)).frames) == [0, 59]


def test_an_interrupt_passes(clip: Factory) -> None:
    class Interrupted(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.count += 1
            if self.count > 4:
                raise KeyboardInterrupt
            return super().read(size)

    with pytest.raises(KeyboardInterrupt):
        read_video(Interrupted(clip("short_gop", noise=True).read_bytes()))


def test_objects_that_say_little_of_themselves(clip: Factory) -> None:
    data = clip("short_gop").read_bytes()

    class Quiet:
        """Seeks without saying where it is then."""

        def __init__(self) -> None:
            self.inner = io.BytesIO(data)
            self.read, self.tell = self.inner.read, self.inner.tell

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> None:
            self.inner.seek(offset, whence)

    class Views(io.BytesIO):
        def read(self, size: int | None = -1, /) -> Any:
            return memoryview(bytearray(super().read(size)))

    class Lying(io.BytesIO):
        """Says that it can seek, and cannot."""

        def seek(self, *arguments: Any) -> int:
            raise io.UnsupportedOperation("underlying stream is not seekable")

    for source in (Quiet(), Views(data), Lying(data)):
        assert numbers_of(read_video(cast(Any, source), Sampling(frames=3)).frames) == [0, 29, 59]
    assert numbers_of(read_video(cast(Any, memoryview(data * 2)[: len(data)])).frames)[-1] == 59
    spread = np.repeat(np.frombuffer(data, np.uint8), 2).tobytes()
    assert numbers_of(read_video(cast(Any, memoryview(spread)[::2])).frames)[-1] == 59
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")
    assert message(text) == "<file object>: gives text, not bytes; open the file in binary mode"
    closed = io.BytesIO(data)
    closed.close()
    assert "closed file" in message(closed)


def test_streams_without_end_stop_at_the_limit() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return bytes(size)

    endless = Endless()
    text = message(endless, limits=Limits(max_bytes=5_000_000))
    assert text == (
        "<file object>: cannot seek and holds more than 5,000,000 bytes, the limit (Limits.max_bytes); save it as a "
        "file"
    )
    assert endless.given < 8_000_000


def test_uploads(clip: Factory) -> None:
    data = clip("short_gop").read_bytes()

    class Upload:
        """As Starlette's and FastAPI's: the outer methods have to be awaited."""

        def __init__(self, file: Any) -> None:
            self.file = file

        async def read(self, size: int = -1) -> bytes:
            return bytes(self.file.read(size))

    file = io.BytesIO(data)
    file.seek(7)
    assert numbers_of(read_video(cast(Any, Upload(file)), Sampling(frames=2)).frames) == [0, 59]
    assert file.tell() == 7
    assert message(Upload(None)) == "<file object>: its read() has to be awaited; await it and pass the bytes"
