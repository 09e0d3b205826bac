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


def changed(**values: object) -> dict[str, object]:
    return json.loads(record(0).to_line()) | values


def asked(**values: object) -> dict[str, object]:
    (entry,) = changed()["asked"]
    return changed(asked=[entry | values])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (changed(clip="3"), "clip of a record must be an integer of at least 0, got '3'"),
        (changed(clip=-1), "clip of a record must be"),
        (changed(clip=True), "clip of a record must be"),
        (changed(seed=10**30), "seed of a record must be"),
        (changed(visual_tokens=None), "visual_tokens of a record must be an integer of at least 0, got None"),
        (changed(tokens_per_layer=float("nan")), "tokens_per_layer of a record must be a finite number, got nan"),
        (changed(tokens_per_layer=[1]), "tokens_per_layer of a record must be"),
        (changed(frames_left={"a": 1}), "frames_left of a record must be"),
        (changed(ttft="fast"), "ttft of a record must be a finite number or null, got 'fast'"),
        (changed(ttft=float("inf")), "ttft of a record must be"),
        (changed(asked={}), "asked of a record must be a list with an entry"),
        (changed(asked=[]), "asked of a record must be a list with an entry"),
        (changed(asked=[3]), "an entry of asked must have the fields question, expected, skill"),
        (changed(more=3), "a record must have the fields clip, seed, asked"),
        (asked(question=5), "question of an entry of asked must be text, got 5"),
        (asked(skill="cooking"), "skill of an entry of asked must be one of colour"),
        (asked(skill=["colour"]), "skill of an entry of asked must be one of"),
        (asked(letters=1), "letters of an entry of asked must be true or false, got 1"),
        (asked(guess="0.5"), "guess of an entry of asked must be a finite number"),
        (asked(reply=None), "reply of an entry of asked must be text, got None"),
        (changed(clip="x" * 10**6), "clip of a record must be"),
        ([1, 2], "a record must have the fields"),
        (7, "a record must have the fields"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, words) -> None:
    file = RecordFile(tmp_path, "none")
    file.append(record(5))
    with file.path.open("a") as handle:
        handle.write(json.dumps(line) + "\n")
    file.append(record(6))
    with pytest.raises(EarlyTomError) as caught:
        RecordFile(tmp_path, "none").records()
    assert f"{file.path}, line 2: {words}" in str(caught.value)
    assert "remove the line, or use another folder" in str(caught.value)
    assert len(str(caught.value)) < 800


def test_a_line_is_counted_over_several_readings(tmp_path) -> None:
    file = RecordFile(tmp_path, "none")
    for clip in range(3):
        file.append(record(clip))
        assert len(file.records()) == clip + 1
    with file.path.open("a") as handle:
        handle.write("half\x85 of \x0c a line\n7\n")
    with pytest.raises(EarlyTomError, match="line 5: a record must have"):
        file.records()


@pytest.mark.parametrize("opening", ["[", '{"clip":'])
def test_deep_nesting_is_named(tmp_path, opening) -> None:
    file = RecordFile(tmp_path, "none")
    file.append(record(0))
    closing = {"[": "]", '{"clip":': "}"}[opening]
    with file.path.open("a") as handle:
        handle.write(opening * 200_000 + "1" + closing * 200_000 + "\n")
    with pytest.raises(EarlyTomError, match="line 2: is nested too deeply to be a record"):
        RecordFile(tmp_path, "none").records()
    (tmp_path / "run.json").write_text('{"seed": ' + opening * 200_000 + "1" + closing * 200_000 + "}")
    with pytest.raises(EarlyTomError, match=r"run\.json: is not JSON"):
        claim_folder(tmp_path, {"seed": 1})


def test_settings_of_any_kind_are_compared_and_shortened(tmp_path) -> None:
    for value in (None, [[[1]]], {"a": {"b": 1}}, "x" * 10**6, 1.5, list(range(10**5))):
        (tmp_path / "run.json").write_text(json.dumps({"seed": value, "y" * 10**5: value}))
        with pytest.raises(EarlyTomError, match="other settings: seed is") as caught:
            claim_folder(tmp_path, {"seed": 0})
        assert len(str(caught.value)) < 1500


def test_a_folder_whose_name_is_too_long_is_one_short_line(tmp_path) -> None:
    with pytest.raises(EarlyTomError, match="cannot be used") as caught:
        claim_folder(tmp_path / ("x" * 5000), {})
    assert len(str(caught.value)) < 300
