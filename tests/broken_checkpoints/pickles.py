"""Pickles of weights, which may hold anything."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .changing import Kind, put


class Payload:
    """A pickle that would create a file, were it run."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)


def evil_pickle(target: Path) -> bytes:
    """A pickle, written by torch, that makes the folder ``target`` when it is run."""
    stream = io.BytesIO()
    torch.save({"model.embed_tokens.weight": Payload(str(target))}, stream)
    return stream.getvalue()


def of_pickles() -> Iterator[Kind]:
    def replaced(content: Callable[[], bytes]) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            put(folder, "pytorch_model-00001-of-00003.bin", content())

        return change

    def single(content: Callable[[], bytes]) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            put(folder, "model.safetensors", None)
            put(folder, "pytorch_model.bin", content())

        return change

    def saved(value: Any) -> bytes:
        stream = io.BytesIO()
        torch.save(value, stream)
        return stream.getvalue()

    for name, content in {
        "code": lambda: evil_pickle(Path("/nonexistent/folder")),
        "plain code": lambda: pickle.dumps(Payload("/nonexistent/folder")),
        "a module": lambda: saved(torch.nn.Linear(2, 2)),
        "a list": lambda: saved([torch.zeros(2)]),
        "a table of numbers": lambda: saved({"a": 1}),
        "numbers for names": lambda: saved({1: torch.zeros(2)}),
        "empty": lambda: b"",
        "half": lambda: saved({"a": torch.zeros(1000)})[:2000],
        "a text": lambda: b"text",
    }.items():
        yield Kind(f"a pickle is {name}", "published bin", replaced(content), ("pytorch_model",))
        yield Kind(f"the only pickle is {name}", "onevision", single(content), ("pytorch_model.bin",))
