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
from earlytom.types import EncoderPlan, EncoderShape, FrameGrid
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
        dynamic_selection=draw(st.sampled_from(["frame", "clip"])),
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


@pytest.mark.parametrize("retention", [0, 0.0, -0.1, 1.0001, True, "0.1", float("nan")])
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
        {"inner_layer": True}, {"dynamic_selection": "video"},
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


# A number of tokens instead of a share

GRID = FrameGrid(frames=8, rows=4, columns=4)
TAKING = [
    "earlytom", "random", "uniform", "average-pooling", "visionzip", "holitom", "fastvid", "prunevid", "evs", "vidcom2",
    "tome",
]  # fmt: skip
NO_SELECTION = "it selects no tokens before the language model"


def test_nothing_given_is_the_retention_of_the_class() -> None:
    assert (EarlyTom().retention, EarlyTom(retention=None).retention, EarlyTom().visual_tokens) == (0.25, 0.25, None)
    assert (EarlyTom.default_retention, Method().retention, find_method("fastv").default_retention) == (0.25, 1.0, 0.25)
    assert EarlyTom() == EarlyTom(retention=0.25) == parse_method("earlytom:retention=none")


@pytest.mark.parametrize("name", TAKING)
def test_a_number_of_tokens_is_the_budget_of_every_clip_or_all_it_has(name) -> None:
    method = parse_method(f"{name}:visual_tokens=100")
    assert (method.retention, method.visual_tokens) == (None, 100)
    small = FrameGrid(frames=2, rows=7, columns=7)
    assert [method.budget(GRID), method.budget(small)] == [100, 98]
    assert [method.share(GRID), method.share(small)] == [100 / 128, 1.0]
    assert method.steps_aside(GRID) is None
    assert method.steps_aside(small) == "a clip of 98 visual tokens has no more than the 100 asked for"
    assert method.describe() == f"{name}:visual_tokens=100"
    assert parse_method(method.describe()) == method
    assert parse_method(name, {"visual_tokens": "100"}) == parse_method(name, {"visual_tokens": 100}) == method


@pytest.mark.parametrize("name", TAKING)
def test_a_share_is_the_retention_where_that_is_given(name) -> None:
    assert parse_method(f"{name}:retention=0.3").share(GRID) == 0.3


@pytest.mark.parametrize("frames", [1, 2])
def test_small_clips_do_not_exceed_it_either(frames) -> None:
    """By retention earlytom leaves clips of one frame and of less than 64 tokens alone."""
    method, grid = EarlyTom(visual_tokens=20), FrameGrid(frames=frames, rows=5, columns=5)
    assert method.steps_aside(grid) is None
    assert method.budget(grid) == 20
    assert EarlyTom(retention=0.4).steps_aside(grid) is not None


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "7"])
def test_a_number_of_tokens_is_an_integer_of_at_least_one(value) -> None:
    with pytest.raises(MethodError, match="visual_tokens must be an integer of at least 1, got"):
        EarlyTom(visual_tokens=value)


def test_retention_and_a_number_of_tokens_are_not_both_given() -> None:
    both = r"retention \(0.25\) and visual_tokens \(100\) both say how much earlytom keeps; give one"
    with pytest.raises(MethodError, match=both):
        EarlyTom(retention=0.25, visual_tokens=100)
    with pytest.raises(MethodError, match=both):
        parse_method("earlytom:retention=0.25,visual_tokens=100")
    with pytest.raises(MethodError, match=both):
        dataclasses.replace(EarlyTom(), visual_tokens=100)
    assert dataclasses.replace(EarlyTom(), retention=None, visual_tokens=100) == EarlyTom(visual_tokens=100)
    assert dataclasses.replace(EarlyTom(visual_tokens=100), ema=0.5) == EarlyTom(visual_tokens=100, ema=0.5)
    assert dataclasses.replace(EarlyTom(visual_tokens=100), visual_tokens=None) == EarlyTom()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("none", NO_SELECTION), ("fastv", NO_SELECTION), ("fastv:ratio=0.5", NO_SELECTION),
        ("pyramiddrop", NO_SELECTION), ("inner-merging", NO_SELECTION),
        ("dycoke", "it keeps one frame in 4 whole, however many tokens that are"),
        ("uniform:frames=true", "frames=True keeps whole frames"),
        ("average-pooling:axis=space", "axis='space' pools to grids"),
        ("earlytom:compat=official", "compat='official' rounds frame by frame"),
        ("visionzip:compat=official", "compat='official' rounds frame by frame"),
        ("fastvid:compat=official", "compat='official' rounds frame by frame"),
        ("holitom:compat=official", "compat='official' rounds block by block"),
        ("evs:compat=official", "compat='official' counts by a pruning rate"),
        ("vidcom2:compat=official", "compat='official' counts by a pruning rate"),
        ("tome:unmerge=false", "unmerge=False leaves equally many tokens of every frame"),
    ],
)  # fmt: skip
def test_what_cannot_keep_to_a_number_of_tokens_says_so(text, reason) -> None:
    name = text.partition(":")[0]
    assert reason in (parse_method(text).no_visual_tokens or "")
    with pytest.raises(MethodError, match=rf"method '{name}' takes no visual_tokens \(got 100\): {reason}"):
        parse_method(text, {"visual_tokens": 100})


def test_every_method_takes_a_number_of_tokens_or_says_why_not() -> None:
    assert [name for name in METHODS if parse_method(name).no_visual_tokens is None] == sorted(
        TAKING, key=list(METHODS).index
    )


def test_a_clip_of_more_frames_than_tokens_is_refused_where_each_keeps_one() -> None:
    with pytest.raises(
        MethodError, match=r"visual_tokens \(7\) must be at least the 8 frames of the clip: method 'tome'"
    ):
        parse_method("tome:visual_tokens=7").budget(GRID)


def test_methods_of_other_packages_may_give_the_field_a_default() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(Method):
        retention: float = 0.3
        name = "mine"

        def select_tokens(self, tokens, budget):
            return super().select_tokens(tokens, budget)

    assert (Mine().retention, Mine.default_retention) == (0.3, 0.3)
    assert Mine(retention=0.5).describe() == "mine:retention=0.5"
    assert Mine().changed_options() == {}
    method = Mine(visual_tokens=100)
    assert (method.retention, method.budget(GRID), method.describe()) == (None, 100, "mine:visual_tokens=100")
    assert dataclasses.replace(Mine(), visual_tokens=100) == method
    with pytest.raises(MethodError, match=r"retention \(0.5\) and visual_tokens \(100\)"):
        Mine(retention=0.5, visual_tokens=100)

    class Loose(Mine):
        exact_budget = False

    with pytest.raises(MethodError, match=r"takes no visual_tokens .*it keeps no exact number of tokens"):
        Loose(visual_tokens=100)


def test_a_method_of_ones_own_gets_parser_budget_and_description() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(Method):
        strength: int = 3
        name = "mine"

    method = Mine.from_options({"strength": "5", "retention": "0.5"})
    assert (method.strength, method.budget(FrameGrid(frames=2, rows=3, columns=3))) == (5, 9)
    assert method.describe() == "mine:retention=0.5,strength=5"
    assert Uncompressed().describe() == "none:retention=1.0"


def test_any_real_number_is_a_retention_that_can_be_read_again() -> None:
    from fractions import Fraction

    method = EarlyTom(retention=Fraction(1, 4))
    assert method == EarlyTom(retention=0.25)
    assert parse_method(method.describe()) == method


@dataclass(frozen=True, kw_only=True)
class Choosy(Method):
    """Wants the head, the tokens or a late layer of the vision encoder."""

    wants: str = "head"

    name = "choosy"
    stages = ("tokens",)
    stand_ins = ("wants=tokens", "wants=late,retention=0.5", "wants=nothing,retention=0.5", "other=1")

    def encoder_plan(self, encoder):
        plans = {"head": {"pooling_head": True}, "tokens": {"token_layers": (1,)}, "late": {"merge_layers": (9,)}}
        return EncoderPlan(**plans.get(self.wants, {}))


def test_an_encoder_that_suits_gives_the_plan() -> None:
    assert Choosy().check_encoder(EncoderShape(depth=4)) == EncoderPlan(pooling_head=True)


def test_a_refusal_by_the_encoder_advises_what_would_suit_it_and_nothing_else() -> None:
    shape = EncoderShape(depth=4, pooling_head=False, token_merging=False)
    with pytest.raises(MethodError) as refusal:
        Choosy().check_encoder(shape)
    assert str(refusal.value) == (
        "this vision encoder has no attention-pooling head, which the method needs; choose the method's substitute "
        "(for choosy: wants=nothing,retention=0.5)"
    )
    with pytest.raises(MethodError, match=r"wants=tokens, or choosy: wants=late,retention=0\.5, or"):
        Choosy().check_encoder(EncoderShape(depth=10, pooling_head=False))


def test_a_refusal_without_a_way_out_stays_as_it_is() -> None:
    with pytest.raises(MethodError, match=r"allowed are 0 to 3$"):
        EarlyTom(merge_layers=(6, 26)).check_encoder(EncoderShape(depth=4))
