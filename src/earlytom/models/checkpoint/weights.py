"""What the files with the weights hold, told without loading them, and what a model would want."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import ModelError, shown
from earlytom.models.checkpoint.files import named, reason, weight_files

__all__ = ["Stored", "listed", "stored_weights"]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The weights of a checkpoint as its files describe them.

    Attributes:
        files: by their names.
        shapes: by the weights' names.
    """

    files: Mapping[str, Path]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def values(self) -> int:
        """How many numbers they are."""
        return sum(map(math.prod, self.shapes.values()))

    def load(self) -> dict[str, Tensor]:
        """All weights by their names, on the CPU."""
        weights: dict[str, Tensor] = {}
        for part, file in self.files.items():
            weights |= _load(file, part)
        return weights

    def __str__(self) -> str:
        names = list(self.files)
        return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def stored_weights(path: str | Path, name: str | None = None, *, numbers_only: bool = True) -> Stored:
    """Read the headers of all files with weights.

    Args:
        path: a folder or a hub id.
        name: of the file or index, where ``config.json`` says one.
        numbers_only: whether weights have to be of a floating point type; quantised ones are not.

    Raises:
        ModelError: files are missing, empty, cut off, or hold something else; the message names file and weight.
    """
    found = weight_files(path, name)
    held = {part: _described(file, part) for part, file in found.files.items()}
    found.check(held)
    shapes: dict[str, tuple[int, ...]] = {}
    for part, weights in held.items():
        for weight, (shape, floating) in weights.items():
            if numbers_only and not floating and weight.endswith((".weight", ".bias")):
                raise ModelError(f"{part} holds {shown(weight)} in a type that is no floating point number")
            shapes[weight] = shape
    return Stored(files=found.files, shapes=shapes)


def _described(file: Path, name: str) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Shape of every weight in a file, and whether it is of a floating point type."""
    if name.endswith(".safetensors"):
        found = _header(file, name)
    else:
        found = {weight: (tuple(value.shape), value.is_floating_point()) for weight, value in _load(file, name).items()}
    if not found:
        raise ModelError(f"{name} holds no weights")
    return found


def _header(file: Path, name: str) -> dict[str, tuple[tuple[int, ...], bool]]:
    from safetensors import safe_open

    _check_file(file, name)
    with named(f"{name} cannot be read"), safe_open(file, framework="pt") as opened:
        described = {}
        for weight in opened.keys():  # noqa: SIM118, it is no mapping
            part = opened.get_slice(weight)
            described[weight] = (tuple(part.get_shape()), part.get_dtype().startswith(("F", "BF")))
    return described


def _load(file: Path, name: str) -> dict[str, Tensor]:
    if name.endswith(".safetensors"):
        from safetensors.torch import load_file

        with named(f"{name} cannot be read"):
            return load_file(file)
    _check_file(file, name)
    weights = _unpickle(file, name)
    if not isinstance(weights, Mapping):
        raise ModelError(f"{name} must hold a table of tensors, got {type(weights).__name__}")
    for weight, value in weights.items():
        if not isinstance(weight, str) or not isinstance(value, Tensor):
            raise ModelError(f"{name} must hold tensors by their names, got {type(value).__name__} for {shown(weight)}")
    return dict(weights)


def _unpickle(file: Path, name: str) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError:
        # Neither the error nor its origin is passed on: they tell how to have the program run.
        raise ModelError(
            f"{name} is refused: it is no plain table of tensors but a program, or no checkpoint at all; programs are "
            "never run; have it saved as safetensors"
        ) from None
    except Exception as error:
        raise ModelError(f"{name} cannot be read: {reason(error)}") from None


def _check_file(file: Path, name: str) -> None:
    if not file.is_file():
        raise ModelError(f"{name} is no file")
    if file.stat().st_size == 0:
        raise ModelError(f"{name} is empty")
    with file.open("rb") as opened:
        start = opened.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{name} is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")


def listed(names: Iterable[str], most: int = 6) -> str:
    """The first names of many; more say nothing that these do not."""
    found = [name if len(name) <= 200 else shown(name) for name in names]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
