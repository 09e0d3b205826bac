"""Checkpoint folders broken in one place: refused by name, or, where what was changed does not matter, in use."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import earlytom
from broken_checkpoints import BASES, CONFIGS, Kind, copy, kinds, make_bases, put
from fuzz.mutations import mutated
from fuzz.outcomes import ANSWER, Trial

_VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 7, 10**7, 10**30, 0.5, -1.5, 1e999, "", "x", "x" * 5000, "../x", None, True, False, [], {}, [[]]),
    *([1, 2], {"a": 1}, "auto", "cuda", "no_such_function", ["x"] * 3, {"type": "x"}),
)
_MOST_BYTES_CHANGED = 1 << 16


def make_folders(folder: Path) -> None:
    """Whole checkpoints, to be broken."""
    folder.mkdir()
    make_bases(folder)


@cache
def _kinds() -> list[Kind]:
    return list(kinds())


def trial(random: Random, folder: Path) -> Trial:
    """A copy of a checkpoint, broken; it is removed once it has been tried."""
    if random.random() < 0.3:
        kind = random.choice(_kinds())
        base, change = kind.base, kind.change
    else:
        base, change = random.choice(BASES), _editor(random)
    return Trial(lambda: _tried(folder / "bases" / base.replace(" ", "_"), change), one_line=False)


def _tried(base: Path, change: Callable[[Path], None]) -> str:
    with tempfile.TemporaryDirectory(dir=base.parent.parent) as place:
        folder = copy(base, Path(place) / "model")
        change(folder)
        qa = earlytom.VideoQA.load(folder, device="cpu")
        qa.ask(np.zeros((4, 48, 64, 3), dtype=np.uint8), "What is shown?", max_new_tokens=2)
    return ANSWER


def _editor(random: Random) -> Callable[[Path], None]:
    """Change a field of a JSON file, or the bytes of any file."""

    def change(folder: Path) -> None:
        if random.random() < 0.75:
            file = random.choice([folder / "config.json"] * 3 + [folder / name for name in CONFIGS])
            if file.is_file():
                put(folder, file.name, json.dumps(_edited(json.loads(file.read_text()), random)))
            return
        file = random.choice(sorted(path for path in folder.iterdir() if path.is_file()))
        data = file.read_bytes()
        put(folder, file.name, mutated(data[:_MOST_BYTES_CHANGED], random) + data[_MOST_BYTES_CHANGED:])

    return change


def _edited(document: Any, random: Random) -> Any:
    """The document with one value replaced, taken out or added, anywhere."""
    inner = document
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            return document
        key = random.choice(keys)
        if isinstance(inner[key], (dict, list)) and inner[key] and random.random() < 0.8:
            inner = inner[key]
            continue
        _replace(inner, key, random)
        return document


def _replace(inner: Any, key: Any, random: Random) -> None:
    choice = random.random()
    if choice < 0.15:
        del inner[key]
    elif choice < 0.25 and isinstance(inner, dict):
        inner[random.choice(("auto_map", "quantization_config", "dtype", "x", "model_type"))] = random.choice(_VALUES)
    else:
        inner[key] = random.choice(_VALUES)
