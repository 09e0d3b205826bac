"""Reading methods from options and text, and writing them back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earlytom import EarlyTom, Method, MethodError, Uncompressed, make_method, parse_method
from earlytom.methods import METHODS, find_method, method_names
from earlytom.methods.base import check_choice, check_range
from earlytom.methods.presets import PRESETS
from earlytom.types import FrameGrid
from reference.strategies import quick

shares = st.floats(0, 1, exclude_min=True)
maybe_bool = st.none() | st.booleans()


@st.composite
def configurations(draw: st.DrawFn) -> EarlyTom:
    """Any EarlyTom that its constructor accepts."""
    preset = draw(st.none() | st.sampled_from(sorted(PRESETS)))
    layers = draw(st.none() | st.lists(st.integers(0, 60), min_size=1, max_size=4, unique=True).map(sorted).map(tuple))
    return EarlyTom(
        preset=preset,
        retention=draw(st.sampled_from(sorted(PRESETS[preset])) if preset else shares),
        tau_seg=draw(st.none() | st.floats(-1, 1)),
        merge_layers=layers,
        ema=draw(shares),
        max_window=draw(st.integers(2, 100)),
        compat=draw(st.sampled_from(["default", "official", "paper"])),
        frame_merging=draw(st.booleans()),
        weighted_merging=draw(st.booleans()),
        decoupled_selection=draw(st.booleans()),
        inner_merging=draw(maybe_bool),
        inner_layer=draw(st.none() | st.integers(1, 60)),
        inner_ratio=draw(st.floats(0, 1, exclude_max=True)),
    )


@quick
@given(configurations())
def test_a_method_survives_its_own_description(method) -> None:
    assert parse_method(method.describe()) == method


@quick
@given(configurations())
def test_options_as_values_and_as_text_build_the_same_method(method) -> None:
    values = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    assert EarlyTom.from_options(values) == method


def test_the_description_names_retention_and_what_differs_from_the_default() -> None:
    assert EarlyTom().describe() == "earlytom:retention=0.25"
    method = EarlyTom(retention=0.1, merge_layers=(6, 14), inner_merging=False, compat="paper")
    assert method.describe() == "earlytom:retention=0.1,merge_layers=6/14,compat=paper,inner_merging=false"


@pytest.mark.parametrize(
    ("knob", "text", "value"),
    [
        ("retention", "0.1", 0.1),
        ("retention", " 1e-1 ", 0.1),
        ("retention", "1", 1.0),
        ("tau_seg", "-0.5", -0.5),
        ("tau_seg", "none", None),
        ("tau_seg", "auto", None),
        ("tau_seg", "None", None),
        ("merge_layers", "6/14/20", (6, 14, 20)),
        ("merge_layers", "6-14-20", (6, 14, 20)),
        ("merge_layers", "7", (7,)),
        ("merge_layers", "auto", None),
        ("max_window", "8", 8),
        ("compat", "official", "official"),
        ("preset", "mvbench", "mvbench"),
        ("preset", "none", None),
        ("frame_merging", "false", False),
        ("frame_merging", "No", False),
        ("frame_merging", "0", False),
        ("frame_merging", "TRUE", True),
        ("frame_merging", "yes", True),
        ("frame_merging", "1", True),
        ("inner_merging", "true", True),
        ("inner_merging", "none", None),
        ("inner_layer", "18", 18),
    ],
)
def test_text_is_read_by_the_type_of_the_knob(knob, text, value) -> None:
    read = getattr(EarlyTom.from_options({knob: text}), knob)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("knob", "text", "message"),
    [
        ("retention", "10%", "option retention cannot be read as float: '10%'"),
        ("retention", "", "option retention cannot be read as float"),
        ("retention", "nan", "retention must be a number in"),
        ("retention", "inf", "retention must be a number in"),
        ("max_window", "6.5", "option max_window cannot be read as int: '6.5'"),
        ("frame_merging", "maybe", "option frame_merging cannot be read as bool: 'maybe'"),
        ("frame_merging", "none", "option frame_merging cannot be read as bool: 'none'"),
        ("merge_layers", "6/x", "option merge_layers cannot be read as integers like 6/14/20"),
        ("merge_layers", "-1", "option merge_layers cannot be read as integers"),
        ("compat", "offical", "compat must be one of 'default', 'official', 'paper', got 'offical'"),
    ],
)
def test_text_that_cannot_be_read_says_so(knob, text, message) -> None:
    with pytest.raises(MethodError, match=message):
        EarlyTom.from_options({knob: text})


def test_an_unknown_option_lists_the_known_ones() -> None:
    known = ", ".join(field.name for field in dataclasses.fields(EarlyTom))
    with pytest.raises(MethodError, match=f"method 'earlytom' has no option 'retain'; it has: {known}"):
        EarlyTom.from_options({"retain": "0.1"})


def test_an_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(MethodError, match=r"unknown method 'holitomm'; the methods are: none, earlytom"):
        parse_method("holitomm:retention=0.1")


@pytest.mark.parametrize("text", ["earlytom", "earlytom:", " earlytom : ", "earlytom:,", "earlytom:retention=0.25,"])
def test_separators_and_spaces_do_not_matter(text) -> None:
    assert parse_method(text) == EarlyTom()


def test_an_option_without_a_value_is_refused() -> None:
    with pytest.raises(MethodError, match="expected option=value, got 'retention'"):
        parse_method("earlytom:retention")


def test_make_method_takes_methods_and_names_and_nothing_else() -> None:
    method = EarlyTom(retention=0.1)
    assert make_method(method) is method
    assert make_method("earlytom:retention=0.1") == method
    with pytest.raises(MethodError, match=r"got 0\.1"):
        make_method(0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", METHODS)
def test_every_listed_method_exists_under_its_name_and_says_what_it_is(name) -> None:
    found = find_method(name)
    assert issubclass(found, Method)
    assert found.name == name
    assert found.summary
    assert name in method_names()


@pytest.mark.parametrize("retention", [0, 0.0, -0.1, 1.0001, True, "0.1", None, float("nan")])
def test_retention_is_a_number_in_the_open_closed_unit_interval(retention) -> None:
    with pytest.raises(MethodError, match="retention must be a number in"):
        Method(retention=retention)


@pytest.mark.parametrize(
    "knobs",
    [
        {"ema": 0.0}, {"ema": 1.1}, {"tau_seg": 1.5}, {"tau_seg": -1.5}, {"max_window": 1}, {"max_window": 6.0},
        {"max_window": True}, {"inner_ratio": 1.0}, {"inner_ratio": -0.1}, {"inner_layer": 0}, {"inner_layer": 1.5},
        {"merge_layers": ()}, {"merge_layers": (6, 6)}, {"merge_layers": (14, 6)}, {"merge_layers": (-1, 6)},
        {"merge_layers": 6}, {"merge_layers": (True, 6)}, {"merge_layers": (6.0, 14)}, {"compat": "official "},
        {"inner_layer": True},
    ],
    ids=str,
)  # fmt: skip
def test_knobs_out_of_range_are_refused_by_name(knobs) -> None:
    (name,) = knobs
    with pytest.raises(MethodError, match=name):
        EarlyTom(**knobs)


def test_methods_are_frozen_and_hashable() -> None:
    method = EarlyTom(merge_layers=[6, 14])  # type: ignore[arg-type]
    assert method.merge_layers == (6, 14)
    assert len({method, EarlyTom(merge_layers=(6, 14))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.retention = 0.5  # type: ignore[misc]


def test_checkers() -> None:
    check_range("x", 0, 0.0, 1.0)
    check_range("x", 1, 0.0, 1.0, low_open=True)
    check_choice("x", "a", ("a", "b"))
    with pytest.raises(MethodError, match=r"x must be a number in \(0.0, 1.0\], got 0"):
        check_range("x", 0, 0.0, 1.0, low_open=True)
    with pytest.raises(MethodError, match=r"x must be one of 'a', 'b', got 'c'"):
        check_choice("x", "c", ("a", "b"))


def test_a_method_of_ones_own_gets_parser_budget_and_description() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(Method):
        strength: int = 3
        name = "mine"

    method = Mine.from_options({"strength": "5", "retention": "0.5"})
    assert (method.strength, method.budget(FrameGrid(frames=2, rows=3, columns=3))) == (5, 9)
    assert method.describe() == "mine:retention=0.5,strength=5"
    assert Uncompressed().describe() == "none:retention=1.0"
