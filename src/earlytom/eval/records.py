"""What has been done already, on disk: one file a method, one line a clip, so that a run can be stopped and gone on.

Lines are appended whole. A line that a stopped process left unfinished is passed over, and its clip is done again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from earlytom.errors import EarlyTomError, shortened, shown
from earlytom.testbed.questions import SKILLS

__all__ = ["Asked", "Record", "RecordFile", "claim_folder"]

_SETTINGS = "run.json"
_RECORDS = "records"
_MOST_CHANGES = 12


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question, the right answer, and the reply.

    ``letters``: it was multiple choice. ``guess``: how often a guess among the answers that the question itself names
    is right, 0 where it names none.
    """

    question: str
    expected: str
    skill: str
    letters: bool
    guess: float
    reply: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """All questions about one clip, answered with one method; see `earlytom.eval.answering.Reply` for the numbers."""

    clip: int
    seed: int
    asked: tuple[Asked, ...]
    visual_tokens: int
    tokens_per_layer: float
    frames_left: int
    ttft: float | None

    def to_line(self) -> bytes:
        """The record as one line of JSON."""
        return (json.dumps(dataclasses.asdict(self)) + "\n").encode()

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read what `to_line` wrote.

        Raises:
            ValueError: it is not JSON, so that it was never finished.
            EarlyTomError: it is something else, which nobody leaves who is stopped.
        """
        try:
            data = json.loads(line)
        except RecursionError as error:
            raise EarlyTomError("is nested too deeply to be a record") from error
        _check_fields("a record", data, _RECORD_FIELDS)
        for entry in data["asked"]:
            _check_fields("an entry of asked", entry, _ASKED_FIELDS)
        return cls(**{**data, "asked": tuple(Asked(**entry) for entry in data["asked"])})


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What a field may hold."""

    words: str
    allows: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < _MOST


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


_MOST = 2**63
_COUNT = _Kind(words="an integer of at least 0", allows=_is_count)
_NUMBER = _Kind(words="a finite number", allows=_is_number)
_TEXT = _Kind(words="text", allows=lambda value: isinstance(value, str))
_ASKED_FIELDS = {
    "question": _TEXT,
    "expected": _TEXT,
    "skill": _Kind(words=f"one of {', '.join(SKILLS)}", allows=lambda value: value in SKILLS),
    "letters": _Kind(words="true or false", allows=lambda value: isinstance(value, bool)),
    "guess": _NUMBER,
    "reply": _TEXT,
}
_RECORD_FIELDS = {
    "clip": _COUNT,
    "seed": _COUNT,
    "asked": _Kind(words="a list with an entry", allows=lambda value: isinstance(value, list) and bool(value)),
    "visual_tokens": _COUNT,
    "tokens_per_layer": _NUMBER,
    "frames_left": _COUNT,
    "ttft": _Kind(words="a finite number or null", allows=lambda value: value is None or _is_number(value)),
}


def _check_fields(name: str, data: object, fields: Mapping[str, _Kind]) -> None:
    if not isinstance(data, dict) or data.keys() != fields.keys():
        raise EarlyTomError(f"{name} must have the fields {', '.join(fields)}, got {shown(data)}")
    for field, kind in fields.items():
        if not kind.allows(data[field]):
            raise EarlyTomError(f"{field} of {name} must be {kind.words}, got {shown(data[field])}")


class RecordFile:
    """The records of one method. Several processes may add to it; of two records of a clip the first one counts.

    Args:
        folder: the run's folder.
        spec: the method, with all its options.
    """

    def __init__(self, folder: Path, spec: str) -> None:
        digest = hashlib.sha256(spec.encode()).hexdigest()[:8]
        name = re.sub(r"[^\w.=+-]+", "_", spec)[:100]
        self.path = folder / _RECORDS / f"{name}.{digest}.jsonl"
        self._records: dict[int, Record] = {}
        self._read = self._lines = 0

    def records(self) -> Mapping[int, Record]:
        """The records by clip, with what others have added since the last call.

        Raises:
            EarlyTomError: the file cannot be read, or holds a line that is no record and no beginning of one.
        """
        try:
            if self.path.exists():
                self._read_new()
        except OSError as error:
            raise EarlyTomError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        return self._records

    def _read_new(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._read += whole
        for line in data[:whole].split(b"\n")[:-1]:
            self._lines += 1
            try:
                record = Record.from_line(line)
            except ValueError:
                continue  # cut off when its process was stopped
            except EarlyTomError as error:
                raise EarlyTomError(
                    f"{shortened(self.path)}, line {self._lines}: {error}; remove the line, or use another folder"
                ) from error
            self._records.setdefault(record.clip, record)

    def append(self, record: Record) -> None:
        """Add a record in one write, on a line of its own. Raises `EarlyTomError` when that fails."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(end - 1, 0))
                line = record.to_line()
                file.write(line if file.read(1) in (b"", b"\n") else b"\n" + line)
        except OSError as error:
            raise EarlyTomError(f"{self.path}: cannot be written: {error.strerror or error}") from error


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a folder for a run with these settings, or go on with one that has the same.

    Args:
        folder: where records and results go.
        settings: everything that answers depend on besides the method, as plain data.

    Raises:
        EarlyTomError: the folder holds a run with other settings, or cannot be used.
    """
    path = folder / _SETTINGS
    wanted = json.loads(json.dumps(settings))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = folder / f".{_SETTINGS}.{os.getpid()}"
            fresh.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
            os.replace(fresh, path)
        there = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EarlyTomError(f"{shortened(folder)}: cannot be used: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise EarlyTomError(
            f"{path}: is not JSON, so nobody knows what the folder holds; use another folder"
        ) from error
    if not isinstance(there, dict):
        raise EarlyTomError(f"{path}: holds no settings; use another folder")
    differing = [name for name in {**wanted, **there} if there.get(name) != wanted.get(name)]
    if differing:
        changes = "; ".join(
            f"{shortened(name)} is {shown(there.get(name))} there, {shown(wanted.get(name))} now"
            for name in differing[:_MOST_CHANGES]
        )
        raise EarlyTomError(f"{folder}: holds results of a run with other settings: {changes}; use another folder")
