"""Tokenizers, chat templates and processors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .changing import Kind, broken_json, configured, edit, editor, put, writer

_TEMPLATES: dict[str, bytes | str] = {
    "empty": "",
    "no Jinja": "{% for",
    "without the video": "{{ messages[0]['role'] }}: hello",
    "of an unknown filter": "{{ messages | nothing }}",
    "raising": "{{ raise_exception('no') }}",
    "without the question": "<video>",
    "not UTF-8": b"\xff\xfe",
    "ten billion letters": "{{ 'a' * 10**10 }}",
    "a number of a billion digits": "{{ '%0999999999d' % 1 }}",
    "reaching into Python": "{{ ().__class__.__bases__[0].__subclasses__() }}",
}
_TOKENIZERS: tuple[tuple[str, Any], ...] = (
    ("model", ...),
    ("model", {}),
    ("model|vocab", {}),
    ("model|vocab", []),
    ("model|type", "Nothing"),
    ("added_tokens", 3),
)
_PROCESSORS: tuple[tuple[str, Any], ...] = (
    ("processor_class", "NoSuchProcessor"),
    ("processor_class", "AutoModel"),
    ("processor_class", 3),
    ("processor_class", "GPT2Tokenizer"),
    ("video_processor", 3),
    ("video_processor|video_processor_type", "NoSuchProcessor"),
)
_VIDEO_PROCESSORS: tuple[tuple[str, Any], ...] = (
    ("num_frames", -1),
    ("num_frames", "x"),
    ("num_frames", 10**30),
    ("image_mean", []),
    ("image_std", [0.5, 0.5]),
    ("resample", 7),
    ("rescale_factor", "x"),
    ("do_normalize", [[]]),
)
_FRAME_SIZES: tuple[tuple[str, Any], ...] = (
    ("height", 10**6),
    ("width", 0),
    ("height", "x"),
    ("width", 2**40),
    ("height", 0.5),
)


def of_prompts() -> Iterator[Kind]:
    """All of them."""
    for base in ("onevision", "qwen"):
        yield from _of_templates(base)
        yield from _of_tokenizers(base)
        yield from _of_processors(base)
    yield from _of_one_processor()
    yield from _of_large_files()
    for value in (-5, 10**9, "x", 3):
        yield configured("onevision", "video_token_index", value)
    yield from _of_published_tokenizers()


def _of_templates(base: str) -> Iterator[Kind]:
    template = "chat_template.jinja"
    yield Kind("no chat template", base, writer(template, None), ("chat template",))
    for name, content in _TEMPLATES.items():
        yield Kind(f"the chat template is {name}", base, writer(template, content), ("chat.template",))


def _of_tokenizers(base: str) -> Iterator[Kind]:
    file = "tokenizer.json"
    yield Kind("no tokenizer", base, writer(file, None), (r"tokenizer\.json",))
    for place, value in _TOKENIZERS:
        name = f"{file}'s {place} is {'gone' if value is ... else value!r}"
        yield Kind(name, base, editor(file, place, value), (r"tokenizer",))


def _of_processors(base: str) -> Iterator[Kind]:
    for place, value in _PROCESSORS:
        yield _processor(base, place, value, "processor")
    for value in (3, []):
        yield Kind(
            f"tokenizer_class is {value!r}",
            base,
            editor("tokenizer_config.json", "tokenizer_class", value),
            (r"tokenizer_class in tokenizer_config\.json",),
        )
    for place, value in _VIDEO_PROCESSORS:
        name = f"processor_config.json's {place} is {value!r}"
        yield _processor(base, f"video_processor|{place}", value, r"processor_config\.json", name=name)


def _of_one_processor() -> Iterator[Kind]:
    """Values that the processor of one family alone has."""
    file = r"processor_config\.json"
    for place, value in _FRAME_SIZES:
        name = f"frames of {place} {value!r}"
        yield _processor("onevision", f"video_processor|size|{place}", value, file, place, name=name)
    for value in (10**12, "x", -1):
        place, name = "video_processor|size|shortest_edge", f"shortest edge {value!r}"
        yield _processor("qwen", place, value, file, "shortest_edge", name=name)
    for value in (10**7, "x", -1):
        yield _processor("internvl", "image_seq_length", value, file, "image_seq_length")
    for value in ([], "", 3):
        named = r"processor_config\.json|chat_template"
        yield _processor("onevision", "video_token", value, named, name=f"video_token is {value!r}")


def _processor(base: str, place: str, value: Any, *named: str, name: str = "") -> Kind:
    """A value of ``processor_config.json``."""
    file = "processor_config.json"
    return Kind(name or f"{file}'s {place} is {value!r}", base, editor(file, place, value), named)


def _of_large_files() -> Iterator[Kind]:
    for file in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
        yield Kind(f"{file} of 3 GB", "onevision", _sparse(file), (re.escape(file), "3,221,225,472 bytes; allowed"))
    yield Kind("quantised, and a thousand times as large", "onevision", _quantised, (r"config\.json", "vocab_size"))
    yield configured("onevision", "tie_word_embeddings", "x" * 9999, "a text as long as a book")


def _sparse(file: str) -> Callable[[Path], None]:
    """A file that takes no room on the disk, and much in memory."""

    def change(folder: Path) -> None:
        put(folder, file, "")
        os.truncate(folder / file, 3 * 2**30)

    return change


def _quantised(folder: Path) -> None:
    edit(folder, "config.json", "quantization_config", {"quant_method": "none_such"})
    edit(folder, "config.json", "text_config|vocab_size", 10**7)


def _of_published_tokenizers() -> Iterator[Kind]:
    for file in ("vocab.json", "merges.txt"):
        yield Kind(f"{file} is missing", "published", writer(file, None), (file,))
    for name in ("empty", "nested", "a list"):
        content = broken_json()[name]
        yield Kind(f"vocab.json is {name}", "published", writer("vocab.json", content), ("vocab.json",))
