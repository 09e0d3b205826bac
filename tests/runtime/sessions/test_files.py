"""Sessions in files: they go on as if nothing had happened, and only in the model that they are of."""

from __future__ import annotations

import json
import pickle
from random import Random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import earlytom
from earlytom.errors import CompressionError
from earlytom.runtime.sessions.fingerprint import fingerprint
from families import FAMILY_NAMES
from families.processors import video_qa
from runtime.sessions.fresh import FIRST, QUARTER, SECOND, asked


@pytest.fixture(scope="module")
def qa() -> earlytom.VideoQA:
    return video_qa("qwen2_5_vl")


@pytest.fixture(scope="module")
def saved(qa, tmp_path_factory):
    """A session with one turn in it, and its file."""
    path = tmp_path_factory.mktemp("sessions") / "talk.earlytom"
    session = opened(qa)
    session.ask(FIRST, max_new_tokens=3)
    session.save(path)
    return session, path


def opened(qa, **options):
    return qa.open(qa.read(earlytom.sample_videos()[0], earlytom.Sampling(frames=6)), method=QUARTER, **options)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_session_goes_on_from_its_file(family, tmp_path) -> None:
    qa = video_qa(family)
    session = opened(qa, system="here\n", max_history=2)
    session.ask(FIRST, max_new_tokens=4)
    session.save(tmp_path / "talk")
    again = video_qa(family).load_session(tmp_path / "talk")
    assert (again.history, again.memory, again.method) == (session.history, session.memory, session.method)
    (text, logits), (expected, wanted) = (asked(one, SECOND, max_new_tokens=4) for one in (again, session))
    assert text == expected
    assert torch.equal(logits, wanted)
    assert again.ask(FIRST, max_new_tokens=1).visual_tokens == session.visual_tokens
    assert again.trace.calls.maxlen == session.trace.calls.maxlen
    assert not again.trace.calls
    assert len(again.history) == 2


def test_saving_replaces_a_file_and_leaves_nothing_else(saved, tmp_path) -> None:
    session, _ = saved
    (tmp_path / "talk").write_text("before")
    session.save(tmp_path / "talk")
    session.save(str(tmp_path / "talk"))
    assert [path.name for path in tmp_path.iterdir()] == ["talk"]
    with pytest.raises(CompressionError, match=r"cannot be written to .*nowhere"):
        session.save(tmp_path / "nowhere" / "talk")


def test_another_model_other_weights_and_another_dtype_are_refused(saved) -> None:
    _, path = saved
    other = video_qa("qwen2_5_vl")
    assert other.load_session(path).history
    with torch.no_grad():
        other.model.model.language_model.layers[2].mlp.up_proj.weight.mul_(1.01)
    for stranger in (other, video_qa("llava_onevision"), video_qa("qwen3_vl")):
        with pytest.raises(CompressionError, match="another model, other weights or another dtype"):
            stranger.load_session(path)
    cast = video_qa("qwen2_5_vl")
    cast.model.to(torch.bfloat16)
    with pytest.raises(CompressionError, match="another dtype"):
        cast.load_session(path)


def test_fingerprints_tell_models_apart_by_values_and_by_names() -> None:
    one, other = video_qa("llava_onevision").model, video_qa("llava_onevision").model
    assert fingerprint(one) == fingerprint(other)
    other.model.language_model.rotary_emb.inv_freq[0] += 1
    assert fingerprint(one) != fingerprint(other)
    plain, named = torch.nn.Sequential(torch.nn.ReLU()), torch.nn.Sequential(torch.nn.ReLU())
    plain.register_buffer("first", torch.ones(3))
    named.register_buffer("second", torch.ones(3))
    assert fingerprint(plain) != fingerprint(named)


def contents(path) -> tuple[dict, dict]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["earlytom_session"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def written(path, record, tensors):
    text = record if isinstance(record, str) else json.dumps(record)
    save_file(tensors, path, metadata={"earlytom_session": text})
    return path


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("format", 2, "format must be 1, got 2"),
        ("format", None, "format must be 1"),
        ("model", 3, "its model is not"),
        ("method", None, "its method"),
        ("head", "text", "its head"),
        ("head", [-1], "its head"),
        ("head", [10**6], "tokens that are none of the model's"),
        ("tail", [True], "its tail"),
        ("tail", [], "its ids must be"),
        ("next_position", -1, "its next_position"),
        ("next_position", 1.5, "its next_position"),
        ("prompt_tokens", "9", "its prompt_tokens"),
        ("seen", [], "its seen"),
        ("seen", {"frames": 1}, "its visual_tokens"),
        ("talk", None, "its talk"),
        ("talk", {"turns": [["a"]]}, "its turns"),
        ("talk", {"turns": [], "videos": 0}, "its videos"),
        ("talk", {"turns": [], "videos": 1, "instruction": 1}, "its instruction"),
        ("talk", {"turns": [], "videos": 1, "instruction": "", "system": 1}, "its system"),
        ("talk", {"turns": [], "videos": 1, "instruction": "", "limit": -1}, "max_history"),
    ],
)
def test_every_field_is_checked(qa, saved, tmp_path, field, value, words) -> None:
    record, tensors = contents(saved[1])
    path = written(tmp_path / "talk", record | {field: value}, tensors)
    with pytest.raises(CompressionError, match=rf"talk' cannot be opened as a session: .*{words}"):
        qa.load_session(path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("ids", lambda ids: ids[:, 1:], "its ids must be"),
        ("ids", lambda ids: ids.float(), "its ids must be torch.int64"),
        ("ids", lambda ids: ids + 10**6, "from 0 below"),
        ("positions", lambda positions: positions - 10**6, "its positions must be numbers from 0"),
        ("positions", lambda positions: positions[:2], "2 axes, not 3 or 4"),
        ("positions", None, "its positions must be"),
        ("keys.0", None, "holds no cache"),
        ("keys.0", lambda keys: keys.long(), "holds no cache"),
        ("keys.1", None, r"its keys\.1 must be"),
        ("values.2", lambda values: values[:, :, 1:], r"its values\.2 must be"),
        ("values.0", lambda values: values.to(torch.bfloat16), r"its values\.0 must be torch.float32"),
        ("keys.0", lambda keys: keys[:, :1].contiguous(), r"its keys\.0 must be"),
    ],
)
def test_every_tensor_is_checked(qa, saved, tmp_path, name, change, words) -> None:
    record, tensors = contents(saved[1])
    kept = tensors.pop(name)
    if change is not None:
        tensors[name] = change(kept).contiguous()
    with pytest.raises(CompressionError, match=words):
        qa.load_session(written(tmp_path / "talk", record, tensors))


def test_what_is_no_session_is_refused_and_never_unpickled(qa, saved, tmp_path) -> None:
    class Run:
        def __reduce__(self):
            return (pytest.fail, ("it was run",))

    _, whole = saved
    _, tensors = contents(whole)
    files = {
        "pickled": pickle.dumps(Run()),
        "empty": b"",
        "cut": whole.read_bytes()[:-100],
        "text": b"no tensors" * 50,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    torch.save({"a": torch.ones(2)}, tmp_path / "torch")
    save_file(tensors, tmp_path / "silent")
    written(tmp_path / "broken", "{", tensors)
    written(tmp_path / "list", "[1]", tensors)
    written(tmp_path / "deep", "[" * 100_000, tensors)
    for name in (*files, "torch", "silent", "broken", "list", "deep", "missing"):
        with pytest.raises(CompressionError, match=rf"{name}' cannot be opened as a session"):
            qa.load_session(tmp_path / name)
    with pytest.raises(CompressionError, match="cannot be opened as a session"):
        qa.load_session(tmp_path)


def test_positions_of_another_kind_are_refused(tmp_path) -> None:
    qa = video_qa("llava_onevision")
    opened(qa).save(tmp_path / "talk")
    record, tensors = contents(tmp_path / "talk")
    for changed, more in (({"next_position": 3}, {}), ({}, {"positions": torch.zeros(3, 1, 2, dtype=torch.int64)})):
        with pytest.raises(CompressionError, match="not numbers in the sequence"):
            qa.load_session(written(tmp_path / "odd", record | changed, tensors | more))


def test_damaged_files_are_refused_or_harmless(qa, saved, tmp_path) -> None:
    """Bytes of a file changed, left out and doubled, most of them where it says what it holds."""
    random, whole, path = Random(0), saved[1].read_bytes(), tmp_path / "talk"
    header = 8 + int.from_bytes(whole[:8], "little")
    told: list[str] = []
    for _ in range(300):
        data = bytearray(whole)
        place = random.randrange(header if random.random() < 0.8 else len(data))
        length = random.choice([1, 1, 4, 64])
        change = random.randrange(3)
        data[place : place + length] = (random.randbytes(length), b"", data[place : place + length] * 2)[change]
        path.write_bytes(data)
        try:
            with qa.load_session(path) as session:
                session.ask(SECOND, max_new_tokens=1)
        except CompressionError as error:
            told.append(str(error))
    assert len(told) > 200
    assert max(map(len, told)) < 1000
