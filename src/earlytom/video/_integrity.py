"""Is the end of the file there? Read from the sizes a container declares, because libav stops at a cut in silence."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

__all__ = ["missing_bytes", "moov_missing", "tells_length"]

# The last stands for a box whose header is cut off.
_MEDIA_BOXES = (b"mdat", b"moov", b"moof", b"")
_MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp")


def _size(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


def _boxes(file: BinaryIO) -> list[tuple[bytes, int]]:
    """Top-level boxes of an MP4 or MOV as (type, end position as declared); empty for other formats."""
    total = _size(file)
    found: list[tuple[bytes, int]] = []
    at = 0
    while at + 8 <= total:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            break
        size, kind = struct.unpack(">I4s", head[:8])
        if not found and kind not in _MP4_FIRST:
            return []
        if size == 1 and len(head) == 16:
            size = struct.unpack(">Q", head[8:])[0]
        elif size == 0:
            size = total - at
        if size < 8:
            break
        at += size
        found.append((kind, at))
    if found and (at < total < at + 8 or (at == total and found[-1][0] == b"moof")):
        # Cut within the header of a box, or before the data that a fragment's index announces.
        found.append((b"", at + 8))
    return found


def _ebml_number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """(value, length) of the EBML number at the start of ``data``; value -1 stands for "unknown size"."""
    if not data or data[0] == 0:
        return -1, 0
    length = 9 - data[0].bit_length()
    value = int.from_bytes(data[:length], "big")
    if keep_marker:
        return value, length
    mask = (1 << 7 * length) - 1
    return (-1 if value & mask == mask else value & mask), length


def _declared_end(file: BinaryIO) -> int | None:
    """Where the file says that it ends; None when the format does not say."""
    file.seek(0)
    head = file.read(64)
    if head[:4] == b"RIFF":
        return 8 + int(struct.unpack("<I", head[4:8])[0]) if len(head) >= 8 else None
    if head[:4] == b"\x1a\x45\xdf\xa3":
        size, length = _ebml_number(head[4:], keep_marker=False)
        at = 4 + length + size
        file.seek(at)
        head = file.read(12)
        element, width = _ebml_number(head, keep_marker=True)
        size, length = _ebml_number(head[width:], keep_marker=False)
        return None if element != 0x18538067 or size < 0 else at + width + length + size
    ends = [end for kind, end in _boxes(file) if kind in _MEDIA_BOXES]
    return max(ends) if ends else None


def missing_bytes(file: BinaryIO) -> int:
    """How many bytes the file is shorter than its container says; 0 when complete or when the format does not tell.

    Known for MP4/MOV, Matroska/WebM (unless written live) and AVI; MPEG-TS, FLV and raw streams do not tell.
    """
    end = _declared_end(file)
    return 0 if end is None else max(0, end - _size(file))


def tells_length(file: BinaryIO) -> bool:
    """Tell whether the container declares how long the file is, so that a cut is noticed without decoding."""
    return _declared_end(file) is not None


def moov_missing(file: BinaryIO) -> bool:
    """Tell an MP4/MOV whose index (the moov box, often the last) is absent or cut off (True) from others."""
    boxes = _boxes(file)
    total = _size(file)
    return bool(boxes) and not any(kind == b"moov" and end <= total for kind, end in boxes)
