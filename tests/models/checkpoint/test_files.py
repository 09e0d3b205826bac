"""Files of a checkpoint on the hub: what is not there, and what could not be had, are told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants, errors
from transformers.utils import hub

import earlytom
from earlytom.models.checkpoint.files import find, read_settings, weight_files

REPOSITORY = "somebody/model"
COMMIT = "0" * 40
WHOLE = ("config.json", "model.safetensors", "processor_config.json")


class Hub:
    """A cache, and what a download would come to."""

    def __init__(self, cache: Path) -> None:
        self.folder = cache / "models--somebody--model"
        self.answer: Callable[[str], Exception] = lambda name: absent()
        (self.folder / "refs").mkdir(parents=True)
        (self.folder / "refs" / "main").write_text(COMMIT)
        self.snapshot.mkdir(parents=True)

    @property
    def snapshot(self) -> Path:
        return self.folder / "snapshots" / COMMIT

    def hold(self, *names: str) -> None:
        for name in names:
            (self.snapshot / name).write_text('{"model_type": "x", "weight_map": {"w": "model-1-of-2.safetensors"}}')

    def note_absent(self, name: str) -> None:
        (self.folder / ".no_exist" / COMMIT).mkdir(parents=True, exist_ok=True)
        (self.folder / ".no_exist" / COMMIT / name).touch()

    def download(self, repository: str, name: str, **_: Any) -> str:
        # As huggingface_hub does, what is in the cache is taken when the hub cannot be asked.
        raise self.answer(name)


def response(status: int) -> Any:
    """As much of an answer as the hub's errors look at."""
    return SimpleNamespace(status_code=status, headers={}, request=None)


def absent() -> Exception:
    return errors.RemoteEntryNotFoundError("404: no such file", response=response(404))


def unreachable() -> Exception:
    return errors.LocalEntryNotFoundError("Cannot find the requested files in the disk cache")


FAILURES: dict[str, tuple[Callable[[], Exception], str]] = {
    "no network": (unreachable, "couldn't connect to"),
    "gated": (lambda: errors.GatedRepoError("403: ask for access", response=response(403)), "gated repo"),
    "no repository": (
        lambda: errors.RepositoryNotFoundError("404", response=response(404)), "is not a valid model identifier",
    ),
    "no revision": (
        lambda: errors.RevisionNotFoundError("404", response=response(404)), "is not a valid git identifier",
    ),
    "the hub is ill": (lambda: errors.HfHubHTTPError("503", response=response(503)), "specific connection error"),
    "cut off": (lambda: RuntimeError("peer closed connection"), "peer closed connection"),
    "cache not writable": (lambda: PermissionError(13, "Permission denied"), "PermissionError"),
    "disk full": (lambda: OSError(28, "No space left on device"), "No space left"),
}  # fmt: skip


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "hf_hub_download", made.download)
    monkeypatch.setattr(hub, "is_offline_mode", lambda: False)
    return made


@pytest.mark.parametrize("failure", FAILURES)
def test_what_could_not_be_had_is_not_told_as_missing(failure, fake_hub) -> None:
    make, words = FAILURES[failure]
    fake_hub.hold("config.json")
    fake_hub.answer = lambda name: make()
    for look in (lambda: find(REPOSITORY, "processor_config.json"), lambda: weight_files(REPOSITORY)):
        with pytest.raises(
            earlytom.ModelError, match=rf"(processor_config\.json|safetensors) cannot be had: .*{words}"
        ) as caught:
            look()
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("failure", FAILURES)
def test_loading_says_why_the_first_file_could_not_be_had(failure, fake_hub) -> None:
    make, words = FAILURES[failure]
    fake_hub.answer = lambda name: make()
    with pytest.raises(earlytom.ModelError, match=rf"from 'somebody/model': config\.json cannot be had: .*{words}"):
        earlytom.VideoQA.load(REPOSITORY, device="cpu")


def test_what_is_not_there_is_none(fake_hub) -> None:
    assert find(REPOSITORY, "processor_config.json") is None
    with pytest.raises(earlytom.ModelError, match=r"it holds no config\.json"):
        read_settings(REPOSITORY)
    with pytest.raises(earlytom.ModelError, match="the checkpoint holds no weights"):
        weight_files(REPOSITORY)


@pytest.mark.parametrize("failure", ["no network", "gated", "the hub is ill"])
def test_a_whole_checkpoint_in_the_cache_is_taken_as_it_lies_there(failure, fake_hub) -> None:
    fake_hub.hold(*WHOLE)
    fake_hub.answer = lambda name: FAILURES[failure][0]()
    assert find(REPOSITORY, "adapter_config.json") is None
    assert find(REPOSITORY, "config.json", needed=True) == fake_hub.snapshot / "config.json"
    assert weight_files(REPOSITORY).files == {"model.safetensors": fake_hub.snapshot / "model.safetensors"}


@pytest.mark.parametrize("left_out", WHOLE)
def test_half_a_checkpoint_in_the_cache_is_not_taken_for_a_whole_one(left_out, fake_hub) -> None:
    fake_hub.hold(*(name for name in WHOLE if name != left_out))
    fake_hub.answer = lambda name: unreachable()
    with pytest.raises(earlytom.ModelError, match=r"adapter_config\.json cannot be had"):
        find(REPOSITORY, "adapter_config.json")
    fake_hub.note_absent("adapter_config.json")
    assert find(REPOSITORY, "adapter_config.json") is None


def test_a_part_that_an_index_lists_has_to_come(fake_hub) -> None:
    fake_hub.hold("config.json", "processor_config.json", "model.safetensors.index.json", "model-2-of-2.safetensors")
    fake_hub.answer = lambda name: unreachable()
    with pytest.raises(earlytom.ModelError, match=r"model-1-of-2\.safetensors cannot be had: We couldn't connect"):
        weight_files(REPOSITORY)


@pytest.mark.parametrize("name", ["/dev/null", " ", "a/b/c", "../x"])
def test_what_is_no_name_of_a_repository_is_told(name) -> None:
    with pytest.raises(earlytom.ModelError, match=r"config\.json"):
        find(name, "config.json", needed=True)
