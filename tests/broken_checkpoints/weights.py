"""Files of weights and their indexes that are broken, or not those of the configuration."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .changing import NESTED, Kind, broken_json, edit, editor, put, writer


def of_weight_files() -> Iterator[Kind]:
    """Files that are no safetensors, or not all of one."""
    contents: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda _: b"",
        "eight zeros": lambda _: bytes(8),
        "half": lambda whole: whole[: len(whole) // 2],
        "without its last byte": lambda whole: whole[:-1],
        "with a byte too many": lambda whole: whole + b"x",
        "half of the header": lambda whole: whole[:100],
        "only the header": lambda whole: whole[: 8 + struct.unpack("<Q", whole[:8])[0]],
        "header of 2**63 bytes": lambda whole: struct.pack("<Q", 2**63) + whole[8:],
        "header is no JSON": lambda whole: whole[:8] + b"x" * 64 + whole[72:],
        "a text": lambda _: b"not a checkpoint",
        "a web page": lambda _: b"<!DOCTYPE html><html><body>Sign in</body></html>" * 20,
        "a pointer of Git LFS": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "a pickle": lambda _: pickle.dumps({"a": 1}),
        "no tensors": lambda _: struct.pack("<Q", 2) + b"{}",
        "nested header": lambda _: struct.pack("<Q", 100_000) + NESTED.encode(),
    }
    for base, file in (
        ("onevision", "model.safetensors"),
        ("sharded", "model-00002-of-00003.safetensors"),
        ("published", "model-00002-of-00003.safetensors"),
    ):
        for name, make in contents.items():
            if base == "onevision" or name in ("empty", "half", "no tensors", "a text"):
                yield Kind(
                    f"{file} is {name}",
                    base,
                    lambda folder, file=file, make=make: put(folder, file, make((folder / file).read_bytes())),
                    (r"safetensors",),
                )
        yield Kind(f"{file} is missing", base, lambda folder, file=file: put(folder, file, None), ("safetensors",))
        yield Kind(f"{file} is a folder", base, lambda folder, file=file: _folder(folder / file), ("safetensors",))


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def of_indexes() -> Iterator[Kind]:
    outside = ("../x.safetensors", "/tmp/x.safetensors", "a/../../x.safetensors", "", ".", "..", "sub/x.safetensors")
    outside += (
        "..\\x.safetensors",
        "C:\\x.safetensors",
        "x.bin",
        "x.py",
        "x" * 5000 + ".safetensors",
        "\0.safetensors",
    )
    file = "model.safetensors.index.json"
    for base in ("sharded", "published"):
        for name, value in {
            "missing": ..., "null": None, "empty": {}, "a list": [], "a text": "model.safetensors", "a number": 3,
        }.items():  # fmt: skip
            yield Kind(f"weight_map is {name}", base, editor(file, "weight_map", value), (file, "weight_map"))
        for value in (*outside, None, 3, ["model-00001-of-00003.safetensors"], {}):
            yield Kind(f"weight_map names {str(value)[:30]!r}", base, _renamer(value), (file, "weight_map"))
        yield Kind(
            "weight_map puts a weight into another file", base, _renamer("model-00003-of-00003.safetensors", 0), (file,)
        )
        yield Kind("weight_map has a weight that is nowhere", base, _ghost, (file, "ghost"))
        yield Kind("a file of the index is not there", base, _renamer("model-00009.safetensors"), ("model-00009",))
        for name, content in broken_json().items():
            yield Kind(f"{file} is {name}", base, writer(file, content), (file,))
    yield Kind("metadata is a list", "sharded", editor(file, "metadata", []), (file, "metadata"))


def _renamer(value: Any, place: int = 3) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        name = sorted(index["weight_map"])[place]
        other = "model-00001-of-00003.safetensors"
        index["weight_map"][name] = other if index["weight_map"][name] == value else value
        put(folder, "model.safetensors.index.json", json.dumps(index))

    return change


def _ghost(folder: Path) -> None:
    edit(folder, "model.safetensors.index.json", "weight_map|ghost", "model-00001-of-00003.safetensors")


def of_weights() -> Iterator[Kind]:
    """Weights that are not those of the configuration."""

    def rewrite(change: Callable[[dict[str, Any], str], None], part: str) -> Callable[[Path], None]:
        def apply(folder: Path) -> None:
            weights = load_file(folder / "model.safetensors")
            change(weights, next(name for name in sorted(weights) if part in name))
            (folder / "model.safetensors").unlink()
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

        return apply

    def drop(weights: dict[str, Any], name: str) -> None:
        del weights[name]

    def narrow(weights: dict[str, Any], name: str) -> None:
        weights[name] = weights[name][:-1].clone()

    def flatten(weights: dict[str, Any], name: str) -> None:
        weights[name] = weights[name].flatten()

    def whole_numbers(weights: dict[str, Any], name: str) -> None:
        weights[name] = weights[name].to(torch.int32)

    def rename(weights: dict[str, Any], name: str) -> None:
        weights[f"other.{name}"] = weights.pop(name)

    for base in ("onevision", "qwen", "converted"):
        for part in ("mlp", "embed_tokens"):
            for name, change in {
                "missing": drop, "a row short": narrow, "flat": flatten, "whole numbers": whole_numbers,
                "renamed": rename,
            }.items():  # fmt: skip
                yield Kind(f"a weight of {part} is {name}", base, rewrite(change, part), (part, r"model\.safetensors"))
