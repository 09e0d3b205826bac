"""Configurations of all kinds that are no JSON objects, or not there."""

from __future__ import annotations

from collections.abc import Iterator

from .bases import CONFIGS
from .changing import Kind, broken_json, put, writer


def of_json_files() -> Iterator[Kind]:
    for base in ("onevision", "qwen"):
        for file in CONFIGS:
            for name, content in broken_json().items():
                if name in ("a number of 5000 digits", "nested objects") and file != "config.json":
                    continue
                yield Kind(f"{file} is {name}", base, lambda folder, f=file, c=content: put(folder, f, c), (file,))
    for file in ("config.json", "tokenizer_config.json", "generation_config.json"):
        for name in ("empty", "nested", "a list"):
            yield Kind(
                f"{file} is {name}",
                "published",
                writer(file, broken_json()[name]),
                (file,),
            )
    for base in ("onevision", "qwen", "published", "converted"):
        yield Kind("config.json is missing", base, lambda folder: put(folder, "config.json", None), ("config.json",))
    for base in ("onevision", "qwen", "converted"):
        yield Kind(
            "processor_config.json is missing",
            base,
            lambda folder: put(folder, "processor_config.json", None),
            ("processor_config.json",),
        )
