"""Checkpoint folders broken in one place, each with what the error about it has to name.

`kinds` lists the ways of breaking one; they change a copy whose files may be links, so that every writer here replaces
a file instead of writing into it.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import earlytom
from families.processors import INTERNVL_TOKENS, video_qa
from reference.published_llava_video import write_checkpoint

NESTED = "[" * 100_000
CONFIGS = ("config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json")
BASES = ("onevision", "sharded", "qwen", "qwen3", "internvl", "published", "published bin", "converted")

FIVE = ("onevision", "qwen", "qwen3", "internvl", "converted")
"""One of each family."""


@dataclass(frozen=True)
class Kind:
    """One way of breaking a checkpoint: of which base, how, and regular expressions that its error must match."""

    name: str
    base: str
    change: Callable[[Path], None]
    named: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.base}: {self.name}"


def make_bases(folder: Path) -> dict[str, Path]:
    """Whole checkpoints of every layout, by the names in `BASES`."""
    from earlytom.models.llava_video.conversion import convert

    made = {name: folder / name.replace(" ", "_") for name in BASES}
    shutil.copytree(earlytom.shipped_model(), made["onevision"])
    shutil.copytree(earlytom.shipped_model("qwen2_5_vl"), made["qwen"])
    shutil.copytree(earlytom.shipped_model(), made["sharded"])
    shard(made["sharded"])
    for name, family in (("qwen3", "qwen3_vl"), ("internvl", "internvl")):
        save_tiny(family, made[name])
    write_checkpoint(made["published"])
    write_checkpoint(made["published bin"], layout="sharded bin")
    convert(made["published"], made["converted"])
    return made


def save_tiny(family: str, folder: Path) -> None:
    """The tiny model of a family with its processor."""
    qa = video_qa(family)
    qa.model.save_pretrained(folder)
    qa.processor.save_pretrained(folder)
    if family == "internvl":  # published tokenizers name them, that of the tests has them as attributes
        edit(folder, "tokenizer_config.json", "extra_special_tokens", INTERNVL_TOKENS)


def fields(document: dict[str, Any], place: str = "") -> Iterator[str]:
    """The dotted places of all fields of a JSON document, those of objects in it too."""
    for key, value in document.items():
        yield f"{place}{key}"
        if isinstance(value, dict):
            yield from fields(value, f"{place}{key}|")


def copy(base: Path, folder: Path) -> Path:
    """A copy by links."""
    shutil.copytree(base, folder, copy_function=os.link)
    return folder


def shard(folder: Path) -> None:
    """Split the weights of a folder over three files with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"model-0000{place % 3 + 1}-of-00003.safetensors" for place, name in enumerate(weights)}
    for file in set(where.values()):
        held = {name: value for name, value in weights.items() if where[name] == file}
        save_file(held, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def put(folder: Path, name: str, content: bytes | str | None) -> None:
    """Replace a file; ``None`` removes it."""
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def edit(folder: Path, name: str, place: str, value: Any) -> None:
    """Set one field of a JSON file by its dotted place; ``...`` removes it."""
    document = json.loads((folder / name).read_text())
    *way, last = place.split("|")
    inner = document
    for key in way:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    put(folder, name, json.dumps(document))


def kinds() -> Iterator[Kind]:
    """All of them."""
    yield from _of_weight_files()
    yield from _of_indexes()
    yield from _of_weights()
    yield from _of_json_files()
    yield from _of_settings()
    yield from _of_families()
    yield from _of_prompts()
    yield from _of_pickles()


def _of_weight_files() -> Iterator[Kind]:
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


def _of_indexes() -> Iterator[Kind]:
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
            yield Kind(f"weight_map is {name}", base, _editor(file, "weight_map", value), (file, "weight_map"))
        for value in (*outside, None, 3, ["model-00001-of-00003.safetensors"], {}):
            yield Kind(f"weight_map names {str(value)[:30]!r}", base, _renamer(value), (file, "weight_map"))
        yield Kind(
            "weight_map puts a weight into another file", base, _renamer("model-00003-of-00003.safetensors", 0), (file,)
        )
        yield Kind("weight_map has a weight that is nowhere", base, _ghost, (file, "ghost"))
        yield Kind("a file of the index is not there", base, _renamer("model-00009.safetensors"), ("model-00009",))
        for name, content in _broken_json().items():
            yield Kind(f"{file} is {name}", base, _writer(file, content), (file,))
    yield Kind("metadata is a list", "sharded", _editor(file, "metadata", []), (file, "metadata"))


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


def _editor(file: str, place: str, value: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, file, place, value)


def _writer(file: str, content: bytes | str | None) -> Callable[[Path], None]:
    return lambda folder: put(folder, file, content)


def _sparse(file: str) -> Callable[[Path], None]:
    """A file that takes no room on the disk, and much in memory."""

    def change(folder: Path) -> None:
        put(folder, file, "")
        os.truncate(folder / file, 3 * 2**30)

    return change


def _quantised(folder: Path) -> None:
    edit(folder, "config.json", "quantization_config", {"quant_method": "none_such"})
    edit(folder, "config.json", "text_config|vocab_size", 10**7)


def _broken_json() -> dict[str, bytes]:
    return {
        "empty": b"",
        "half": b'{"a": {"b": 1',
        "nested": NESTED.encode(),
        "nested objects": b'{"a":' * 50_000,
        "a list": b"[]",
        "a text": b'"text"',
        "null": b"null",
        "not UTF-8": b"\xff\xfe{\x00}\x00",
        "a number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    }


def _of_weights() -> Iterator[Kind]:
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


def _of_json_files() -> Iterator[Kind]:
    for base in ("onevision", "qwen"):
        for file in CONFIGS:
            for name, content in _broken_json().items():
                if name in ("a number of 5000 digits", "nested objects") and file != "config.json":
                    continue
                yield Kind(f"{file} is {name}", base, lambda folder, f=file, c=content: put(folder, f, c), (file,))
    for file in ("config.json", "tokenizer_config.json", "generation_config.json"):
        for name in ("empty", "nested", "a list"):
            yield Kind(
                f"{file} is {name}",
                "published",
                _writer(file, _broken_json()[name]),
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


def _of_settings() -> Iterator[Kind]:
    """Values of ``config.json``."""
    text = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "vocab_size")
    text += ("intermediate_size",)
    values = (0, -1, "four", 1.5, True, [], {}, 10_000_000, 10**30)
    for base, tower in (
        ("onevision", ("num_hidden_layers", "num_attention_heads", "hidden_size", "patch_size", "image_size")),
        ("qwen", ("depth", "num_heads", "hidden_size", "patch_size", "spatial_merge_size")),
    ):
        for part, keys in (("text_config", text), ("vision_config", tower)):
            for place, key in enumerate(keys):
                # All values for the first two, then every second one: the same code reads them.
                for value in values if place < 2 else values[place % 2 :: 2]:
                    yield Kind(
                        f"{part}.{key} is {value!r}",
                        base,
                        _editor("config.json", f"{part}|{key}", value),
                        (r"config\.json", key),
                    )
        for part in ("text_config", "vision_config"):
            for value in (None, 3, [], "x"):
                yield Kind(f"{part} is {value!r}", base, _editor("config.json", part, value), (r"config\.json", part))
        for value in (..., None, 3, "gpt2", "no_such_model", "x" * 3000, "../x"):
            yield Kind(
                f"model_type is {str(value)[:20]}",
                base,
                _editor("config.json", "model_type", value),
                (r"config\.json", "model_type"),
            )
        for key, value in (
            ("num_attention_heads", 7),
            ("num_key_value_heads", 3),
            ("num_hidden_layers", 3),
            ("num_hidden_layers", 9),
            ("hidden_size", 200),
            ("intermediate_size", 100),
            ("vocab_size", 7),
            ("vocab_size", 10**7),
            ("hidden_act", "no_such_function"),
            ("rms_norm_eps", "small"),
        ):
            yield Kind(
                f"text_config.{key} is {value!r}",
                base,
                _editor("config.json", f"text_config|{key}", value),
                (r"config\.json", key),
            )
        for value in ("../x.safetensors", "/etc/passwd", 3, "x.bin"):
            yield Kind(
                f"transformers_weights is {value!r}",
                base,
                _editor("config.json", "transformers_weights", value),
                (r"config\.json", "transformers_weights"),
            )
    for key in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "vocab_size"):
        for value in (0, "four", 1.5, [], 10_000_000):
            yield Kind(f"{key} is {value!r}", "published", _editor("config.json", key, value), (r"config\.json", key))
    for key, value in (
        ("vision_config", {"hidden_size": 32, "num_attention_heads": 0}),
        ("vision_config", {"hidden_size": 32, "num_attention_heads": "x"}),
        ("vision_config", "x"),
        ("mm_projector_type", []),
        ("mm_spatial_pool_stride", "x"),
        ("mm_newline_position", {}),
        ("eos_token_id", "x"),
    ):
        yield Kind(f"{key} is {value!r}", "published", _editor("config.json", key, value), (key.removeprefix("mm_"),))
    for key, value in (
        ("spatial_pool_mode", 3),
        ("spatial_pool_stride", 0),
        ("newline_position", []),
    ):
        yield Kind(f"{key} is {value!r}", "converted", _editor("config.json", key, value), (key,))
    for key, value in (
        ("eos_token_id", "end"),
        ("eos_token_id", [1.5]),
        ("max_new_tokens", "many"),
        ("max_new_tokens", -1),
        ("temperature", "hot"),
        ("num_beams", "x"),
        ("pad_token_id", {}),
    ):
        yield Kind(
            f"generation_config.json's {key} is {value!r}",
            "onevision",
            _editor("generation_config.json", key, value),
            (r"generation_config\.json", key),
        )


def _of_families() -> Iterator[Kind]:
    """Values of ``config.json`` that only a family's own arithmetic, or its prompts, would trip over."""
    sections = "text_config|rope_parameters|mrope_section"
    for base, place, values in (
        ("onevision", "vision_feature_layer", (0, 10_000, "x")),
        ("internvl", "vision_feature_layer", (0, 10_000)),
        ("qwen", sections, (..., 0, "x", None, [], [[]], [1, 2], [1, 2, 3], [-1, 2, 3], [True, 2, 3])),
        ("qwen3", sections, ("x", None, [], [[]], [1, 2], [-1, 2, 3], {})),
        ("qwen", "vision_config|window_size", (0, -1, 3, 10**30, "x")),
        ("qwen", "vision_config|tokens_per_second", (0, 10**30, "x")),
        ("qwen", "vision_config|hidden_size", ([1, 2],)),
        ("qwen", "image_token_id", (3, 10**30)),
        ("qwen3", "image_token_id", (3, 10**30, ...)),
        ("qwen3", "vision_start_token_id", (3, 10**30, ...)),
        ("qwen3", "vision_end_token_id", (3, 10**30, ...)),
        ("internvl", "image_token_id", (3, 10**30, ...)),
        ("converted", "spatial_pool_stride", (3, 1, True)),
        ("converted", "spatial_pool_mode", ("max",)),
        *((base, "text_config|rope_parameters|rope_theta", (0, -1, 1e999, None, 10**30)) for base in FIVE),
        *((base, "text_config|rope_parameters|rope_type", ("x", 3, [], None)) for base in FIVE),
        *((base, "dtype", ("x", [[]])) for base in FIVE),
    ):
        key = place.rpartition("|")[2]
        for value in values:
            yield Kind(
                f"{place} is {'gone' if value is ... else repr(value)}",
                base,
                _editor("config.json", place, value),
                (r"config\.json", key),
            )


def _of_prompts() -> Iterator[Kind]:
    """Tokenizers, chat templates and processors."""
    template = "chat_template.jinja"
    for base in ("onevision", "qwen"):
        yield Kind("no chat template", base, _writer(template, None), ("chat template",))
        for name, content in {
            "empty": "", "no Jinja": "{% for", "without the video": "{{ messages[0]['role'] }}: hello",
            "of an unknown filter": "{{ messages | nothing }}", "raising": "{{ raise_exception('no') }}",
            "without the question": "<video>", "not UTF-8": b"\xff\xfe",
            "ten billion letters": "{{ 'a' * 10**10 }}", "a number of a billion digits": "{{ '%0999999999d' % 1 }}",
            "reaching into Python": "{{ ().__class__.__bases__[0].__subclasses__() }}",
        }.items():  # fmt: skip
            yield Kind(
                f"the chat template is {name}",
                base,
                _writer(template, content),
                ("chat.template",),
            )
        yield Kind("no tokenizer", base, lambda folder: put(folder, "tokenizer.json", None), (r"tokenizer\.json",))
        for place, value in (
            ("model", ...),
            ("model", {}),
            ("model|vocab", {}),
            ("model|vocab", []),
            ("model|type", "Nothing"),
            ("added_tokens", 3),
        ):
            yield Kind(
                f"tokenizer.json's {place} is {'gone' if value is ... else value!r}",
                base,
                _editor("tokenizer.json", place, value),
                (r"tokenizer",),
            )
        for place, value in (
            ("processor_class", "NoSuchProcessor"),
            ("processor_class", "AutoModel"),
            ("processor_class", 3),
            ("processor_class", "GPT2Tokenizer"),
            ("video_processor", 3),
            ("video_processor|video_processor_type", "NoSuchProcessor"),
        ):
            yield Kind(
                f"processor_config.json's {place} is {value!r}",
                base,
                _editor("processor_config.json", place, value),
                ("processor",),
            )
        for value in (3, []):
            yield Kind(
                f"tokenizer_class is {value!r}",
                base,
                _editor("tokenizer_config.json", "tokenizer_class", value),
                (r"tokenizer_class in tokenizer_config\.json",),
            )
        for place, value in (
            ("num_frames", -1),
            ("num_frames", "x"),
            ("num_frames", 10**30),
            ("image_mean", []),
            ("image_std", [0.5, 0.5]),
            ("resample", 7),
            ("rescale_factor", "x"),
            ("do_normalize", [[]]),
        ):
            yield Kind(
                f"processor_config.json's {place} is {value!r}",
                base,
                _editor("processor_config.json", f"video_processor|{place}", value),
                (r"processor_config\.json",),
            )
    for place, value in (("height", 10**6), ("width", 0), ("height", "x"), ("width", 2**40), ("height", 0.5)):
        yield Kind(
            f"frames of {place} {value!r}",
            "onevision",
            _editor("processor_config.json", f"video_processor|size|{place}", value),
            (r"processor_config\.json", place),
        )
    for value in (10**12, "x", -1):
        yield Kind(
            f"shortest edge {value!r}",
            "qwen",
            _editor("processor_config.json", "video_processor|size|shortest_edge", value),
            (r"processor_config\.json", "shortest_edge"),
        )
    for value in ([], "", 3):
        yield Kind(
            f"video_token is {value!r}",
            "onevision",
            _editor("processor_config.json", "video_token", value),
            (r"processor_config\.json|chat_template",),
        )
    for file in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
        yield Kind(f"{file} of 3 GB", "onevision", _sparse(file), (re.escape(file), "3,221,225,472 bytes; allowed"))
    yield Kind("quantised, and a thousand times as large", "onevision", _quantised, (r"config\.json", "vocab_size"))
    yield Kind("a text as long as a book", "onevision", _editor("config.json", "tie_word_embeddings", "x" * 9999),
               (r"config\.json", "tie_word_embeddings"))  # fmt: skip
    key = "video_token_index"
    for value in (-5, 10**9, "x", 3):
        yield Kind(f"{key} is {value!r}", "onevision", _editor("config.json", key, value), (r"config\.json", key))
    for file in ("vocab.json", "merges.txt"):
        yield Kind(f"{file} is missing", "published", lambda folder, f=file: put(folder, f, None), (file,))
    for name in ("empty", "nested", "a list"):
        yield Kind(
            f"vocab.json is {name}",
            "published",
            _writer("vocab.json", _broken_json()[name]),
            ("vocab.json",),
        )


class Payload:
    """A pickle that would create a file, were it run."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)


def evil_pickle(target: Path) -> bytes:
    """A pickle, written by torch, that makes the folder ``target`` when it is run."""
    import io

    stream = io.BytesIO()
    torch.save({"model.embed_tokens.weight": Payload(str(target))}, stream)
    return stream.getvalue()


def _of_pickles() -> Iterator[Kind]:
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
        import io

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
