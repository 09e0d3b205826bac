"""Code that lies in a checkpoint's folder is never run, nor is anybody asked whether it may."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import earlytom
from broken_checkpoints import BASES, copy, make_bases, put

CODE = """
import pathlib
pathlib.Path({target!r}).mkdir(exist_ok=True)
from transformers import *
class Own(PreTrainedConfig):
    model_type = "own"
class OwnModel(PreTrainedModel):
    config_class = Own
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
class OwnProcessor(ProcessorMixin):
    pass
def generate(model, **kwargs):
    pass
"""
MODEL_MAP = {
    "AutoConfig": "own.Own", "AutoModel": "own.OwnModel", "AutoModelForImageTextToText": "own.OwnModel",
    "AutoModelForCausalLM": "own.OwnModel", "AutoProcessor": "own.OwnProcessor",
    "AutoImageProcessor": "own.OwnProcessor", "AutoVideoProcessor": "own.OwnProcessor",
    "AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"],
}  # fmt: skip
SETTINGS = ("config.json", "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
            "tokenizer_config.json", "generation_config.json")  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the code would make; whoever asks gets a yes."""
    questions: list[object] = []

    def yes(question: object = "") -> str:
        questions.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", yes)
    yield tmp_path / "made"
    assert questions == []
    assert not (tmp_path / "made").exists()


def plant(base: Path, folder: Path, made: Path) -> Path:
    """A copy of a checkpoint with code in it, to which every file points that can."""
    copy(base, folder)
    code = CODE.format(target=str(made))
    put(folder, "own.py", code)
    (folder / "custom_generate").mkdir()
    put(folder, "custom_generate/generate.py", code)
    for name in SETTINGS:
        if (folder / name).exists():
            change(folder, name, auto_map=MODEL_MAP)
    return folder


def change(folder: Path, name: str, **fields: Any) -> None:
    """Set fields of a JSON file, and of its parts where they point to code; ``...`` removes one."""
    document = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    inner = [part for key, part in document.items() if key.endswith(("_config", "_processor"))]
    parts = [part for part in inner if isinstance(part, dict) and "auto_map" in fields]
    for part in (document, *parts):
        part.update(fields)
        for key in [key for key, value in part.items() if value is ...]:
            del part[key]
    put(folder, name, json.dumps(document))


@pytest.mark.parametrize("base", BASES)
def test_known_models_load_without_it(base, bases, made, tmp_path) -> None:
    qa = earlytom.VideoQA.load(plant(bases[base], tmp_path / "model", made), device="cpu")
    for part in (qa.model, qa.processor, qa.processor.tokenizer, qa.model.config):
        assert type(part).__module__.startswith(("transformers.", "earlytom."))


@pytest.mark.parametrize("base", ["onevision", "qwen", "converted"])
@pytest.mark.parametrize("kind", ["own", "custom", ...])
def test_unknown_models_are_refused(base, kind, bases, made, tmp_path) -> None:
    folder = plant(bases[base], tmp_path / "model", made)
    change(folder, "config.json", model_type=kind)
    # The same for all parts.
    with pytest.raises(earlytom.ModelError, match=r"model_type in config\.json") as caught:
        earlytom.VideoQA.load(folder, device="cpu")
    assert "trust_remote_code" not in str(caught.value)


@pytest.mark.parametrize("base", ["onevision", "qwen"])
@pytest.mark.parametrize("processor", [..., "OwnProcessor"])
@pytest.mark.parametrize("tokenizer", [..., "OwnTokenizer"])
def test_processors_and_tokenizers_of_the_folder_are_not_loaded(
    base, processor, tokenizer, bases, made, tmp_path
) -> None:
    """With a class that is known, without any, and with one that only the folder has."""
    folder = plant(bases[base], tmp_path / "model", made)
    change(folder, "processor_config.json", processor_class=processor)
    change(folder, "tokenizer_config.json", tokenizer_class=tokenizer, processor_class=...)
    change(folder, "config.json", tokenizer_class=..., processor_class=...)
    unknown = "must name a processor of transformers, got 'OwnProcessor'" if processor == "OwnProcessor" else None
    if unknown or base == "onevision":  # of the type qwen2_5_vl transformers knows the tokenizer
        with pytest.raises(earlytom.ModelError, match=unknown or "code of its own, which is never run") as caught:
            earlytom.VideoQA.load(folder, device="cpu")
        assert "trust_remote_code" not in str(caught.value)
        return
    qa = earlytom.VideoQA.load(folder, device="cpu")
    assert type(qa.processor).__module__.startswith("transformers.")
    assert type(qa.processor.tokenizer).__module__.startswith("transformers.")


def test_parts_of_unknown_types_are_refused(bases, made, tmp_path) -> None:
    for part in ("vision_config", "text_config"):
        folder = plant(bases["onevision"], tmp_path / part, made)
        settings = json.loads((folder / "config.json").read_text())
        settings[part]["model_type"] = "own"
        put(folder, "config.json", json.dumps(settings))
        with pytest.raises(earlytom.ModelError, match=r"config\.json"):
            earlytom.VideoQA.load(folder, device="cpu")


def test_conversion_runs_nothing(bases, made, tmp_path) -> None:
    from earlytom.models.llava_video.conversion import convert

    folder = plant(bases["published"], tmp_path / "model", made)
    convert(folder, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.py"))
    assert "auto_map" not in (tmp_path / "out" / "config.json").read_text()


def test_the_command_line_does_not_ask(bases, made, tmp_path) -> None:
    """``yes | earlytom ask ... --model FOLDER``."""
    folder = plant(bases["onevision"], tmp_path / "model", made)
    change(folder, "config.json", model_type="own")
    command = (sys.executable, "-c", "from earlytom.cli.app import main; main()", "ask")
    done = subprocess.run(
        [*command, str(earlytom.sample_videos()[0]), "What?", "--model", str(folder), "--device", "cpu"],
        input="y\n" * 1000, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    assert "[y/N]" not in done.stdout + done.stderr
    assert "model_type in config.json is 'own'" in done.stderr
