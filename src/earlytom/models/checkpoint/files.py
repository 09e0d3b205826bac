"""The files of a checkpoint: found, read and checked, with errors that name the file and the field."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earlytom.errors import EarlyTomError, ModelError, shown

__all__ = [
    "PROCESSOR_NAMES",
    "WeightFiles",
    "check_length",
    "find",
    "is_plain_name",
    "named",
    "optional_object",
    "read_object",
    "read_settings",
    "reason",
    "weight_files",
]

WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")
PROCESSOR_NAMES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_SHOWN = 200
# Of a library's own words, which quote some of what was given.
_REASON = 280
# Bytes of a text. Indexes of the largest models have a few million.
_LONGEST = 64 * 2**20
# Their errors say how to switch off what has just refused something.
_OVERRIDES = {
    "trust_remote_code": "it needs code of its own, which is never run",
    "weights_only": "it is no plain table of tensors but a program, which is never run; have it saved as safetensors",
}


def reason(error: BaseException) -> str:
    """One line about an error of a library, without advice how to override a refusal."""
    text = str(error).strip()
    for word, instead in _OVERRIDES.items():
        if word in text:
            return instead
    line = " ".join(text.split("\n\n")[0].split()) or type(error).__name__
    line = line if isinstance(error, (OSError, ValueError, ImportError)) else f"{type(error).__name__}: {line}"
    return line if len(line) <= _REASON else line[:_REASON] + "..."


@contextmanager
def named(what: str) -> Iterator[None]:
    """Turn whatever a library raises over a file that is not as it should be into a `ModelError` that names it."""
    try:
        yield
    except EarlyTomError:
        raise
    except Exception as error:
        # The original of a refusal, which tells how to get around it, is not shown with it.
        refusal = any(word in str(error) for word in _OVERRIDES)
        raise ModelError(f"{what}: {reason(error)}") from (None if refusal else error)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what the tokenizers library, in Rust, makes of some files
            raise
        raise ModelError(f"{what}: {reason(error)}") from error


def find(path: str | Path, name: str, *, needed: bool = False) -> Path | None:
    """A file of the checkpoint, downloaded where it has to be; ``None`` where the checkpoint does not have it.

    Args:
        path: a folder or a hub id.
        name: of the file.
        needed: whether nothing else will do. Else, what a checkpoint in the cache does not have while the hub cannot be
            asked is taken as not there, if the rest is.

    Raises:
        ModelError: the file could not be downloaded, or it cannot be told whether it is there: the hub cannot be
            reached, wants to know who asks, or has no such repository.
    """
    if os.path.isdir(path):  # False, too, for what is too long for a path
        local = Path(path) / name
        return local if local.is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(str(path), name)
    except Exception as error:
        if _is_absent(error) or _is_known_absent(str(path), name) or (not needed and _is_cached(str(path))):
            return None
        raise ModelError(f"{name} cannot be had: {reason(error)}") from error
    return None if found is None else Path(found)


def _is_absent(error: Exception) -> bool:
    """Whether transformers says that there is no such file; it chains what went wrong on the way to one."""
    return type(error) is OSError and error.__cause__ is None and error.errno is None


def _is_known_absent(repository: str, name: str) -> bool:
    """Whether the cache has noted that a repository does not have a file."""
    noted = _noted(repository, name)
    return noted is not None and not isinstance(noted, str)


def _is_cached(repository: str) -> bool:
    """Whether the cache has settings, weights and processor of a checkpoint, as far as their names tell."""
    settings = _noted(repository, "config.json")
    if not isinstance(settings, str):
        return False
    names = {file.name for file in Path(settings).parent.iterdir()}
    return bool(names & set(PROCESSOR_NAMES)) and any(name.endswith((".safetensors", ".bin")) for name in names)


def _noted(repository: str, name: str) -> object:
    """What the cache knows of a file: its path, that there is none, or nothing."""
    from transformers.utils.hub import try_to_load_from_cache

    try:
        return try_to_load_from_cache(repository, name)
    except ValueError:  # no name of a repository
        return None


def read_object(file: Path, name: str | None = None) -> dict[str, Any]:
    """A file that holds one JSON object. Raises `ModelError` naming the file and what is wrong with it."""
    name = name or file.name
    check_length(file, name)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise ModelError(f"{name} is no JSON that can be read: it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error
    except ValueError as error:
        raise ModelError(f"{name} is no JSON: {reason(error)}") from error
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror or error}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{name} must hold a JSON object, got {type(document).__name__}")
    return document


def check_length(file: Path, name: str) -> None:
    """Refuse a text that would fill the memory before it is read."""
    length = file.stat().st_size
    if length > _LONGEST:
        raise ModelError(f"{name} has {length:,} bytes; allowed: {_LONGEST:,}")


def read_settings(path: str | Path) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint: a folder or a hub id. Raises `ModelError` where there is none."""
    file = find(path, "config.json", needed=True)
    if file is None:
        raise ModelError("it holds no config.json")
    return read_object(file, "config.json")


def optional_object(path: str | Path, name: str) -> dict[str, Any] | None:
    """What `read_object` gives, or ``None`` where the checkpoint does not have the file."""
    file = find(path, name)
    return None if file is None else read_object(file, name)


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """The files with the weights.

    Attributes:
        files: by their names.
        index: the name of the index that lists them, if there is one.
        placed: the file of every weight, by that index; empty without one.
    """

    files: Mapping[str, Path]
    index: str | None = None
    placed: Mapping[str, str] = field(default_factory=dict)

    def check(self, held: Mapping[str, Collection[str]]) -> None:
        """Raise `ModelError` when a weight is not among those ``held`` by the file where the index says that it is."""
        for weight, part in self.placed.items():
            if weight not in held[part]:
                raise ModelError(f"weight_map in {self.index} puts {shown(weight)} into {part}, which does not hold it")


def weight_files(path: str | Path, name: str | None = None) -> WeightFiles:
    """The files with the weights: one, or several that an index lists.

    Args:
        path: a folder or a hub id.
        name: of the file or index, where ``config.json`` says one.

    Raises:
        ModelError: there are none, or the index is wrong.
    """
    for single in (name,) if name else WEIGHT_NAMES:
        found = find(path, single)
        if found is not None:
            return _listed(path, found, single) if single.endswith(".json") else WeightFiles(files={single: found})
        index = find(path, f"{single}.index.json")
        if index is not None:
            return _listed(path, index, f"{single}.index.json")
    wanted = name or " nor ".join(WEIGHT_NAMES)
    raise ModelError(f"the checkpoint holds no weights: neither {wanted}, nor an index of several files")


def _listed(path: str | Path, index: Path, name: str) -> WeightFiles:
    placed, files = _read_index(index, name), {}
    for part in sorted(set(placed.values())):
        found = find(path, part, needed=True)
        if found is None:
            raise ModelError(f"the checkpoint lacks {part}, which its {name} lists in weight_map")
        files[part] = found
    return WeightFiles(files=files, index=name, placed=placed)


def _read_index(index: Path, name: str) -> dict[str, str]:
    """The file of every weight. Raises `ModelError` unless ``weight_map`` names files beside the index."""
    document = read_object(index, name)
    placed = document.get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ModelError(f"{name} must have a weight_map from weights to files, got {shown(placed)}")
    if not isinstance(document.get("metadata", {}), dict):
        raise ModelError(f"metadata in {name} must be an object, got {shown(document['metadata'])}")
    ending = name.removesuffix(".index.json").rpartition(".")[2]
    for weight, part in placed.items():
        if not (is_plain_name(part) and part.endswith(f".{ending}")):
            raise ModelError(
                f"weight_map in {name} must name .{ending} files beside it, got {shown(part)} for {shown(weight)}"
            )
    return placed


def is_plain_name(name: object) -> bool:
    """Whether this is the name of a file in the checkpoint's own folder: no path, not hidden, of a sensible length."""
    return (
        isinstance(name, str)
        and 0 < len(name.encode(errors="replace")) < 256
        and not name.startswith(".")
        and not set(name) & set("/\\:\0")
        and name.isprintable()
    )
