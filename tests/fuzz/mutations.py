"""Random damage to the bytes of a file."""

from __future__ import annotations

import struct
from random import Random

# Fields whose numbers libav and the reader believe: boxes of MP4, chunks of AVI, elements of Matroska, GIF blocks.
_FIELDS = (
    *(b"stts", b"ctts", b"stsz", b"stco", b"stsc", b"stss", b"mdhd", b"mvhd", b"tkhd", b"avc1", b"elst", b"hdlr"),
    *(b"moov", b"mdat", b"moof", b"trun", b"tfhd", b"ftyp", b"colr", b"RIFF", b"avih", b"strh", b"strf", b"idx1"),
    *(b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75", b"\x2a\xd7\xb1"),
    *(b"FLV", b"onMetaData", b"GIF89a", b"OggS", b"\x00\x00\x01\xb3", b"\x00\x00\x01\xba", b"JFIF"),
)
_NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def mutated(data: bytes, random: Random) -> bytes:
    """One to four random changes; the shorter the file, the likelier its header is hit."""
    held = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        random.choice(_CHANGES)(held, random)
    return bytes(held)


def _block(held: bytearray, random: Random, most: int = 4096) -> slice:
    begin = random.randrange(len(held) + 1)
    return slice(begin, begin + random.randint(1, random.choice((4, 64, most))))


def _flip(held: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 1, 4, 30)) if held else 0):
        held[random.randrange(len(held))] ^= 1 << random.randrange(8)


def _flip_at_start(held: bytearray, random: Random) -> None:
    for _ in range(random.randint(1, 6) if held else 0):
        held[random.randrange(min(len(held), 512))] = random.randrange(256)


def _truncate(held: bytearray, random: Random) -> None:
    del held[random.randrange(len(held) + 1) :]


def _delete(held: bytearray, random: Random) -> None:
    del held[_block(held, random)]


def _repeat(held: bytearray, random: Random) -> None:
    block = bytes(held[_block(held, random)])
    at = random.randrange(len(held) + 1)
    held[at:at] = block


def _overwrite(held: bytearray, random: Random) -> None:
    place = _block(held, random)
    size = len(held[place])
    held[place] = random.choice((bytes(size), b"\xff" * size, random.randbytes(size)))


def _swap(held: bytearray, random: Random) -> None:
    size = random.randint(1, max(1, min(2048, len(held) // 3)))
    first, second = sorted(random.randrange(max(1, len(held) - size)) for _ in range(2))
    if second - first >= size:
        block = bytes(held[first : first + size])
        held[first : first + size] = held[second : second + size]
        held[second : second + size] = block


def _field(held: bytearray, random: Random) -> None:
    """A number behind (or right before, where boxes have their size) the name of a field."""
    present = [name for name in _FIELDS if name in held]
    if not present:
        _flip_at_start(held, random)
        return
    at = held.index(random.choice(present))
    width = random.choice((1, 2, 4, 4, 4, 8))
    place = max(0, at + random.choice((-4, 4, 8, 12, 16, 20, random.randrange(-8, 80))))
    number = random.choice((*_NUMBERS, random.getrandbits(32)))
    held[place : place + width] = struct.pack(">Q", number)[-width:]


_CHANGES = (_flip, _flip_at_start, _truncate, _delete, _repeat, _overwrite, _swap, _field, _field, _field)
