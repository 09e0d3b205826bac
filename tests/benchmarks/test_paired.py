"""One method against another, from records that were written as an evaluation writes them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from earlytom import parse_method
from earlytom.eval.records import Asked, Record, RecordFile
from earlytom.eval.variants import Variant

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from paired import compare, main

METHOD, OTHER = "earlytom:retention=0.1", "visionzip:retention=0.1"


def write(folder: Path, method: str, *replies: str) -> None:
    file = RecordFile(folder, Variant(method=parse_method(method)).spec)
    for clip, reply in enumerate(replies):
        entry = Asked(question="Which colour?", expected="red", skill="colour", letters=False, guess=0.0, reply=reply)
        file.append(
            Record(clip=clip, seed=clip, asked=(entry,), visual_tokens=4, tokens_per_layer=4, frames_left=2, ttft=None)
        )


def test_the_difference_is_that_of_the_clips_that_both_answered(tmp_path) -> None:
    write(tmp_path, METHOD, "red", "red", "red", "blue", "red")
    write(tmp_path, OTHER, "red", "blue", "blue", "blue")
    (overall, colour) = compare(tmp_path, METHOD, OTHER)
    assert overall[:3] == ["all", "4", "+50.0"]
    assert colour[:3] == ["colour", "4", "+50.0"]
    assert compare(tmp_path, OTHER, METHOD)[0][2] == "-50.0"


def test_a_method_without_records_is_named(tmp_path) -> None:
    write(tmp_path, METHOD, "red")
    with pytest.raises(SystemExit, match=r"holds no records of visionzip:retention=0\.1"):
        compare(tmp_path, METHOD, OTHER)


def test_a_mix_averages_the_same_answers_in_another_way(tmp_path, capsys) -> None:
    for method, replies in ((METHOD, ("red", "no")), (OTHER, ("no", "red"))):
        file = RecordFile(tmp_path, Variant(method=parse_method(method)).spec)
        entries = tuple(
            Asked(question="?", expected="red", skill=skill, letters=False, guess=0.0, reply=reply)
            for skill, reply in zip(("colour", "position"), replies, strict=True)
        )
        numbers = {"visual_tokens": 4, "tokens_per_layer": 4, "frames_left": 2, "ttft": None}
        file.append(Record(clip=0, seed=0, asked=entries, **numbers))
    assert compare(tmp_path, METHOD, OTHER)[0][2] == "+0.0"
    assert compare(tmp_path, METHOD, OTHER, "benchmarks")[0][2] == "+66.7"  # five parts won, one lost
    main([str(tmp_path), METHOD, OTHER, "--mix", "benchmarks"])
    assert "+66.7" in capsys.readouterr().out
