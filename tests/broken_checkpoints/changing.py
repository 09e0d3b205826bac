"""One way of breaking a checkpoint, and what changes its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NESTED = "[" * 100_000


@dataclass(frozen=True)
class Kind:
    """One way of breaking a checkpoint: of which base, how, and regular expressions that its error must match."""

    name: str
    base: str
    change: Callable[[Path], None]
    named: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.base}: {self.name}"


def fields(document: dict[str, Any], place: str = "") -> Iterator[str]:
    """The dotted places of all fields of a JSON document, those of objects in it too."""
    for key, value in document.items():
        yield f"{place}{key}"
        if isinstance(value, dict):
            yield from fields(value, f"{place}{key}|")


def put(folder: Path, name: str, content: bytes | str | None) -> None:
    """Replace a file; ``None`` removes it."""
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def edit(folder: Path, name: str, place: str, value: Any) -> None:
    """Set one field of a JSON file by its dotted place; ``...`` removes it."""
    document = json.loads((folder / name).read_text())
    *way, last = place.split("|")
    inner = document
    for key in way:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    put(folder, name, json.dumps(document))


def editor(file: str, place: str, value: Any) -> Callable[[Path], None]:
    """What sets one field of a JSON file, as `edit` does."""
    return lambda folder: edit(folder, file, place, value)


def writer(file: str, content: bytes | str | None) -> Callable[[Path], None]:
    """What replaces a file, as `put` does."""
    return lambda folder: put(folder, file, content)


def configured(base: str, place: str, value: Any, name: str = "") -> Kind:
    """A value of ``config.json``, whose error names that file and the field."""
    key = place.rpartition("|")[2]
    name = name or f"{place.replace('|', '.')} is {value!r}"
    return Kind(name, base, editor("config.json", place, value), (r"config\.json", key))


def broken_json() -> dict[str, bytes]:
    """What is no JSON object, by what it is."""
    return {
        "empty": b"",
        "half": b'{"a": {"b": 1',
        "nested": NESTED.encode(),
        "nested objects": b'{"a":' * 50_000,
        "a list": b"[]",
        "a text": b'"text"',
        "null": b"null",
        "not UTF-8": b"\xff\xfe{\x00}\x00",
        "a number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    }
