"""Checkpoint folders broken in one place, each with what the error about it has to name.

`kinds` lists the ways of breaking one; they change a copy whose files may be links, so that every writer here replaces
a file instead of writing into it.
"""

from __future__ import annotations

from collections.abc import Iterator

from .bases import BASES, CONFIGS, FIVE, copy, make_bases, save_tiny
from .changing import Kind, edit, fields, put
from .families import of_families
from .json_files import of_json_files
from .pickles import evil_pickle, of_pickles
from .prompts import of_prompts
from .settings import of_settings
from .weights import of_indexes, of_weight_files, of_weights

__all__ = [
    "BASES",
    "CONFIGS",
    "FIVE",
    "Kind",
    "copy",
    "edit",
    "evil_pickle",
    "fields",
    "kinds",
    "make_bases",
    "put",
    "save_tiny",
]


def kinds() -> Iterator[Kind]:
    """All of them."""
    yield from of_weight_files()
    yield from of_indexes()
    yield from of_weights()
    yield from of_json_files()
    yield from of_settings()
    yield from of_families()
    yield from of_prompts()
    yield from of_pickles()
