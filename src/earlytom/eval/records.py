"""What has been done already, on disk: one file a method, one line a clip, so that a run can be stopped and gone on.

Lines are appended whole. A line that a stopped process left unfinished is passed over, and its clip is done again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from earlytom.errors import EarlyTomError

__all__ = ["Asked", "Record", "RecordFile", "claim_folder"]

_SETTINGS = "run.json"
_RECORDS = "records"


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
        """Read what `to_line` wrote. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
        data = json.loads(line)
        return cls(**{**data, "asked": tuple(Asked(**entry) for entry in data["asked"])})


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
        self._read = 0

    def records(self) -> Mapping[int, Record]:
        """The records by clip, with what others have added since the last call. Raises `EarlyTomError`."""
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
        for line in data[:whole].splitlines():
            try:
                record = Record.from_line(line)
            except (ValueError, TypeError, KeyError):
                continue  # cut off when its process was stopped
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
        raise EarlyTomError(f"{folder}: cannot be used: {error.strerror or error}") from error
    except ValueError as error:
        raise EarlyTomError(
            f"{path}: is not JSON, so nobody knows what the folder holds; use another folder"
        ) from error
    if not isinstance(there, dict):
        raise EarlyTomError(f"{path}: holds no settings; use another folder")
    differing = [name for name in {**wanted, **there} if there.get(name) != wanted.get(name)]
    if differing:
        changes = "; ".join(f"{name} is {there.get(name)!r} there, {wanted.get(name)!r} now" for name in differing)
        raise EarlyTomError(f"{folder}: holds results of a run with other settings: {changes}; use another folder")
