"""What a caller's string means: the name of a file, unless it is one of the other things that people try."""

from __future__ import annotations

import base64
import binascii
import os
import re
from urllib.parse import unquote_to_bytes, urlsplit

from earlytom.errors import VideoError

__all__ = ["resolve", "source_name"]

# A slash is enough: a `Path` made of a URL has lost the second one.
_URL = re.compile(r"([a-z][a-z0-9+.-]{1,19}):/", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
# No file name is longer on the usual file systems.
_LONGEST_NAME = 255
_LONGEST_SHOWN, _HALF = 200, 97


def resolve(text: str, limit: int | None) -> str | bytes:
    """The path that a string names, or the data that it holds.

    Args:
        text: a path, a ``file:`` or a ``data:`` URL. Whatever it looks like, a file of that very name comes first.
        limit: most bytes that a data URL may hold, None for any number.

    Raises:
        VideoError: an address that is not read, with what to do instead.
    """
    if _exists(text):
        return text
    if text == "-":
        raise VideoError("-: no such file; to read standard input, pass sys.stdin.buffer")
    if text[:5].lower() == "data:":
        return _data(text, limit)
    scheme = _URL.match(text)
    if scheme is None:
        _refuse_base64(text)
        return text
    if scheme[1].lower() != "file":
        raise VideoError(
            f"{source_name(text)}: {scheme[1].lower()} addresses are not read, nothing is fetched; download it and "
            "pass the file, its bytes or a file object"
        )
    return _file_address(text)


def source_name(text: str) -> str:
    """What errors call a source: one line of at most 200 characters, the middle of a longer path left out."""
    letters = " ".join(text.splitlines())
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in letters)
    return line if len(line) <= _LONGEST_SHOWN else f"{line[:_HALF]} ... {line[-_HALF:]}"


def _exists(text: str) -> bool:
    try:
        return os.path.lexists(text)
    except ValueError:
        return False


def _file_address(text: str) -> str:
    # Slow to import, and hardly ever needed.
    from urllib.request import url2pathname

    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise VideoError(f"{source_name(text)}: {error}; allowed: file:///absolute/path") from error
    if parts.netloc not in ("", "localhost"):
        raise VideoError(f"{source_name(text)}: names a file on another machine; allowed: file:///absolute/path")
    if parts.query or parts.fragment:
        raise VideoError(f"{source_name(text)}: a file address has no ? and no #; in names write %3F and %23")
    return url2pathname(parts.path)


def _data(text: str, limit: int | None) -> bytes:
    head, comma, body = text.partition(",")
    if not comma:
        raise VideoError(f"{source_name(text)}: a data URL without a comma; allowed: data:video/mp4;base64,...")
    coded = head.lower().endswith(";base64")
    # Base64 puts 3 bytes into 4 characters, and the rest of a URL at most one into each.
    size = len(body) * 3 // 4 if coded else len(body)
    if limit is not None and size > limit:
        raise VideoError(
            f"{source_name(head)}: the data URL holds about {size:,} bytes; allowed: at most {limit:,} "
            "(Limits.max_bytes)"
        )
    try:
        raw = unquote_to_bytes(body)
        return base64.b64decode(b"".join(raw.split()), validate=True) if coded else raw
    except UnicodeEncodeError as error:
        raise VideoError(f"{source_name(head)}: the data URL holds what is no text") from error
    except binascii.Error as error:
        raise VideoError(f"{source_name(head)}: the data URL is no base64: {error}") from error


def _refuse_base64(text: str) -> None:
    if len(text) > _LONGEST_NAME and _BASE64.fullmatch("".join(text.split())):
        raise VideoError(
            f"{source_name(text)}: looks like base64 ({len(text)} characters), not like a file name; pass "
            "base64.b64decode(text), or put 'data:video/mp4;base64,' before it"
        )
