"""Loading folders that are broken in one place: a `ModelError` that names it, soon, and never the folder's own code."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import earlytom
from broken_checkpoints import BASES, FIVE, copy, edit, evil_pickle, fields, kinds, make_bases, put, save_tiny
from earlytom.models import FAMILIES
from earlytom.models.checkpoint.weights import _unpickle
from earlytom.runtime.loading import load_model
from families.processors import video_qa

# Reading it all takes a fraction of a second; building what 10 million layers ask for would take half a minute.
SECONDS = 5.0
# What would tell how to have the refused thing done all the same.
OVERRIDES = "trust_remote_code|weights_only|allow_pickle|safe_globals"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_bases(tmp_path_factory.mktemp("bases"))


def load(folder: Path) -> earlytom.VideoQA:
    return earlytom.VideoQA.load(folder, device="cpu")


@pytest.mark.parametrize("base", BASES)
def test_whole_folders_load(base, bases) -> None:
    assert load(bases[base]).processor.tokenizer is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_every_family_load_as_they_were_saved(family, tmp_path) -> None:
    saved = video_qa(family)
    save_tiny(family, tmp_path)
    qa = load(tmp_path)
    assert all(torch.equal(value, saved.model.state_dict()[name]) for name, value in qa.model.state_dict().items())
    assert type(qa.processor) is type(saved.processor)


@pytest.mark.parametrize("kind", list(kinds()), ids=str)
def test_what_is_broken_is_named(kind, bases, tmp_path) -> None:
    folder = copy(bases[kind.base], tmp_path / "model")
    kind.change(folder)
    start = time.perf_counter()
    with pytest.raises(earlytom.ModelError) as caught:
        load(folder)
    message = str(caught.value)
    assert time.perf_counter() - start < SECONDS
    assert all(re.search(expected, message) for expected in kind.named), message
    assert "cannot load a model from" in message
    assert not re.search(OVERRIDES, message)
    assert len(message) < 2000
    assert "x" * 201 not in message


@pytest.mark.parametrize("base", FIVE)
def test_a_field_of_any_value_is_refused_when_loading_or_does_no_harm(base, bases, tmp_path) -> None:
    """Every field of ``config.json`` is replaced, each by another kind of value; what loads answers."""
    values = (0, -1, 3, 10**30, 0.5, 1e999, "x", None, True, [], {}, [[]], {"a": 1}, [1, 2], ...)
    places = list(fields(json.loads((bases[base] / "config.json").read_text())))
    frames = np.zeros((4, 64, 64, 3), dtype=np.uint8)
    refused = 0
    for number, place in enumerate(places):
        folder = copy(bases[base], tmp_path / str(number))
        edit(folder, "config.json", place, values[(number + FIVE.index(base)) % len(values)])
        try:
            qa = load(folder)
        except earlytom.ModelError:
            refused += 1
            continue
        assert qa.ask(frames, "what moves here ?", max_new_tokens=1).new_tokens == 1
    assert refused > len(places) / 3


def test_ten_million_layers_are_refused_at_once(bases, tmp_path) -> None:
    for base, place in (
        ("onevision", "text_config|num_hidden_layers"),
        ("onevision", "vision_config|num_hidden_layers"),
        ("qwen", "vision_config|depth"),
        ("published", "num_hidden_layers"),
        ("converted", "text_config|num_hidden_layers"),
    ):
        folder = copy(bases[base], tmp_path / place.replace("|", "_") / base)
        edit(folder, "config.json", place, 10_000_000)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            with pytest.raises(earlytom.ModelError, match=f"{place.split('|')[-1]} in config.json is 10000000, but"):
                load(folder)
            times.append(time.perf_counter() - start)
        assert min(times) < 0.5


def test_a_program_in_a_pickle_is_neither_run_nor_its_running_advised(bases, tmp_path) -> None:
    made = tmp_path / "made"
    for base, file in (("published bin", "pytorch_model-00002-of-00003.bin"), ("onevision", "pytorch_model.bin")):
        folder = copy(bases[base], tmp_path / base)
        put(folder, "model.safetensors", None)
        put(folder, file, evil_pickle(made))
        with pytest.raises(earlytom.ModelError, match=f"{re.escape(file)} is refused: .* never run") as caught:
            load(folder)
        # Nor in what Python prints of an error that nobody catches.
        import traceback

        assert not re.search(OVERRIDES, "".join(traceback.format_exception(caught.value)))
    assert not made.exists()


def test_plain_tables_in_pickles_load(bases, tmp_path) -> None:
    from safetensors.torch import load_file

    folder = copy(bases["onevision"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    put(folder, "model.safetensors", None)
    torch.save(weights, folder / "pytorch_model.bin")
    model = load(folder).model
    assert torch.equal(model.model.image_newline, weights["image_newline"].float())


def test_a_file_outside_the_folder_is_not_read(bases, tmp_path) -> None:
    """The file that the index names is there, and whole."""
    for base in ("sharded", "published"):
        for absolute in (False, True):
            folder = copy(bases[base], tmp_path / f"{base}{absolute}" / "model")
            outside = folder.parent / "x.safetensors"
            (folder / "model-00002-of-00003.safetensors").rename(outside)
            index = json.loads((folder / "model.safetensors.index.json").read_text())
            name = str(outside) if absolute else "../x.safetensors"
            moved = {
                weight: name if file.startswith("model-00002") else file for weight, file in index["weight_map"].items()
            }
            put(folder, "model.safetensors.index.json", json.dumps(index | {"weight_map": moved}))
            with pytest.raises(earlytom.ModelError, match=r"weight_map .* must name \.safetensors files beside it"):
                load(folder)


def test_attention_is_the_caller_s_to_choose(bases, tmp_path) -> None:
    """Checkpoints say what their makers had; it may name a kernel that would be fetched."""
    for base in ("onevision", "converted"):
        for kernel in ("somebody/kernel", "flash_attention_2"):
            folder = copy(bases[base], tmp_path / base / kernel)
            for place in ("", "text_config|", "vision_config|"):
                for key in ("attn_implementation", "_attn_implementation"):
                    edit(folder, "config.json", f"{place}{key}", kernel)
            assert load(folder).model.config._attn_implementation == "sdpa"
            eager = earlytom.VideoQA.load(folder, device="cpu", attention="eager").model.config
            assert eager._attn_implementation == eager.text_config._attn_implementation == "eager"


def test_a_long_name_is_not_repeated(tmp_path) -> None:
    for name in ("x" * 5000, "../" * 2000, "a/" + "b" * 3000):
        with pytest.raises(earlytom.ModelError, match="cannot load a model from") as caught:
            earlytom.VideoQA.load(name, device="cpu")
        assert len(str(caught.value)) < 1000


def test_other_files_than_the_needed_ones_do_no_harm(bases, tmp_path) -> None:
    """A folder as people have them: more files, and weights for which the model has no place."""
    from safetensors.torch import load_file, save_file

    folder = copy(bases["onevision"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors") | {"extra_head.weight": torch.zeros(2)}
    put(folder, "model.safetensors", None)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    put(folder, "README.md", "# A model")
    put(folder, "trainer_state.json", "[1,")
    put(folder, "generation_config.json", None)
    assert load(folder).model.config.model_type == "llava_onevision"


def test_an_adapter_in_the_folder_is_refused(tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(earlytom.shipped_model(), folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else", "peft_type": "LORA"}')
    with pytest.raises(earlytom.ModelError, match=r"adapter_config\.json: adapters are not loaded .* merge_and_unload"):
        load_model(folder, device="cpu", dtype="float32", attention=None)


def test_weights_of_the_old_pickle_format_are_read(tmp_path) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save({"weight": torch.arange(3.0)}, file, _use_new_zipfile_serialization=False)
    assert torch.equal(_unpickle(file, file.name)["weight"], torch.arange(3.0))
