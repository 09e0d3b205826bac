"""Compositions at work: plans and hooks go to the part whose stage it is, and budgets hold from end to end."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import earlytom
from cell_methods import SomeCells
from conftest import batch, clip, tiny_model
from earlytom import (
    AveragePooling,
    Composition,
    EarlyTom,
    InnerMerging,
    Method,
    MethodError,
    UniformSubsampling,
    VisionZip,
    compose,
    parse_method,
)
from earlytom.methods import METHODS, find_method
from earlytom.types import Decision, EncoderPlan, EncoderShape, FrameGrid, LanguagePlan
from reference.strategies import quick, scene_clips
from reference.token_clips import decide, visual_tokens

# Plans and hooks


def test_the_plan_merges_as_one_part_and_looks_as_the_other() -> None:
    plan = compose(EarlyTom(merge_layers=(4, 8)), VisionZip()).encoder_plan(EncoderShape(depth=26))
    asked = EncoderPlan(
        merge_layers=(4, 8),
        merge_similarity=True,
        token_similarity=True,
        attention_layer=25,
        keys=True,
        similarity_span=5,
    )
    assert plan == asked
    selection_alone = Composition(tokens=EarlyTom()).encoder_plan(EncoderShape(depth=26))
    without_merging = {"merge_layers": (), "merge_similarity": False, "token_similarity": False}
    assert selection_alone == replace(EarlyTom().encoder_plan(EncoderShape(depth=26)), **without_merging)
    with pytest.raises(MethodError, match="merge_layers"):
        compose(EarlyTom(merge_layers=(30,)), VisionZip()).encoder_plan(EncoderShape(depth=26))


@dataclass(frozen=True, kw_only=True)
class Comparing(VisionZip):
    """Selects by the similarity of temporal grids ``span`` apart."""

    span: int | None = None

    def encoder_plan(self, encoder) -> EncoderPlan:
        return EncoderPlan(frame_similarity=True, similarity_span=self.span)


@pytest.mark.parametrize(
    ("stages", "span"),
    [
        ({"encoder": EarlyTom(), "tokens": Comparing(span=9)}, 9),
        ({"encoder": EarlyTom(max_window=20), "tokens": Comparing(span=9)}, 19),
        ({"encoder": EarlyTom(), "tokens": Comparing()}, None),
        ({"tokens": Comparing(span=3)}, 3),
        ({"encoder": EarlyTom(), "tokens": VisionZip()}, 5),
    ],
)
def test_the_widest_span_that_a_stage_reads_is_compared(stages, span) -> None:
    assert Composition(**stages).encoder_plan(EncoderShape(depth=26)).similarity_span == span


def test_cells_are_those_of_the_encoder_part_and_go_to_who_can_select_among_them() -> None:
    encoder = EncoderShape(depth=8, cells=True)
    cutting = SomeCells(share=0.25, attention=True, similarity=True)
    method = Composition(encoder=cutting, tokens=VisionZip(), retention=0.1)
    plan = method.encoder_plan(encoder)
    assert (plan.cell_layer, plan.cell_attention, plan.cell_similarity, plan.keys) == (3, True, True, True)
    assert Composition(tokens=cutting).encoder_plan(encoder).cell_layer is None
    grid = FrameGrid(frames=6, rows=4, columns=4)
    assert method.cells_kept(grid) == 4
    assert Composition(tokens=VisionZip()).cells_kept(grid) is None
    assert Composition(tokens=VisionZip()).select_cells(None, 3) == Decision()
    for name in ("holitom", "prunevid", "dycoke", "average-pooling", "fastvid:scores=received"):
        with pytest.raises(MethodError, match="needs whole temporal grids, of each of which only some cells go on"):
            Composition(encoder=cutting, tokens=parse_method(name)).encoder_plan(encoder)


@pytest.mark.parametrize("tokens", ["visionzip", "uniform", "random", "earlytom"])
def test_tokens_are_selected_among_the_cells_that_went_on(tokens) -> None:
    cutting = SomeCells(share=0.5, merging=True)
    method = Composition(encoder=cutting, tokens=parse_method(tokens), retention=0.1)
    model = tiny_model()
    with torch.no_grad(), earlytom.compress(model, method) as trace:
        model(**batch([[clip(12, 0)], [clip(12, 1)]]))
    for video in trace.videos:
        assert video.tokens == video.budget == 19
        assert video.cells.cells_after == 8
        assert video.temporal_grids_left == 3
        assert video.selection.inputs == 3 * 16


def test_hooks_go_to_their_stage_and_to_nobody_else() -> None:
    method = compose(EarlyTom(), VisionZip())
    tokens = visual_tokens(4, 4, 4)
    assert torch.equal(decide(method, tokens)[1].source, decide(VisionZip(), tokens)[1].source)
    assert method.llm_plan(28) == LanguagePlan()
    assert method.reduce_in_llm(None, 18) is None
    assert Composition(tokens=VisionZip()).merge_frames(None, 6, 1) == Decision()
    assert compose(VisionZip(), InnerMerging()).llm_plan(28) == InnerMerging().llm_plan(28)


def test_every_hook_of_a_method_is_forwarded() -> None:
    own = {
        "from_options", "read_options", "changed_options", "amount_options", "share", "describe", "check_encoder",
        "advice",
    }  # fmt: skip
    hooks = {name for name, _ in inspect.getmembers(Method, inspect.isfunction) if not name.startswith("_")}
    assert hooks - own <= set(vars(Composition))


def test_budget_exactness_and_stepping_aside_are_those_of_the_selecting_part() -> None:
    grid, one = FrameGrid(frames=10, rows=4, columns=4), FrameGrid(frames=1, rows=4, columns=4)
    frames = compose(EarlyTom(), UniformSubsampling(frames=True), retention=0.25)
    assert frames.budget(grid) == 2 * 16
    assert compose(EarlyTom(), VisionZip()).steps_aside(one) is None
    assert compose(EarlyTom(), InnerMerging()).steps_aside(one) == EarlyTom().steps_aside(one)
    assert compose(EarlyTom(), InnerMerging()).budget(one) == 16
    assert not compose(EarlyTom(), AveragePooling(axis="space")).exact_budget
    assert compose(EarlyTom(compat="official"), VisionZip()).exact_budget


@quick
@given(scene_clips(), st.sampled_from(["default", "official", "paper"]), st.integers(1, 24))
def test_the_floor_holds_whoever_merges(features, compat, floor) -> None:
    """The authors' merging knows no floor; a composition with an exact budget does not let it go below."""
    method = compose(EarlyTom(compat=compat, tau_seg=0.3, least_frames=0.0), VisionZip())
    states = earlytom.types.FrameStates(
        features=features, attention=None, origin=earlytom.Reduction.identity(len(features))
    )
    for layer in range(3):
        reduction = method.merge_frames(states, layer, floor).reduction
        if reduction is not None:
            states = earlytom.types.FrameStates(
                features=reduction.apply(states.features), attention=None, origin=states.origin.then(reduction)
            )
    assert len(states.features) >= min(floor, len(features))


def test_a_merge_that_the_floor_forbids_is_told() -> None:
    features = torch.ones(8, 4, 3)
    states = earlytom.types.FrameStates(features=features, attention=None, origin=earlytom.Reduction.identity(8))
    decision = compose(EarlyTom(compat="official"), VisionZip()).merge_frames(states, 6, 8)
    assert decision.reduction is None
    assert decision.details["not_merged"] == "7 frames would be left, 8 are needed for the budget"
    assert compose(EarlyTom(), VisionZip(compat="official")).merge_frames(states, 6, 1).reduction is not None


# The whole way


@pytest.mark.parametrize("amount", ["retention=0.25", "visual_tokens=48"])
def test_end_to_end_merged_frames_and_then_tomes_pooled_tokens(amount) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    for text in ("earlytom@encoder:tau_seg=0.3+tome@tokens", "earlytom@encoder+tome@tokens:unmerge=false"):
        if "unmerge" in text and "visual_tokens" in amount:
            continue
        with earlytom.compress(model, f"{text}{',' if 'unmerge' in text else ':'}{amount}") as trace:
            model.generate(**inputs, max_new_tokens=2)
        assert trace.videos[0].tokens == trace.videos[0].budget == 48
        assert trace.videos[0].frames_left < 12
        assert trace.videos[0].token_merges == []


@pytest.mark.parametrize("retention", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("selection", ["visionzip", "random", "uniform", "average-pooling"])
@pytest.mark.parametrize("compat", ["default", "official"])
def test_end_to_end_budgets_are_exact_on_merged_frames(selection, retention, compat) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    text = f"earlytom:compat={compat},tau_seg=0.3,merge_layers=1/3/5+{selection}:retention={retention}"
    with earlytom.compress(model, text) as trace:
        output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    video = trace.videos[0]
    assert video.tokens == video.budget == max(1, round(retention * 192))
    assert video.frames_left * 16 >= video.budget
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3
    if retention == 0.05:
        assert video.frames_left < 12
    if retention == 1.0:
        assert video.frames_left == 12
        stock = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        assert torch.equal(output, stock)


def test_end_to_end_with_three_parts_and_their_trace() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)], [clip(12, 1), clip(12, 2)]])
    method = compose(EarlyTom(tau_seg=0.3, merge_layers=(1, 3)), VisionZip(), InnerMerging(layer=2), retention=0.25)
    with earlytom.compress(model, method) as trace:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert [video.tokens for video in trace.videos] == [48, 48, 48]
    assert all(len(video.merges) == 2 and video.frames_left < 12 for video in trace.videos)
    assert all("dominant_tokens" in video.details for video in trace.videos)
    assert trace.last.language[0].tokens_after == (24, 49)
    assert trace.method == method.describe()
    assert trace.to_dict()["method"] == trace.method


def test_keys_and_attention_merge_with_the_frames_behind_their_layer() -> None:
    """Attention and keys of layer 2, frames merged after layer 4: all merge with the same weights."""
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Watching(VisionZip):
        name = "watching"

        def select_tokens(self, tokens, budget):
            seen.append(tokens)
            return super().select_tokens(tokens, budget)

    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    for merging in ((), (EarlyTom(tau_seg=0.3, merge_layers=(4,)),)):
        watching = Watching(attention_layer=2)
        with earlytom.compress(model, compose(*merging, watching) if merging else watching):
            model.generate(**inputs, max_new_tokens=1)
    whole, merged = seen
    assert merged.keys.shape[0] < whole.keys.shape[0] == 12
    torch.testing.assert_close(merged.keys, merged.origin.apply(whole.keys), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(merged.attention, merged.origin.apply(whole.attention), atol=1e-6, rtol=1e-5)


def test_end_to_end_selection_from_merged_tokens() -> None:
    """Token merging gives every patch its place back, so that pooled attention and keys are there for VisionZip."""
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with earlytom.compress(model, "tome+visionzip:retention=0.5") as trace:
        model.generate(**inputs, max_new_tokens=2)
    assert trace.videos[0].tokens == trace.videos[0].budget == 96


# Every method says where it acts


@pytest.mark.parametrize("name", METHODS)
def test_the_declared_stages_are_the_hooks_that_a_method_has(name) -> None:
    found = find_method(name)
    hooks = {
        "encoder": (found.merge_frames, found.merge_tokens) != (Method.merge_frames, Method.merge_tokens),
        "tokens": found.select_tokens is not Method.select_tokens,
        "llm": found.reduce_in_llm is not Method.reduce_in_llm,
    }
    assert set(found.stages) == {stage for stage, there in hooks.items() if there}
    assert set(parse_method(name).active_stages) <= set(found.stages)
