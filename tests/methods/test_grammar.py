"""Compositions as text: whose an option is, and that a description builds what it describes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earlytom import (
    AveragePooling,
    Composition,
    EarlyTom,
    InnerMerging,
    MethodError,
    RandomSelection,
    ToMe,
    UniformSubsampling,
    VisionZip,
    compose,
    make_method,
    parse_method,
)
from earlytom.methods.grammar import written_option
from reference.strategies import quick

PRESET = EarlyTom(preset="mvbench")


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("earlytom+visionzip", compose(EarlyTom(), VisionZip())),
        ("earlytom+visionzip:retention=0.2", compose(EarlyTom(), VisionZip(), retention=0.2)),
        (" earlytom + visionzip : retention = 0.2 ", compose(EarlyTom(), VisionZip(), retention=0.2)),
        ("earlytom:retention=0.2+visionzip", compose(EarlyTom(), VisionZip(), retention=0.2)),
        ("earlytom+visionzip:visionzip.retention=0.2", compose(EarlyTom(), VisionZip(), retention=0.2)),
        (
            "earlytom:merge_layers=4/8/12+visionzip:retention=0.2",
            compose(EarlyTom(merge_layers=(4, 8, 12)), VisionZip(), retention=0.2),
        ),
        ("earlytom+visionzip:retention=0.2,ema=0.5", compose(EarlyTom(ema=0.5), VisionZip(), retention=0.2)),
        ("earlytom+visionzip:dominant_share=0.5", compose(EarlyTom(), VisionZip(dominant_share=0.5))),
        (
            "earlytom:compat=paper+visionzip:visionzip.compat=official",
            compose(EarlyTom(compat="paper"), VisionZip(compat="official")),
        ),
        ("earlytom+visionzip:earlytom.compat=official", compose(EarlyTom(compat="official"), VisionZip())),
        ("earlytom+inner-merging:ratio=0.3", compose(EarlyTom(), InnerMerging(ratio=0.3))),
        ("earlytom:inner_merging=true+visionzip", compose(EarlyTom(inner_merging=True), VisionZip())),
        ("random+inner-merging:inner-merging.retention=1", compose(RandomSelection(), InnerMerging())),
        ("earlytom@encoder+visionzip@tokens", compose(EarlyTom(), VisionZip())),
        ("earlytom@tokens+inner-merging", Composition(tokens=EarlyTom(), llm=InnerMerging())),
        (
            "earlytom@encoder/tokens:preset=mvbench+inner-merging",
            Composition(encoder=PRESET, tokens=PRESET, llm=InnerMerging()),
        ),
        ("earlytom@tokens:ema=0.5", Composition(tokens=EarlyTom(ema=0.5))),
        ("earlytom:visual_tokens=2048", EarlyTom(visual_tokens=2048)),
        ("earlytom+visionzip:visual_tokens=2048", compose(EarlyTom(), VisionZip(), visual_tokens=2048)),
        ("earlytom:visual_tokens=2048+visionzip", compose(EarlyTom(), VisionZip(), visual_tokens=2048)),
        ("earlytom+visionzip:visionzip.visual_tokens=2048", compose(EarlyTom(), VisionZip(), visual_tokens=2048)),
        ("earlytom@tokens:visual_tokens=9", Composition(tokens=EarlyTom(), visual_tokens=9)),
        ("earlytom@encoder+tome@tokens", Composition(encoder=EarlyTom(), tokens=ToMe())),
        ("earlytom+tome@tokens", Composition(encoder=EarlyTom(), tokens=ToMe())),
        ("earlytom:tau_seg=+0.5", EarlyTom(tau_seg=0.5)),
        ("random:seed=3+inner-merging:layer=2", compose(RandomSelection(seed=3), InnerMerging(layer=2))),
    ],
)  # fmt: skip
def test_options_find_their_part(text, method) -> None:
    assert parse_method(text) == make_method(text) == method


EARLYTOM, VISIONZIP = (", ".join(field.name for field in dataclasses.fields(kind)) for kind in (EarlyTom, VisionZip))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("earlytom+visionzip:tau=1", f"method 'earlytom[+]visionzip' has no option 'tau'; earlytom has: {EARLYTOM}; "
         f"visionzip has: {VISIONZIP}"),
        ("earlytom+visionzip:compat=official", "'compat' of method 'earlytom[+]visionzip' could be meant for several "
         f"parts; write earlytom.compat=... or visionzip.compat=...; earlytom has: {EARLYTOM}"),
        ("earlytom+visionzip:earlytom.dominant_share=1", "has no option 'earlytom.dominant_share'; earlytom has"),
        ("earlytom+visionzip:holitom.tau=1", "has no option 'holitom.tau'"),
        ("earlytom:dominant_share=1+visionzip", "method 'earlytom' has no option 'dominant_share'; it has: retention"),
        ("earlytom:retention=0.1+visionzip:retention=0.2", "option 'retention' is given twice"),
        ("earlytom:visual_tokens=9+visionzip:visual_tokens=8", "option 'visual_tokens' is given twice"),
        ("earlytom:retention=0.1+visionzip:visual_tokens=8", r"retention \(0.1\) and visual_tokens \(8\) both say how "
         "much earlytom[+]visionzip keeps; give one"),
        ("earlytom+visionzip:visual_tokens=2k", "option visual_tokens cannot be read as int: '2k'"),
        ("earlytom+fastv:fastv.visual_tokens=8", "method 'fastv' takes no visual_tokens"),
        ("earlytom@encoder/tokens+visionzip", "earlytom is to supply 'tokens', and so is visionzip; write behind @"),
        ("earlytom@tokens+visionzip@tokens", "earlytom would do nothing: tokens is supplied by visionzip"),
        ("earlytom+visionzip:ema=0.1,ema=0.2", "option 'ema' is given twice"),
        ("earlytom:ema=0.1+visionzip:ema=0.2", "option 'ema' is given twice"),
        ("earlytom+visionzip:retention", "expected option=value, got 'retention'"),
        ("earlytom+nonsense", r"unknown method 'nonsense'; the methods are: none, earlytom"),
        ("earlytom+", r"unknown method 'earlytom\+'"),
        ("+earlytom", "unknown method ''"),
        ("earlytom+earlytom", "each part can be named once"),
        ("earlytom@tokenz", "earlytom does not act in stage 'tokenz', it acts in: encoder, tokens, llm"),
        ("earlytom+visionzip@llm", r"visionzip does not act in stage 'llm', it acts in: tokens \(stages are"),
        ("none@tokens", "none does not act in stage 'tokens', it acts in: none"),
        ("earlytom@llm+visionzip", "earlytom cannot supply stage 'llm': as it is set up it acts in: encoder, tokens"),
        ("earlytom+visionzip:retention=2", "retention must be a number in"),
        ("earlytom@encoder", "earlytom: no part selects tokens before the language model"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_unknown_or_impossible_says_so(text, message) -> None:
    with pytest.raises(MethodError, match=message):
        parse_method(text)


mergers = st.builds(
    EarlyTom,
    merge_layers=st.none() | st.just((4, 8)),
    compat=st.sampled_from(["default", "official", "paper"]),
    inner_merging=st.sampled_from([None, False]),
    ema=st.sampled_from([0.9, 0.5]),
)
selectors = st.one_of(
    st.builds(VisionZip, compat=st.sampled_from(["default", "official"]), attention_layer=st.none() | st.just(3)),
    st.builds(RandomSelection, seed=st.integers(0, 9)),
    st.builds(UniformSubsampling, frames=st.booleans()),
    st.builds(AveragePooling, axis=st.sampled_from(["raster", "space"])),
)
inner = st.builds(InnerMerging, ratio=st.sampled_from([0.5, 0.3]), layer=st.none() | st.integers(1, 9))


@quick
@given(
    st.lists(st.one_of(mergers), max_size=1), selectors, st.lists(inner, max_size=1), st.floats(0, 1, exclude_min=True)
)
def test_a_composition_survives_its_own_description(first, second, third, retention) -> None:
    parts = [*first, second, *third]
    if len(parts) > 1:
        method = compose(*parts, retention=retention)
        assert parse_method(method.describe()) == method


def test_the_description_shows_who_supplies_which_stage() -> None:
    method = parse_method("earlytom:merge_layers=4/8/12+visionzip:retention=0.2,visionzip.compat=official")
    assert method.name == "earlytom+visionzip"
    assert method.describe() == (
        "earlytom@encoder:merge_layers=4/8/12+visionzip@tokens:retention=0.2,visionzip.compat=official"
    )
    both = parse_method("earlytom+inner-merging:ratio=0.3,retention=0.2")
    assert both.describe() == "earlytom@encoder/tokens+inner-merging@llm:retention=0.2,ratio=0.3"
    assert parse_method("earlytom@tokens").describe() == "earlytom@tokens:retention=0.25"


def test_a_part_inside_the_language_model_has_a_retention_of_its_own_and_shows_it() -> None:
    method = parse_method("earlytom+fastv:retention=0.2")
    assert method.describe() == "earlytom@encoder/tokens+fastv@llm:retention=0.2,fastv.retention=0.25"
    method = parse_method("fastv:retention=0.5+earlytom:retention=0.2")
    assert (method.retention, method.tokens.retention, method.llm.retention) == (0.2, 0.2, 0.5)
    assert method == parse_method("earlytom+fastv:retention=0.2,fastv.retention=0.5") == parse_method(method.describe())


def test_options_given_beside_the_text_are_as_if_written_at_its_end() -> None:
    assert parse_method("earlytom+visionzip", {"retention": 0.2, "ema": "0.5"}) == compose(
        EarlyTom(ema=0.5), VisionZip(), retention=0.2
    )
    assert parse_method("earlytom:ema=0.5", {"retention": 0.2}) == EarlyTom(ema=0.5, retention=0.2)
    with pytest.raises(MethodError, match="given twice"):
        parse_method("earlytom:retention=0.1", {"retention": 0.2})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("earlytom", None),
        ("earlytom:retention=0.1", "0.1"),
        ("earlytom:retention=0.1+visionzip", "0.1"),
        ("earlytom+visionzip:retention=0.1", "0.1"),
        ("inner-merging:retention=1+visionzip", None),
    ],
)
def test_the_retention_of_the_whole_can_be_looked_up(text, value) -> None:
    assert written_option(text, "retention") == value


def test_a_part_inside_the_language_model_keeps_its_retention_beside_a_number_of_tokens() -> None:
    method = parse_method("earlytom+fastv:visual_tokens=100,fastv.retention=0.5")
    assert (method.retention, method.tokens.visual_tokens, method.llm.retention) == (None, 100, 0.5)
    assert method.describe() == "earlytom@encoder/tokens+fastv@llm:visual_tokens=100,fastv.retention=0.5"
    assert parse_method(method.describe()) == method


def test_other_options_can_be_looked_up_too() -> None:
    assert written_option("earlytom:visual_tokens=9+visionzip", "visual_tokens") == "9"
    assert written_option("earlytom:visual_tokens=9", "retention") is None
    assert written_option("earlytom:preset=mvbench+visionzip", "preset") == "mvbench"
    assert written_option("earlytom+visionzip:preset=mvbench", "preset") == "mvbench"


@pytest.mark.parametrize(
    "text",
    [
        "x" * 400_000,
        "earlytom:" + "x" * 400_000,
        "earlytom:" + "x" * 400_000 + "=1",
        "earlytom:retention=" + "9" * 400_000,
        "earlytom:preset=" + "x" * 400_000,
        "earlytom:merge_layers=" + "9/" * 200_000,
        "earlytom@" + "x" * 400_000,
        "earlytom+" * 40_000 + "earlytom",
        "earlytom+visionzip:" + "x" * 400_000 + "=2",
    ],
    ids=lambda text: text[:20],
)
def test_no_error_repeats_a_long_text(text) -> None:
    with pytest.raises(MethodError) as caught:
        parse_method(text)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "value",
    [10**400, 10**5000, -(10**5000), [0] * 10**6, "9" * 10**6],
    ids=["401 digits", "5001 digits", "negative", "list", "text"],
)
@pytest.mark.parametrize("knob", ["retention", "visual_tokens", "merge_layers", "tau_seg", "ema", "max_window"])
def test_no_error_repeats_a_long_value(value, knob) -> None:
    with pytest.raises(MethodError) as caught:
        EarlyTom(**{knob: value})
    assert len(str(caught.value)) < 1500
