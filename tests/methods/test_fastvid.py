"""FastVID as a whole against its reference, what it asks of the encoder, and what it promises."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import earlytom
from conftest import batch, clip, model_with_head
from earlytom import FastVID, MethodError, ModelError
from earlytom.models.attention import head_attention
from earlytom.ops import merge_into_anchors
from earlytom.ops.anchors import AnchorPlan
from earlytom.types import EncoderPlan, EncoderShape, FrameGrid
from reference.fastvid import cut_naively, exact_plan_naively, fastvid_naively, official_plan_naively
from reference.scenes import EXTREMES, extreme_features, retentions, scene_clip, scene_clips
from reference.similarity import cosine_naively
from reference.strategies import quick
from reference.token_clips import visual_tokens
from reference.windows import apportion_naively
from visitors import Watching, encode

compats = st.sampled_from(["default", "official"])
# Small integers can be parallel, which makes ties between different tokens that rounding decides.
random_clips = scene_clips(most=11, kinds=("noisy", "noisy", "black"))


@quick
@given(random_clips, retentions, compats, st.sampled_from(["pooling_head", "received"]), st.sampled_from([1, 2, 4]))
def test_equals_the_naive_reference(tokens, retention, compat, scores, stride) -> None:
    method = FastVID(retention=retention, compat=compat, scores=scores, segments=3, stride=stride)
    budget, per_frame = method.budget(tokens.grid), tokens.grid.tokens_per_frame
    decision = method.select_tokens(tokens, budget)
    if decision.reduction is None:
        assert compat == "default"
        assert budget == tokens.grid.tokens
        return
    described = tokens.descriptions if scores == "pooling_head" else tokens.features.double().mean(dim=1)
    similarity = [cosine_naively(one, other) for one, other in itertools.pairwise(described)]
    segments = cut_naively(similarity, 3, 0.9 if scores == "pooling_head" else 0.84)
    if compat == "default":
        parts = apportion_naively(budget, [(last + 1 - first) * per_frame for first, last in segments])
        salient, anchors = exact_plan_naively(segments, parts, per_frame, 0.4, stride)
    else:
        salient, anchors = official_plan_naively(segments, retention, per_frame, 0.4, stride)
    places, values = fastvid_naively(
        tokens.features, tokens.attention, segments, salient, anchors, 4, 0.6, compat == "official"
    )
    assert decision.details["segments"] == segments
    assert decision.details["anchors"] == anchors
    assert decision.reduction.survivors().tolist() == places
    torch.testing.assert_close(
        decision.reduction.apply(tokens.features.flatten(0, 1)).double(), values, atol=1e-5, rtol=1e-5
    )


@quick
@given(scene_clips(most=12), retentions, compats)
def test_order_budget_and_weights(tokens, retention, compat) -> None:
    method = FastVID(retention=retention, compat=compat)
    budget = method.budget(tokens.grid)
    reduction = method.select_tokens(tokens, budget).reduction
    if reduction is None:
        return
    survivors = reduction.survivors().tolist()
    assert survivors == sorted(set(survivors))
    assert len(survivors) == budget if compat == "default" else len(survivors) >= 1
    assert method.exact_budget == (compat == "default")
    for row, place in zip(reduction.to_rows(), survivors, strict=True):
        assert row[0][0] == place
        assert sum(weight for _, weight in row) == pytest.approx(1.0, abs=1e-5)
    assert reduction.apply(tokens.features.flatten(0, 1)).isfinite().all()


@pytest.mark.parametrize(
    ("retention", "salient", "context"), [(0.10, 12, 7), (0.15, 18, 11), (0.20, 24, 15), (0.25, 30, 19)]
)
def test_official_counts_are_those_of_the_authors(retention, salient, context) -> None:
    """methods.md, section 5: 19, 29, 39 and 49 of 196 tokens."""
    plan = FastVID(compat="official")._official_plan([(0, 0), (1, 8)], retention, 196)
    assert plan.salient == [salient] * 9
    assert plan.anchors[0] == context
    assert plan.anchors[1:] == [0, 0, 0, context * 8 // 2, 0, 0, 0, context * 8 // 2]


def test_official_cuts_products_of_binary_floats_off() -> None:
    """0.29 * 100 is a little less than 29; what merging saved is given back as EarlyTom's authors do."""
    assert official_counts(retention=0.29, frames=24, merged_from=24) == [28] * 24
    assert official_counts(retention=0.29, frames=12, merged_from=24) == [57] * 12
    assert official_counts(retention=0.1, frames=3, merged_from=3) == [10] * 3


def official_counts(retention: float, frames: int, merged_from: int) -> list[int]:
    tokens = visual_tokens(frames, 10, 10, merged_from=merged_from)
    method = FastVID(retention=retention, compat="official", scores="received", context_share=0.0)
    return method.select_tokens(tokens, 1).details["tokens_per_frame"]


def test_static_frames_are_cut_into_the_least_number_of_segments_the_earliest_first() -> None:
    tokens = scene_clip(12, kind="identical")
    decision = FastVID(segments=4).select_tokens(tokens, 48)
    assert decision.details["segments"] == [(0, 0), (1, 1), (2, 2), (3, 11)]
    assert FastVID().select_tokens(scene_clip(5), 20).details["segments"] == [(frame, frame) for frame in range(5)]


def test_large_retentions_leave_room_for_anchors_beside_salient_tokens() -> None:
    tokens = scene_clip(9, 4, 4)
    for budget in range(60, 144):
        plan = FastVID(segments=1, tau=-1.0)._exact_plan([(0, 8)], budget, 16)
        assert max(salient + anchors for salient, anchors in zip(plan.salient, plan.anchors, strict=True)) <= 16
        assert plan.outputs == budget
    assert FastVID(retention=0.99, segments=1, tau=-1.0).select_tokens(tokens, 143).reduction.outputs == 143


def test_cosines_are_taken_a_few_anchor_frames_at_a_time(monkeypatch) -> None:
    tokens = scene_clip(12)
    plan = AnchorPlan(segments=[(0, 7), (8, 11)], salient=[2] * 12, anchors=[0, 3, 0, 2, 0, 3, 0, 3, 0, 1, 0, 4])
    options = {"neighbours": 4, "anchor_weight": 0.6, "joins_itself": False}
    whole = merge_into_anchors(tokens.features, tokens.attention, plan, **options)
    monkeypatch.setattr("earlytom.ops.anchors._CHUNK_VALUES", 1)
    assert merge_into_anchors(tokens.features, tokens.attention, plan, **options).to_rows() == whole.to_rows()


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("compat", ["default", "official"])
def test_extreme_clips_neither_crash_nor_miss_the_budget(name, compat) -> None:
    tokens = scene_clip(9)
    attention = torch.full((9, 16), float("nan")) if "nan" in name else tokens.attention
    features = extreme_features(name, 9, 16)
    tokens = replace(tokens, features=features, attention=attention, descriptions=features[:, 0])
    for scores in ("pooling_head", "received"):
        reduction = FastVID(compat=compat, scores=scores, segments=2).select_tokens(tokens, 36).reduction
        survivors = reduction.survivors().tolist()
        assert survivors == sorted(set(survivors))
        assert len(survivors) == 36 or compat == "official"
        values = reduction.apply(features.flatten(0, 1))
        assert values.isfinite().all() or name in ("nan", "some nan", "infinite")


# What it asks of the encoder


def test_attention_and_descriptions_are_those_of_the_pooling_head() -> None:
    """Against stock: the head's own output, and attention by hand from its packed weights."""
    model = model_with_head()
    tower = model.model.vision_tower
    visitor = Watching(EncoderPlan(pooling_head=True))
    with torch.no_grad():
        hidden = encode(model, clip(4), visitor, FrameGrid(frames=4, rows=4, columns=4)).hidden
        normed = tower.post_layernorm(hidden)
        weights, bias = tower.head.attention.in_proj_weight, tower.head.attention.in_proj_bias
        queries, keys, _ = weights.chunk(3)
        query = (tower.head.probe[0] @ queries.T + bias[:32]).view(1, 4, 8)
        key = (normed @ keys.T + bias[32:64]).view(4, 64, 4, 8)
        logits = torch.einsum("qhe,flhe->fhl", query, key) / 8**0.5
        torch.testing.assert_close(visitor.descriptions, tower.head(normed))
    torch.testing.assert_close(visitor.attention, logits.softmax(dim=-1).mean(dim=1), atol=1e-5, rtol=1e-5)


def test_a_tower_without_the_head_is_refused_with_the_reason_and_the_model_stays_usable(model) -> None:
    inputs = batch([[clip(6)]])
    reason = r"no attention-pooling head.*vision_tower\.head.*scores=received"
    with pytest.raises(ModelError, match=reason), earlytom.compress(model, "fastvid"):
        model.generate(**inputs, max_new_tokens=1)
    with pytest.raises(ModelError, match="no attention-pooling head"):
        head_attention(model.model.vision_tower, torch.randn(1, 64, 32))
    assert model.generate(**inputs, max_new_tokens=1, do_sample=False).shape[0] == 1


HEADLESS = EncoderShape(depth=26, pooling_head=False)


@pytest.mark.parametrize("text", ["fastvid", "fastvid:visual_tokens=60,tau=0.5", "earlytom@encoder+fastvid@tokens"])
def test_an_encoder_that_can_have_no_head_is_refused_with_what_can_be_had_instead(text) -> None:
    method = earlytom.parse_method(text)
    with pytest.raises(MethodError) as refusal:
        method.check_encoder(HEADLESS)
    assert str(refusal.value) == (
        "this vision encoder has no attention-pooling head, which the method needs; choose the method's substitute "
        "(for fastvid: scores=received)"
    )
    (substitute,) = method.substitutes().values()
    assert substitute.check_encoder(HEADLESS).attention_layer == 25
    options = {"fastvid.scores" if "+" in text else "scores": "received"}
    assert substitute == earlytom.parse_method(text, options)


@pytest.mark.parametrize("text", ["fastvid:scores=received", "fastvid", "earlytom@encoder+fastvid"])
def test_answers_from_end_to_end(model, text) -> None:
    used = model if "received" in text else model_with_head()
    inputs = batch([[clip(12)], [clip(12, seed=1)]])
    with earlytom.compress(used, text) as trace:
        output = used.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3
    for video in trace.videos:
        assert video.tokens == video.budget == 48
        assert sum(video.details["tokens_per_frame"]) == 48
        assert video.attention.shape == (video.frames_left, 16)
    assert (trace.videos[0].frames_left < 12) == ("earlytom" in text)
    assert trace.to_dict()["videos"][0]["tokens"] == 48


def test_what_the_encoder_did_not_give_is_named() -> None:
    with pytest.raises(MethodError, match="pooling head's output"):
        FastVID().select_tokens(replace(scene_clip(3), descriptions=None), 5)
    with pytest.raises(MethodError, match="selects tokens by attention"):
        FastVID().select_tokens(replace(scene_clip(3), attention=None), 5)
    assert FastVID().encoder_plan(EncoderShape(depth=26)) == EncoderPlan(pooling_head=True)
    assert FastVID(scores="received").encoder_plan(EncoderShape(depth=26)) == EncoderPlan(attention_layer=25)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"scores": "keys"}, "scores must be one of 'pooling_head', 'received', got 'keys'"),
        ({"tau": -2}, r"tau must be a number in \[-1.0, 1.0\], got -2"),
        ({"segments": 0}, "segments must be an integer of at least 1, got 0"),
        ({"stride": 0}, "stride must be an integer of at least 1, got 0"),
        ({"context_share": 1.1}, r"context_share must be a number in \[0.0, 1.0\], got 1.1"),
        ({"anchor_weight": -0.1}, r"anchor_weight must be a number in \[0.0, 1.0\], got -0.1"),
        ({"neighbours": True}, "neighbours must be an integer of at least 1, got True"),
        ({"compat": "paper"}, "compat must be one of 'default', 'official', got 'paper'"),
        ({"retention": 1.2}, "retention must be a number"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message) -> None:
    with pytest.raises(MethodError, match=message):
        FastVID(**knobs)


def test_reads_and_writes_the_grammar() -> None:
    method = earlytom.parse_method("fastvid:retention=0.1,scores=received,tau=none,context_share=0,segments=2")
    assert method == FastVID(retention=0.1, scores="received", context_share=0.0, segments=2)
    assert earlytom.parse_method(method.describe()) == method
    tokens = scene_clip(6)
    reduction = method.select_tokens(tokens, 10).reduction
    assert reduction.weight is None  # nothing is merged without anchors
    assert reduction.outputs == 10


def test_gradients_flow_through_the_kept_tokens(model) -> None:
    with earlytom.compress(model, "fastvid:scores=received"):
        output = model(**batch([[clip(12)]]))
    projector = model.model.multi_modal_projector.linear_1.weight
    (gradient,) = torch.autograd.grad(output.logits[0, -1].square().sum(), projector)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
