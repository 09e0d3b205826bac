"""Records survive a stopped process, and folders refuse other settings."""

from __future__ import annotations

import json

import pytest

from earlytom.errors import EarlyTomError
from earlytom.eval.records import Asked, Record, RecordFile, claim_folder


def record(clip: int, reply: str = "red") -> Record:
    asked = Asked(question="What?", expected="red", skill="colour", letters=False, guess=0.0, reply=reply)
    return Record(clip=clip, seed=7, asked=(asked,), visual_tokens=10, tokens_per_layer=7.5, frames_left=4, ttft=0.5)


def test_records_come_back_as_they_were(tmp_path) -> None:
    file = RecordFile(tmp_path, "earlytom:retention=0.25,merge_layers=1/3")
    assert file.records() == {}
    for clip in (2, 0):
        file.append(record(clip))
    assert RecordFile(tmp_path, "earlytom:retention=0.25,merge_layers=1/3").records() == {2: record(2), 0: record(0)}
    assert RecordFile(tmp_path, "earlytom:retention=0.25").records() == {}
    assert file.path.parent.parent == tmp_path


def test_an_unfinished_line_is_done_again(tmp_path) -> None:
    file = RecordFile(tmp_path, "none")
    file.append(record(0))
    with file.path.open("ab") as handle:
        handle.write(record(1).to_line()[:-20])
    resumed = RecordFile(tmp_path, "none")
    assert list(resumed.records()) == [0]
    resumed.append(record(1, "blue"))
    resumed.append(record(2))
    assert resumed.records() == {0: record(0), 1: record(1, "blue"), 2: record(2)}
    assert RecordFile(tmp_path, "none").records() == resumed.records()


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path) -> None:
    writer, reader = RecordFile(tmp_path, "none"), RecordFile(tmp_path, "none")
    writer.append(record(0))
    line = record(1).to_line()
    with writer.path.open("ab", buffering=0) as handle:
        handle.write(line[:30])
        assert list(reader.records()) == [0]
        handle.write(line[30:])
        assert list(reader.records()) == [0, 1]


def test_processes_see_one_another_and_the_first_record_counts(tmp_path) -> None:
    one, other = RecordFile(tmp_path, "none"), RecordFile(tmp_path, "none")
    one.append(record(0, "red"))
    other.append(record(0, "blue"))
    assert one.records() == other.records() == {0: record(0, "red")}


def test_long_and_odd_names_make_files_of_their_own(tmp_path) -> None:
    specs = ["a:x=" + "1/" * 200, "a:x=" + "1/" * 201, "a:x=../..", "a:x=%%/%%"]
    files = [RecordFile(tmp_path, spec) for spec in specs]
    for clip, file in enumerate(files):
        file.append(record(clip))
    assert [list(RecordFile(tmp_path, spec).records()) for spec in specs] == [[0], [1], [2], [3]]
    assert len(list((tmp_path / "records").iterdir())) == 4


def test_a_folder_goes_on_with_the_same_settings_only(tmp_path) -> None:
    folder = tmp_path / "deep" / "run"
    settings = {"seed": 0, "skills": ("a", "b"), "device": "cpu"}
    claim_folder(folder, settings)
    claim_folder(folder, settings)
    assert json.loads((folder / "run.json").read_text()) == {"seed": 0, "skills": ["a", "b"], "device": "cpu"}
    with pytest.raises(EarlyTomError, match="other settings: seed is 0 there, 1 now; use another folder"):
        claim_folder(folder, settings | {"seed": 1})
    with pytest.raises(EarlyTomError, match="more is None there, 5 now"):
        claim_folder(folder, settings | {"more": 5})
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_what_cannot_be_used_is_named(tmp_path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(EarlyTomError, match="is not JSON"):
        claim_folder(tmp_path, {})
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(EarlyTomError, match="holds no settings"):
        claim_folder(tmp_path, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(EarlyTomError, match="cannot be used"):
        claim_folder(tmp_path / "file", {})
    with pytest.raises(EarlyTomError, match="cannot be written"):
        RecordFile(tmp_path / "file", "none").append(record(0))
    blocked = RecordFile(tmp_path, "none")
    blocked.path.mkdir(parents=True)
    with pytest.raises(EarlyTomError, match="cannot be read"):
        blocked.records()
