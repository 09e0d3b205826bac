"""Methods made of the stages of others: who supplies what, what is refused, and that budgets hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

import earlytom
from conftest import batch, clip, tiny_model
from earlytom import (
    Composition,
    EarlyTom,
    InnerMerging,
    Method,
    MethodError,
    RandomSelection,
    VisionZip,
    compose,
    parse_method,
)
from earlytom.types import EncoderShape, FrameGrid


class Doctored(EarlyTom):
    """A method whose encoder stage leaves no keys."""

    name = "doctored"
    breaks = frozenset({"keys"})


class MergingTwice(EarlyTom):
    """Another method that merges frames and selects tokens."""

    name = "merging-twice"


class Undeclared(Method):
    """A method that does not say where it acts."""

    name = "undeclared"


# Who supplies which stage


@pytest.mark.parametrize(
    ("parts", "suppliers"),
    [
        ((EarlyTom(), VisionZip()), ("earlytom", "visionzip", None)),
        ((EarlyTom(), InnerMerging()), ("earlytom", "earlytom", "inner-merging")),
        ((EarlyTom(), VisionZip(), InnerMerging()), ("earlytom", "visionzip", "inner-merging")),
        ((VisionZip(), InnerMerging()), (None, "visionzip", "inner-merging")),
        ((InnerMerging(), VisionZip()), (None, "visionzip", "inner-merging")),
        ((EarlyTom(inner_merging=True), VisionZip()), ("earlytom", "visionzip", "earlytom")),
        ((EarlyTom(preset="mvbench"), VisionZip()), ("earlytom", "visionzip", "earlytom")),
        (("earlytom", "random"), ("earlytom", "random", None)),
        (("earlytom", "fastv"), ("earlytom", "earlytom", "fastv")),
        (("tome", "visionzip"), ("tome", "visionzip", None)),
        (("earlytom", "holitom"), ("earlytom", "holitom", None)),
    ],
    ids=str,
)
def test_the_first_merges_frames_the_last_selects_and_one_acts_in_the_language_model(parts, suppliers) -> None:
    method = compose(*parts)
    assert tuple(part and part.name for part in (method.encoder, method.tokens, method.llm)) == suppliers
    assert method.active_stages == tuple(
        stage for stage, name in zip(("encoder", "tokens", "llm"), suppliers, strict=True) if name
    )


def test_compositions_can_be_composed_further() -> None:
    method = compose(compose(EarlyTom(), VisionZip()), InnerMerging(), retention=0.1)
    assert method == compose(EarlyTom(), VisionZip(), InnerMerging(), retention=0.1)


def test_retention_is_the_selecting_parts_or_the_one_given_and_all_of_these_parts_get_it() -> None:
    method = compose(EarlyTom(retention=0.5), VisionZip(retention=0.2), InnerMerging())
    assert (method.retention, method.encoder.retention, method.tokens.retention) == (0.2, 0.2, 0.2)
    method = replace(method, retention=0.1)
    assert (method.retention, method.encoder.retention, method.tokens.retention) == (0.1, 0.1, 0.1)
    assert method.llm == InnerMerging()


def test_presets_are_looked_up_with_the_retention_of_the_whole() -> None:
    assert compose(EarlyTom(preset="mvbench"), VisionZip(), retention=0.1).encoder_plan(
        EncoderShape(depth=26)
    ).merge_layers == (8, 14, 20)
    with pytest.raises(MethodError, match="preset 'mvbench' is published for retention"):
        compose(EarlyTom(preset="mvbench"), VisionZip(), retention=0.3)


def test_a_number_of_tokens_is_the_selecting_parts_or_the_one_given_and_all_of_these_parts_get_it() -> None:
    method = compose(EarlyTom(), VisionZip(visual_tokens=100), InnerMerging())
    assert (method.retention, method.visual_tokens, method.encoder.visual_tokens) == (None, 100, 100)
    assert method == compose(EarlyTom(retention=0.5), VisionZip(), InnerMerging(), visual_tokens=100)
    assert method.llm == InnerMerging()
    grids = FrameGrid(frames=10, rows=4, columns=4), FrameGrid(frames=5, rows=4, columns=4)
    assert [method.budget(grid) for grid in grids] == [100, 80]
    assert [method.share(grid) for grid in grids] == [100 / 160, 1.0]
    assert method.steps_aside(grids[1]) == "a clip of 80 visual tokens has no more than the 100 asked for"
    assert parse_method(method.describe()) == method
    assert replace(method, retention=0.1, visual_tokens=None).tokens == VisionZip(retention=0.1)
    with pytest.raises(MethodError, match=r"retention \(0.2\) and visual_tokens \(9\) both"):
        compose(EarlyTom(), VisionZip(), retention=0.2, visual_tokens=9)


def test_how_exact_a_budget_is_asks_the_part_that_selects_alone() -> None:
    method = compose(EarlyTom(compat="official"), VisionZip(), visual_tokens=100)
    assert (method.exact_budget, method.no_visual_tokens) == (True, None)
    assert parse_method(method.describe()) == method
    with pytest.raises(MethodError, match=r"'earlytom\+visionzip' takes no visual_tokens .got 9.: compat='official'"):
        compose(EarlyTom(), VisionZip(compat="official"), visual_tokens=9)
    with pytest.raises(MethodError, match="preset 'mvbench' goes by the retention"):
        compose(EarlyTom(preset="mvbench"), VisionZip(), visual_tokens=9)
    assert compose(EarlyTom(preset="fast"), VisionZip(), visual_tokens=9).encoder.preset == "fast"


def test_a_part_that_selects_nothing_goes_before_one_that_keeps_to_a_number_of_tokens() -> None:
    class Halving(Method):
        name = "halving"
        stages = ("encoder",)

    method = compose(Halving(retention=0.5), VisionZip(), visual_tokens=9)
    assert (method.encoder.retention, method.tokens.visual_tokens) == (0.5, 9)
    with pytest.raises(MethodError, match=r"takes no visual_tokens .*: it selects no tokens before"):
        Composition(encoder=Halving(), visual_tokens=9)


def test_fewer_tokens_than_frames_are_left_by_whoever_selects_them() -> None:
    model, inputs = tiny_model(), batch([[clip(8, 0)]])
    with earlytom.compress(model, "tome+visionzip:visual_tokens=5") as trace:
        model.generate(**inputs, max_new_tokens=1)
    assert trace.videos[0].tokens == 5
    with (
        pytest.raises(MethodError, match="must be at least the 8 frames"),
        earlytom.compress(model, "tome:visual_tokens=5"),
    ):
        model.generate(**inputs, max_new_tokens=1)


def test_a_stage_that_another_part_supplies_can_be_told_outright() -> None:
    method = parse_method("earlytom@encoder+tome@tokens:retention=0.5")
    assert (method.encoder.name, method.tokens.name) == ("earlytom", "tome")
    plan = method.encoder_plan(EncoderShape(depth=26))
    assert (plan.merge_layers, plan.token_layers, plan.unmerge) == ((3, 10, 16), (), True)
    # What ToMe does not do here has no say in what becomes of its pooled tokens.
    unpooled = parse_method("earlytom@encoder+tome@tokens:unmerge=false").encoder_plan(EncoderShape(depth=26))
    assert (unpooled.token_layers, unpooled.unmerge) == ((), True)


# What is refused


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((VisionZip(), EarlyTom()), r"visionzip\+earlytom: visionzip would do nothing: tokens is supplied by earlytom"),
        ((RandomSelection(), VisionZip()), "random would do nothing: tokens is supplied by visionzip"),
        ((earlytom.Uncompressed(), VisionZip()), "none would do nothing: its class declares no stages"),
        ((Undeclared(), VisionZip()), "undeclared would do nothing: its class declares no stages"),
        (
            (EarlyTom(inner_merging=True), InnerMerging()),
            "earlytom and inner-merging both act inside the language model",
        ),
        (
            (EarlyTom(preset="mvbench"), InnerMerging()),
            r"and what inner-merging does there would be dropped; switch one of them off there, or say which stages "
            r"each is to supply, as in earlytom@encoder/tokens\+inner-merging@llm",
        ),
        (
            ("fastv", "pyramiddrop"),
            "both act inside the language model, and what pyramiddrop .* switch one of them off there, or leave it out",
        ),
        (
            (EarlyTom(), "tome"),
            r"earlytom\+tome: earlytom and tome both act inside the vision encoder, and what tome does there would be "
            r"dropped; .* as in earlytom@encoder\+tome@tokens",
        ),
        ((EarlyTom(), MergingTwice()), r"earlytom and merging-twice both act .*@encoder\+merging-twice@tokens"),
        (
            (compose(EarlyTom(), VisionZip()), "tome"),
            r"earlytom\+visionzip\+tome: visionzip would do nothing: tokens is supplied by tome",
        ),
        ((VisionZip(), "tome"), "visionzip would do nothing: tokens is supplied by tome"),
        ((Doctored(), VisionZip()), "doctored and visionzip cannot go together: visionzip needs keys, which doctored"),
        (
            ("tome", EarlyTom()),
            "tome and earlytom cannot go together: earlytom needs frame similarity, which tome does",
        ),
        ((EarlyTom(frame_merging=False), VisionZip()), "earlytom would do nothing: tokens is supplied by visionzip"),
        ((EarlyTom(), EarlyTom(ema=0.5)), "must come from one and the same instance"),
        ((EarlyTom(),), "compose takes at least two methods, got 1"),
        ((InnerMerging(), 3), "method must be an earlytom method"),
    ],
    ids=str,
)
def test_what_cannot_go_together_is_refused_by_name(parts, message) -> None:
    with pytest.raises(MethodError, match=message):
        compose(*parts)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"encoder": EarlyTom()}, "earlytom: no part selects tokens before the language model, so retention 0.25"),
        ({"llm": InnerMerging()}, "inner-merging: no part selects tokens"),
        ({"encoder": EarlyTom(), "visual_tokens": 9}, "no part selects tokens .*, so visual_tokens 9 would not be"),
        ({}, "a composition: no part selects tokens"),
        ({"tokens": InnerMerging()}, "inner-merging cannot supply stage 'tokens': as it is set up it acts in: llm"),
        ({"tokens": VisionZip(), "llm": EarlyTom()}, "earlytom cannot supply stage 'llm': as it is set up it acts in"),
        ({"tokens": VisionZip(), "retention": 0.0}, "retention must be a number in"),
    ],
    ids=str,
)
def test_stages_given_by_hand_are_checked(stages, message) -> None:
    with pytest.raises(MethodError, match=message):
        Composition(**stages)
