"""VisionZip as a whole: counts, budget, order, and what it is given by the encoder."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import earlytom
from conftest import batch, clip, tiny_model
from earlytom import MethodError, VisionZip
from earlytom.types import EncoderShape
from reference.spacing import shares_naively
from reference.strategies import quick
from reference.token_clips import decide, shares, token_clips, visual_tokens
from reference.visionzip import zip_naively


@quick
@given(token_clips(), shares, st.sampled_from(["default", "official"]), st.sampled_from([54 / 64, 0.0, 0.5, 0.999]))
def test_equals_the_naive_reference(tokens, retention, compat, share) -> None:
    method = VisionZip(retention=retention, compat=compat, dominant_share=share)
    decision, reduction, budget = decide(method, tokens)
    frames, per_frame = tokens.features.shape[:2]
    counts = shares_naively(budget, frames)
    if compat == "official":
        counts = [max(1, round(per_frame * min(1.0, retention / (frames / tokens.grid.frames))))] * frames
    dominant = [min(int(count * share), max(0, count - 1)) for count in counts]
    contextual = [count - several for count, several in zip(counts, dominant, strict=True)]
    places, values = zip_naively(
        tokens.features, tokens.attention, tokens.keys, dominant, contextual, raster=compat == "default"
    )
    assert reduction.survivors().tolist() == places
    torch.testing.assert_close(reduction.apply(tokens.features.flatten(0, 1)).double(), values, atol=1e-5, rtol=1e-5)
    assert decision.details["tokens_per_frame"] == counts
    if compat == "default":
        assert places == sorted(set(places))
        assert len(places) == budget


@pytest.mark.parametrize(
    ("retention", "dominant", "contextual"), [(0.10, 16, 4), (0.15, 25, 5), (0.20, 33, 7), (0.25, 42, 8)]
)
def test_official_counts_are_those_of_the_tables(retention, dominant, contextual) -> None:
    """methods.md 4: 20, 30, 40 and 50 of 196 tokens."""
    decision, reduction, _ = decide(VisionZip(retention=retention, compat="official"), visual_tokens(4, 14, 14))
    assert decision.details["dominant_tokens"] == [dominant] * 4
    assert decision.details["contextual_tokens"] == [contextual] * 4
    assert reduction.outputs == 4 * (dominant + contextual)


@pytest.mark.parametrize(
    ("retention", "dominant", "contextual"), [(0.10, 14, 3), (0.15, 21, 4), (0.20, 28, 6), (0.25, 35, 7)]
)
def test_official_counts_for_frames_of_169_tokens(retention, dominant, contextual) -> None:
    decision, _, _ = decide(VisionZip(retention=retention, compat="official"), visual_tokens(2, 13, 13))
    assert decision.details["dominant_tokens"] == [dominant] * 2
    assert decision.details["contextual_tokens"] == [contextual] * 2


def test_official_rounds_the_retention_itself_where_nothing_merged() -> None:
    """0.1 * 24 / 24 is more than 0.1, and would keep 3 of 25 tokens."""
    decision, _, _ = decide(VisionZip(retention=0.1, compat="official"), visual_tokens(24, 5, 5))
    assert decision.details["tokens_per_frame"] == [2] * 24


def test_retention_one_changes_no_bit() -> None:
    tokens = visual_tokens(3, 4, 4)
    flat = tokens.features.flatten(0, 1)
    assert torch.equal(decide(VisionZip(retention=1.0), tokens)[1].apply(flat), flat)


def test_identical_frames_and_tokens_do_not_crash_and_keep_the_count() -> None:
    tokens = visual_tokens(4, 4, 4)
    for part in (tokens.features, tokens.attention, tokens.keys):
        part.copy_(torch.ones(()))
    _, reduction, budget = decide(VisionZip(), tokens)
    assert reduction.outputs == budget == 16


def test_a_budget_below_one_token_a_frame_leaves_frames_out() -> None:
    decision, reduction, _ = decide(VisionZip(retention=0.02), visual_tokens(9, 5, 5))
    assert decision.details["tokens_per_frame"] == shares_naively(4, 9)
    assert decision.details["contextual_tokens"] == decision.details["tokens_per_frame"]
    assert reduction.outputs == 4


@pytest.mark.parametrize("missing", ["attention", "keys"])
def test_attention_and_keys_are_needed(missing) -> None:
    with pytest.raises(MethodError, match="received attention and keys"):
        VisionZip().select_tokens(replace(visual_tokens(2, 2, 2), **{missing: None}), 2)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"dominant_share": 1.0}, "dominant_share must be less than 1"),
        ({"dominant_share": -0.1}, "dominant_share must be a number in"),
        ({"attention_layer": -1}, "attention_layer must be an integer of at least 0, got -1"),
        ({"compat": "paper"}, "compat must be one of 'default', 'official', got 'paper'"),
        ({"retention": 0.0}, "retention must be a number in"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message) -> None:
    with pytest.raises(MethodError, match=message):
        VisionZip(**knobs)


def test_the_last_layer_decides_and_layers_that_are_not_there_are_refused() -> None:
    plan = VisionZip().encoder_plan(EncoderShape(depth=26))
    assert (plan.attention_layer, plan.keys, plan.merge_layers) == (25, True, ())
    assert VisionZip(attention_layer=22).encoder_plan(EncoderShape(depth=26)).attention_layer == 22
    with pytest.raises(MethodError, match="attention_layer 26 does not fit a vision encoder of 26 layers"):
        VisionZip(attention_layer=26).encoder_plan(EncoderShape(depth=26))


@pytest.mark.parametrize(
    "samples", [[[clip(12, 0)]], [[clip(12, 0)], [clip(12, 1), clip(12, 2)]]], ids=["one", "three"]
)
def test_end_to_end_equals_zipping_what_the_stock_encoder_gives(samples) -> None:
    model, inputs = tiny_model("eager"), batch(samples)
    clips = [frames for sample in samples for frames in sample]
    with torch.no_grad(), earlytom.compress(model, "visionzip:retention=0.7,dominant_share=0.5") as trace:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    for frames, video in zip(clips, trace.videos, strict=True):
        features, attention, keys = stock_tokens(model, frames)
        places, values = zip_naively(features, attention, keys, *split_counts(134, 12), raster=True)
        assert video.selection.survivors().tolist() == places
        ours = video.selection.apply(features.flatten(0, 1)).double()
        torch.testing.assert_close(ours, values, atol=1e-4, rtol=1e-4)
        assert video.tokens == video.budget == 134


def split_counts(budget: int, frames: int) -> tuple[list[int], list[int]]:
    counts = shares_naively(budget, frames)
    dominant = [count // 2 for count in counts]
    return dominant, [count - several for count, several in zip(counts, dominant, strict=True)]


def stock_tokens(model: torch.nn.Module, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, attention and keys of the last layer, from stock maps and a hook, pooled by the model itself."""
    inner, keys = model.model, []
    handle = inner.vision_tower.encoder.layers[-1].self_attn.k_proj.register_forward_hook(
        lambda module, args, output: keys.append(output.unflatten(-1, (4, -1)).mean(2))
    )
    with torch.no_grad():
        maps = inner.vision_tower(frames, output_attentions=True).attentions[-1].mean(dim=(1, 2))
        features = inner.get_video_features(frames[None]).pooler_output.view(-1, 48)[: len(frames) * 16]
    handle.remove()
    pooled = inner.apply_pooling(torch.cat([maps[..., None], keys[0]], dim=-1))
    return features.view(len(frames), 16, 48), pooled[..., 0], pooled[..., 1:]
