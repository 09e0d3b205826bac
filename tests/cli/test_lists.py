"""``earlytom methods``, ``models`` and ``doctor``."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from earlytom.cli import doctor
from earlytom.cli.app import app
from earlytom.methods import METHODS, parse_method
from earlytom.methods.presets import EVERYDAY, PRESETS
from earlytom.models import FAMILIES
from earlytom.shipped import shipped_model


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_methods_json_agrees_with_the_methods() -> None:
    listed = json.loads(invoke("methods", "--json").stdout)
    assert [method["name"] for method in listed][: len(METHODS)] == list(METHODS)
    for method in listed:
        made = parse_method(method["name"])
        for option in method["options"]:
            default = getattr(made, option["name"])
            assert option["default"] == (list(default) if isinstance(default, tuple) else default)
            assert option["help"], option["name"]
    (found,) = [method for method in listed if method["name"] == "earlytom"]
    assert found["paper"] == "arXiv 2605.30010"
    assert found["stages"] == ["encoder", "tokens", "llm"]
    assert set(found["presets"]) == {*EVERYDAY, "paper", *PRESETS}
    assert found["presets"]["videomme"]["0.25"] == {
        "tau_seg": 0.6,
        "merge_layers": [10, 21, 23],
        "least_frames": 0.0,
        "least_pairs": 0.0,
        "inner_merging": True,
        "score_layer": None,
        "ranked_by": ["attention"],
        "cell_share": 1.0,
    }
    assert found["presets"]["fast"]["any"]["tau_seg"] is None
    assert (found["without_preset"]["merge_layers"], found["without_preset"]["least_frames"]) == ([3, 10, 16], 0.55)
    assert found["presets"]["paper"] == found["presets"]["mvbench"]


def test_methods_as_text() -> None:
    every = invoke("methods").stdout
    assert "retention=0.25" in every
    assert "videomme" in every
    flat = " ".join(every.split())
    assert "visual_tokens=N instead of retention keeps N tokens of every clip: earlytom, random, uniform" in flat
    assert flat.count("visual_tokens") == 1
    one = invoke("methods", "earlytom").stdout
    assert "weight of the newest similarity" in one
    assert "10/21/23" in one
    assert "(none)" in one
    assert "Stages: encoder, tokens, llm." in one
    assert "Stages: none." in invoke("methods", "none").stdout
    assert "earlytom+visionzip merges frames as earlytom does" in " ".join(every.split())
    assert "tau_seg" not in invoke("methods", "none").stdout
    unknown = invoke("methods", "nonsense")
    assert unknown.exit_code == 1
    assert f"the methods are: {', '.join(METHODS)}" in unknown.stderr


def test_a_number_of_tokens_is_listed_where_a_method_takes_one() -> None:
    listed = json.loads(invoke("methods", "--json").stdout)
    taking = {m["name"] for m in listed if any(option["name"] == "visual_tokens" for option in m["options"])}
    assert taking == {name for name in METHODS if parse_method(name).no_visual_tokens is None}
    assert "visual_tokens" in invoke("methods", "holitom").stdout
    assert "visual_tokens" not in invoke("methods", "fastv").stdout


def test_models_says_what_the_families_say() -> None:
    document = json.loads(invoke("models", "--json").stdout)
    assert [family["model_type"] for family in document["families"]] == list(FAMILIES)
    for family in document["families"]:
        assert family["classes"] == list(FAMILIES[family["model_type"]].classes)
    assert document["shipped"] == [
        {"model_type": name, "path": str(shipped_model(name)), "present": True}
        for name in ("llava_onevision", "qwen2_5_vl")
    ]
    assert "LlavaOnevisionForConditionalGeneration" in invoke("models").stdout


def test_doctor_is_content_here() -> None:
    result = invoke("doctor", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["healthy"] is True
    needed = {check["name"]: check["needed"] for check in document["checks"]}
    assert needed["torch"] == ">=2.11"
    assert needed["transformers"] == ">=5.17"
    assert document["machine"]["attention"] in ("sdpa", "eager", "flash_attention_2")
    assert document["machine"]["cpu_threads"] >= 1
    text = invoke("doctor").stdout
    assert "Everything required is there." in text
    assert "torchcodec" in text


@pytest.mark.parametrize(
    ("package", "found", "state"),
    [("torch", "2.10.1+cpu", "too old"), ("transformers", "5.9", "too old"), ("av", None, "missing")],
)
def test_doctor_fails_where_something_is_wrong(
    package: str, found: str | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: found if name == package else original(name))
    monkeypatch.setattr(doctor, "_machine", dict)
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["healthy"] is False
    assert {check["name"]: check["state"] for check in document["checks"]}[package] == state
    assert "Something required is missing" in invoke("doctor").stdout


def test_what_is_optional_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "matplotlib" else original(name))
    monkeypatch.setattr(doctor, "_machine", dict)
    result = invoke("doctor", "--json")
    assert result.exit_code == 0
    (check,) = [check for check in json.loads(result.stdout)["checks"] if check["name"] == "matplotlib"]
    assert check["state"] == "not installed"
    assert "pip install earlytom[eval]" in check["needed"]


@pytest.mark.parametrize(
    ("found", "state"), [("2.11", "ok"), ("2.11.0a0+git", "ok"), ("10.0", "ok"), ("2.9.1", "too old")]
)
def test_versions_are_compared_as_numbers(found: str, state: str) -> None:
    assert doctor._check("torch", found, ">=2.11", required=True).state == state
