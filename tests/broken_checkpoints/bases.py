"""Whole checkpoints, to be broken."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

import earlytom
from families.processors import INTERNVL_TOKENS, video_qa
from reference.published_llava_video import write_checkpoint

from .changing import edit

CONFIGS = ("config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json")
BASES = ("onevision", "sharded", "qwen", "qwen3", "internvl", "published", "published bin", "converted")

FIVE = ("onevision", "qwen", "qwen3", "internvl", "converted")
"""One of each family."""


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
