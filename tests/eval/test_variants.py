"""The list of methods, and the retentions that each gets."""

from __future__ import annotations

import pytest

from earlytom.errors import MethodError
from earlytom.eval.variants import CONTROLS, make_variants, split_methods
from earlytom.methods import method_names, parse_method


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["earlytom"], ["earlytom"]),
        (["none,earlytom"], ["none", "earlytom"]),
        (["none", "earlytom"], ["none", "earlytom"]),
        (["earlytom:ema=0.5,max_window=4"], ["earlytom:ema=0.5,max_window=4"]),
        (["earlytom:ema=0.5, max_window=4 ,none"], ["earlytom:ema=0.5,max_window=4", "none"]),
        (["none,earlytom:ema=0.5,max_window=4,none"], ["none", "earlytom:ema=0.5,max_window=4", "none"]),
        (["one+two:ema=0.5,two.x=1,three-four:y=2"], ["one+two:ema=0.5,two.x=1", "three-four:y=2"]),
        (["all,none"], ["all", "none"]),
        (["", " , "], []),
    ],
)  # fmt: skip
def test_a_comma_before_an_option_belongs_to_its_method(texts, expected) -> None:
    assert split_methods(texts) == expected


@pytest.mark.parametrize(
    ("text", "hint"), [("ema=0.5", "METHOD:ema=0.5"), ("earlytom,ema=0.5", "write earlytom:ema=0.5")]
)
def test_an_option_without_a_method_is_refused(text, hint) -> None:
    with pytest.raises(MethodError, match=hint):
        split_methods([text])


def described(methods, retentions) -> list[tuple[str, float | None]]:
    return [(variant.label, variant.retention) for variant in make_variants(methods, retentions)[0]]


def test_the_baseline_comes_first_and_once() -> None:
    assert described([], [0.25]) == [("none", 1.0)]
    assert described(["none", "none:retention=1"], [0.25]) == [("none", 1.0)]
    assert make_variants([], [])[0][0].is_baseline


def test_all_is_every_method_that_can_run() -> None:
    variants, left_out = make_variants(["all", "earlytom:ema=0.5"], [0.25, 0.05])
    assert [variant.label for variant in variants if variant.label in method_names()][:3] == ["none", *["earlytom"] * 2]
    assert {variant.label for variant in variants} == {*method_names(), "earlytom:ema=0.5"}
    assert len({variant.spec for variant in variants}) == len(variants)
    assert any(told.startswith("left out: dycoke: ") and "0.05" in told for told in left_out)


def test_numbers_of_tokens_stand_where_retentions_do() -> None:
    variants, left_out = make_variants(
        ["earlytom", "visionzip:retention=0.2", "inner-merging"], [], visual_tokens=[64, 9]
    )
    assert [(variant.label, *variant.amount) for variant in variants] == [
        ("none", 1.0, None),
        ("earlytom:visual_tokens=64", None, 64),
        ("earlytom:visual_tokens=9", None, 9),
        ("visionzip", 0.2, None),
        ("inner-merging", 1.0, None),
    ]
    assert left_out == []
    assert [variant.spec for variant in make_variants(["earlytom:visual_tokens=7"], [0.25])[0]] == [
        "none:retention=1.0",
        "earlytom:visual_tokens=7",
    ]


def test_methods_that_take_no_number_of_tokens_are_left_out_or_refused() -> None:
    variants, left_out = make_variants(["all"], [], visual_tokens=[64])
    assert {variant.method.name for variant in variants} == {
        "none", "earlytom", "random", "uniform", "average-pooling", "visionzip", "holitom", "fastvid", "prunevid",
        "evs", "vidcom2", "tome", "inner-merging",
    }  # fmt: skip
    assert any(told.startswith("left out: dycoke: method 'dycoke' takes no visual_tokens") for told in left_out)
    with pytest.raises(MethodError, match="method 'fastv' takes no visual_tokens"):
        make_variants(["fastv"], [], visual_tokens=[64])


def test_what_a_model_refuses_is_left_out_unless_nothing_is_left() -> None:
    def check(method) -> None:
        if method.retention < 0.2 or method.name == "fastv":
            raise MethodError(f"{method.name} does not fit at {method.retention}")

    variants, left_out = make_variants(["earlytom"], [0.25, 0.1], check)
    assert [variant.retention for variant in variants] == [1.0, 0.25]
    assert left_out == ["left out: earlytom: earlytom does not fit at 0.1"]
    assert "fastv" not in {variant.label for variant in make_variants(["all"], [0.25], check)[0]}
    with pytest.raises(MethodError, match=r"fastv does not fit at 0.25"):
        make_variants(["fastv"], [0.25, 0.1], check)
    with pytest.raises(MethodError, match=r"earlytom does not fit at 0.1"):
        make_variants(["earlytom:retention=0.1"], [0.25], check)


def test_methods_without_a_retention_run_as_they_are() -> None:
    assert described(["inner-merging"], [0.25, 0.1]) == [("none", 1.0), ("inner-merging", 1.0)]
    assert described(["fastv:ratio=0.5"], [0.25, 0.1]) == [("none", 1.0), ("fastv:ratio=0.5", None)]


def test_compositions_have_one_retention_for_all_their_parts() -> None:
    found = make_variants(["earlytom+visionzip:visionzip.compat=official"], [0.25, 0.2])[0][1:]
    assert [variant.retention for variant in found] == [0.25, 0.2]
    (label,) = {variant.label for variant in found}
    assert "retention" not in label
    assert "compat=official" in label
    assert all(parse_method(variant.spec).describe() == variant.spec for variant in found)


def test_retentions_go_to_every_method_that_names_none() -> None:
    found = described(["earlytom", "earlytom:retention=0.5,ema=0.5", "earlytom:compat=official"], [0.25, 0.1])
    assert found == [
        ("none", 1.0),
        ("earlytom", 0.25),
        ("earlytom", 0.1),
        ("earlytom:ema=0.5", 0.5),
        ("earlytom:compat=official", 0.25),
        ("earlytom:compat=official", 0.1),
    ]


def test_the_same_method_written_twice_is_run_once() -> None:
    found = described(["earlytom", "earlytom:ema=0.9", "earlytom:retention=0.25", "earlytom:retention=.1"], [0.25])
    assert found == [("none", 1.0), ("earlytom", 0.25), ("earlytom", 0.1)]


def test_a_spec_can_be_read_back() -> None:
    variant = make_variants(["earlytom:merge_layers=1/3,inner_merging=true"], [0.1])[0][1]
    assert parse_method(variant.spec) == variant.method


@pytest.mark.parametrize(
    ("methods", "retentions", "message"),
    [
        (["nonsense"], [0.25], "unknown method 'nonsense'"),
        (["earlytom:nonsense=1"], [0.25], "no option 'nonsense'"),
        (["earlytom"], [2.0], "retention must be a number"),
        (["none:retention=0.5"], [0.25], "keeps every token"),
    ],
)
def test_wrong_methods_are_refused(methods, retentions, message) -> None:
    with pytest.raises(MethodError, match=message):
        make_variants(methods, retentions)


def test_controls_come_last_once_and_only_where_they_can_run() -> None:
    def check(method) -> None:
        if method.name == "average-pooling" and method.retention < 0.2:
            raise MethodError("too few")

    variants, left_out = make_variants(["uniform"], [0.25, 0.1], check, controls=CONTROLS)
    assert [(variant.label, variant.retention) for variant in variants] == [
        ("none", 1.0), *[("uniform", share) for share in (0.25, 0.1)], *[("random", share) for share in (0.25, 0.1)],
        ("average-pooling", 0.25),
    ]  # fmt: skip
    assert left_out == ["left out: average-pooling: too few"]


def test_all_takes_stand_ins_where_defaults_cannot_run_and_named_methods_do_not() -> None:
    def check(method) -> None:
        if getattr(method, "scores", None) == "pooling_head":
            raise MethodError("no pooling head")
        if method.name == "pyramiddrop":
            method.llm_plan(8)

    variants, _ = make_variants(["all"], [0.25, 0.15], check)
    labels = [(variant.label, variant.retention) for variant in variants]
    assert ("fastvid:scores=received", 0.15) in labels
    assert ("pyramiddrop:schedule=tables", 0.25) in labels
    assert not any(label in ("fastvid", "pyramiddrop") for label, _ in labels)
    with pytest.raises(MethodError, match="no pooling head"):
        make_variants(["fastvid"], [0.25], check)
