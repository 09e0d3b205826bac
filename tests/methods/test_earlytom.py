"""EarlyTom as a whole: decisions on clips whose outcome the specification states. Merging: test_earlytom_merging.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earlytom import EarlyTom, MethodError, Reduction, parse_method
from earlytom.methods.presets import PRESETS, preset_names
from earlytom.ops import frame_floor, frame_similarity, over_mean, relative_change, relative_contrast
from earlytom.types import EncoderShape, FrameGrid, FrameStates, LanguageStates, VisualTokens
from earlytom_passes import VARIANTS, run_passes, static_clip
from reference.llm_merging import merge_dropped_naively
from reference.segmentation import segment_naively
from reference.selection import select_naively, select_together_naively
from reference.strategies import quick, scene_clips, variants
from reference.token_clips import visual_tokens


def tokens_of(states: FrameStates, grid: FrameGrid, attention: Tensor | None = None) -> VisualTokens:
    """What stage II sees: here pooling is the identity."""
    return VisualTokens(
        features=states.features,
        attention=states.attention if attention is None else attention,
        grid=grid,
        origin=states.origin,
        frame_similarity=frame_similarity(states.features),
    )


def pooled_tokens(frames_left: int, frames: int, similarity: Tensor, side: int = 14) -> VisualTokens:
    """Stage II alone, on random scores."""
    generator = torch.Generator().manual_seed(0)
    return VisualTokens(
        features=torch.zeros(frames_left, side * side, 1),
        attention=torch.rand(frames_left, side * side, generator=generator),
        grid=FrameGrid(frames=frames, rows=side, columns=side),
        origin=Reduction.identity(frames_left),
        frame_similarity=similarity,
    )


# Stage II


@pytest.mark.parametrize("compat", ["default", "paper"])
@pytest.mark.parametrize("retention", [0.001, 0.05, 0.1, 0.137, 0.15, 0.2, 0.25, 0.5, 0.77, 0.9, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5, 3.0])
def test_the_budget_is_exact_for_every_retention_and_merging_outcome(compat, retention, noise) -> None:
    generator = torch.Generator().manual_seed(0)
    features = static_clip(32) + noise * torch.randn(32, 9, 16, generator=generator)
    method = EarlyTom(compat=compat, retention=retention, tau_seg=0.3)
    grid = FrameGrid(frames=32, rows=3, columns=3)
    budget = method.budget(grid)
    assert budget == max(1, round(retention * 32 * 9))
    states, _ = run_passes(method, features, floor=frame_floor(budget, 9), attention=torch.rand(32, 9))
    reduction = method.select_tokens(tokens_of(states, grid), budget).reduction
    kept = reduction.source.tolist()
    assert len(kept) == budget
    assert kept == sorted(set(kept))
    assert reduction.weight is None


@quick
@given(scene_clips(), st.floats(0.01, 1), variants, st.booleans(), st.booleans())
def test_whole_clips_keep_the_budget_the_order_and_no_token_twice(
    features, retention, compat, merges, decoupled
) -> None:
    frames, per_frame = features.shape[:2]
    method = EarlyTom(retention=retention, compat=compat, decoupled_selection=decoupled, tau_seg=0.6)
    grid = FrameGrid(frames=frames, rows=3, columns=3)
    budget = max(1, round(retention * grid.tokens))
    attention = torch.rand(frames, per_frame, generator=torch.Generator().manual_seed(0))
    states, _ = run_passes(
        method, features, passes=3 if merges else 0, floor=frame_floor(budget, per_frame), attention=attention
    )
    decision = method.select_tokens(tokens_of(states, grid), budget)
    kept = decision.reduction.source.tolist()
    assert kept == sorted(set(kept))
    assert sum(decision.details["tokens_per_frame"]) == len(kept)
    if compat != "official":
        assert len(kept) == budget


@quick
@given(scene_clips(), st.floats(0.05, 1), variants)
def test_selection_equals_the_naive_reference(features, retention, compat) -> None:
    frames, per_frame = features.shape[:2]
    grid = FrameGrid(frames=frames, rows=3, columns=3)
    method = EarlyTom(retention=retention, compat=compat, tau_seg=0.6, ranked_by=("attention",))
    attention = torch.randint(0, 4, (frames, per_frame), generator=torch.Generator().manual_seed(0)).float()
    states = FrameStates(features=features, attention=attention, origin=Reduction.identity(frames))
    decision = method.select_tokens(tokens_of(states, grid), max(1, round(retention * grid.tokens)))
    segments = segment_naively(frame_similarity(features).tolist(), 0.6, 0.9, 6)
    static = [first < frame < last for first, last in segments for frame in range(first, last + 1)]
    assert decision.details["segments"] == segments
    assert decision.details["dynamic"] == [not flag for flag in static]
    counts = decision.details["tokens_per_frame"]
    if compat == "official":
        counts = [max(1, round(per_frame * retention)) if flag else math.ceil(per_frame * retention) for flag in static]
    assert decision.reduction.source.tolist() == select_naively(attention.tolist(), counts, static)


@pytest.mark.parametrize(("retention", "total"), [(0.10, 640), (0.15, 960), (0.20, 1280), (0.25, 1568)])
def test_official_counts_drift_as_published_when_nothing_merges(retention, total) -> None:
    """methods.md 2.4: 640 tokens at 10% of 32 frames, where 627 were asked for."""
    method = EarlyTom(retention=retention, compat="official", tau_seg=0.8)
    decision = method.select_tokens(
        pooled_tokens(32, 32, torch.eye(32)), method.budget(FrameGrid(frames=32, rows=14, columns=14))
    )
    assert decision.reduction.outputs == total


@pytest.mark.parametrize(
    ("retention", "dynamic", "static"), [(0.1, 20, 20), (0.15, 30, 29), (0.2, 40, 39), (0.25, 49, 49)]
)
def test_official_static_frames_round_where_dynamic_frames_round_up(retention, dynamic, static) -> None:
    method = EarlyTom(retention=retention, compat="official", tau_seg=0.8)
    counts = method.select_tokens(pooled_tokens(5, 5, torch.ones(5, 5)), 1).details["tokens_per_frame"]
    assert counts == [dynamic, static, static, static, dynamic]


def test_official_gives_what_merging_saved_to_the_frames_that_are_left() -> None:
    method = EarlyTom(retention=0.1, compat="official", tau_seg=0.8)
    counts = method.select_tokens(pooled_tokens(17, 32, torch.eye(17)), 627).details["tokens_per_frame"]
    assert counts == [math.ceil(196 * 0.1 * 32 / 17)] * 17
    everything = EarlyTom(retention=0.25, compat="official", tau_seg=0.8)
    assert everything.select_tokens(pooled_tokens(4, 32, torch.eye(4)), 1568).reduction.outputs == 4 * 196


@pytest.mark.parametrize("compat", VARIANTS)
@pytest.mark.parametrize("decoupled", [True, False])
def test_dynamic_frames_may_share_what_they_keep(compat, decoupled) -> None:
    tokens = visual_tokens(9, 6, 6)
    similarity = torch.block_diag(torch.ones(4, 4), torch.ones(5, 5))
    tokens = replace(tokens, frame_similarity=similarity if decoupled else None)
    by_grid, by_clip = (
        EarlyTom(
            retention=0.3,
            compat=compat,
            tau_seg=0.8,
            decoupled_selection=decoupled,
            dynamic_selection=reading,
            ranked_by=("attention",),
        )
        for reading in ("frame", "clip")
    )
    budget = by_clip.budget(tokens.grid)
    counts = by_grid.select_tokens(tokens, budget).details["tokens_per_frame"]
    decision = by_clip.select_tokens(tokens, budget)
    static = [not flag for flag in decision.details["dynamic"]]
    assert any(static) == decoupled
    assert "tokens_per_frame" not in decision.details
    assert decision.reduction.source.tolist() == select_together_naively(tokens.attention.tolist(), counts, static)
    if compat != "official":
        assert decision.reduction.outputs == budget


def test_official_rounds_the_retention_itself_where_nothing_merged() -> None:
    """0.1 * 24 / 24 is more than 0.1: a static frame of 25 tokens would keep round(2.5000000000000004) = 3 of them."""
    tokens = replace(visual_tokens(24, 5, 5), frame_similarity=torch.ones(24, 24))
    method = EarlyTom(retention=0.1, compat="official", tau_seg=0.8, max_window=25)
    assert method.select_tokens(tokens, 60).details["tokens_per_frame"] == [3, *[2] * 22, 3]


@pytest.mark.parametrize("compat", VARIANTS)
def test_segments_of_one_or_two_frames_are_dynamic_and_longer_ones_have_static_middles(compat) -> None:
    similarity = torch.block_diag(torch.ones(1, 1), torch.ones(2, 2), torch.ones(3, 3), torch.ones(4, 4))
    decision = EarlyTom(compat=compat, tau_seg=0.8).select_tokens(pooled_tokens(10, 10, similarity), 500)
    assert decision.details["segments"] == [(0, 0), (1, 2), (3, 5), (6, 9)]
    assert decision.details["dynamic"] == [True, True, True, True, False, True, True, False, False, True]


def test_attention_ties_keep_the_lowest_index() -> None:
    method = EarlyTom(tau_seg=0.8, ranked_by=("attention",))
    tokens = replace(pooled_tokens(3, 3, torch.ones(3, 3), side=4), attention=torch.full((3, 16), 0.5))
    kept = method.select_tokens(tokens, 12).reduction.source.tolist()
    assert kept == [0, 1, 2, 3, 16, 20, 24, 28, 32, 33, 34, 35]


def test_selection_needs_attention() -> None:
    tokens = replace(pooled_tokens(3, 3, torch.ones(3, 3)), attention=None)
    with pytest.raises(MethodError, match="received attention"):
        EarlyTom(ranked_by=("attention", "change")).select_tokens(tokens, 10)


# Extreme clips


def extreme_clips() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    different = torch.randn(12, 9, 16, generator=generator)
    some_nan = static_clip(12)
    some_nan[5:8] = float("nan")
    return {
        "black": torch.zeros(12, 9, 16),
        "black with a flash": torch.zeros(12, 9, 16).index_fill(0, torch.tensor([6]), 1.0),
        "nan": torch.full((12, 9, 16), float("nan")),
        "some nan": some_nan,
        "infinite": torch.full((12, 9, 16), float("inf")),
        "identical": static_clip(12),
        "different": different,
        "opposite": static_clip(12) * torch.tensor([1.0, -1.0] * 6)[:, None, None],
        "tiny": different * 1e-30,
        "huge": different * 1e18,
        "one frame": different[:1],
        "two frames": different[:2],
    }


@pytest.mark.parametrize("tau_seg", [None, -1.0, 0.5, 1.0])
@pytest.mark.parametrize("compat", VARIANTS)
@pytest.mark.parametrize("name", extreme_clips())
def test_extreme_clips_neither_crash_nor_miss_the_budget(name, compat, tau_seg) -> None:
    features = extreme_clips()[name]
    method = EarlyTom(compat=compat, tau_seg=tau_seg)
    grid = FrameGrid(frames=len(features), rows=3, columns=3)
    budget = max(1, round(0.25 * grid.tokens))
    attention = torch.full(features.shape[:2], float("nan")) if "nan" in name else None
    states, numbers = run_passes(method, features, floor=frame_floor(budget, 9), attention=attention)
    kept = method.select_tokens(tokens_of(states, grid), budget).reduction.source.tolist()
    assert kept == sorted(set(kept))
    assert 1 <= len(kept) <= numbers[-1] * 9
    if compat != "official":
        assert len(kept) == budget


@pytest.mark.parametrize("compat", VARIANTS)
def test_a_black_clip_has_similarity_zero_so_nothing_merges(compat) -> None:
    assert run_passes(EarlyTom(compat=compat), torch.zeros(12, 9, 16))[1] == [12, 12, 12]


# Stepping aside


@pytest.mark.parametrize(
    ("frames", "side", "compat", "reason"),
    [
        (1, 14, "default", "one frame"), (1, 14, "paper", "one frame"), (1, 14, "official", None),
        (2, 5, "default", "50 visual tokens"), (4, 4, "default", None), (2, 5, "official", None),
        (32, 14, "default", None),
    ],
)  # fmt: skip
def test_steps_aside_for_single_frames_and_short_prompts_only(frames, side, compat, reason) -> None:
    grid = FrameGrid(frames=frames, rows=side, columns=side)
    method = EarlyTom(compat=compat, retention=0.25)
    said = method.steps_aside(grid)
    assert said is None if reason is None else reason in said
    assert method.budget(grid) == (grid.tokens if reason else max(1, round(0.25 * grid.tokens)))


@quick
@given(st.floats(0.001, 1), st.integers(1, 64), st.integers(1, 27), variants)
def test_the_budget_is_the_rounded_share_unless_it_steps_aside(retention, frames, side, compat) -> None:
    grid = FrameGrid(frames=frames, rows=side, columns=side)
    method = EarlyTom(retention=retention, compat=compat)
    share = min(grid.tokens, max(1, round(retention * frames * side * side)))
    assert method.budget(grid) == (grid.tokens if method.steps_aside(grid) else share)
    assert method.exact_budget == (compat != "official")


# Plans and ablations


@pytest.mark.parametrize(
    ("compat", "layers"), [("default", (3, 10, 16)), ("official", (6, 14, 20)), ("paper", (6, 14, 20))]
)
def test_plan_without_knobs(compat, layers) -> None:
    plan = EarlyTom(compat=compat).encoder_plan(EncoderShape(depth=26))
    attention = None if compat == "default" else layers[-1]
    assert (plan.merge_layers, plan.attention_layer, plan.frame_similarity) == (layers, attention, True)
    assert EarlyTom(compat=compat).llm_plan(28).reduce_before == ()


@pytest.mark.parametrize("depth", range(1, 60))
def test_default_layers_fit_every_encoder(depth) -> None:
    plan = EarlyTom(ranked_by=("attention",)).encoder_plan(EncoderShape(depth=depth))
    assert plan.merge_layers[-1] <= plan.attention_layer < depth


def test_layers_that_the_encoder_lacks_are_refused() -> None:
    with pytest.raises(MethodError, match=r"merge_layers 26 does not fit a vision encoder of 26 layers.*0 to 25"):
        EarlyTom(merge_layers=(6, 26)).encoder_plan(EncoderShape(depth=26))
    assert EarlyTom(merge_layers=(6, 25)).encoder_plan(EncoderShape(depth=26)).merge_layers == (6, 25)
    with pytest.raises(MethodError, match=r"score_layer 26 does not fit a vision encoder of 26 layers.*0 to 25"):
        EarlyTom(score_layer=26, ranked_by=("attention",)).encoder_plan(EncoderShape(depth=26))


def test_without_frame_merging_the_attention_still_comes_from_the_last_merge_layer() -> None:
    method = EarlyTom(frame_merging=False, merge_layers=(3, 7), compat="paper")
    plan = method.encoder_plan(EncoderShape(depth=26))
    assert (plan.merge_layers, plan.attention_layer, plan.frame_similarity) == ((), 7, True)


def scene_of_five() -> FrameStates:
    """One segment whose middle pair (1, 2) is more alike than its ends."""
    start, end = torch.tensor([1.0, 0.0]), torch.tensor([0.7, 0.714])
    frames = torch.stack([start + (end - start) * share for share in (0.0, 0.5, 0.52, 0.8, 1.0)])[:, None]
    return FrameStates(features=frames, attention=None, origin=Reduction.identity(5))


def middle_weights(method: EarlyTom) -> list[tuple[int, float]]:
    return method.merge_frames(scene_of_five(), 6, 1).reduction.to_rows()[1]


def test_unweighted_merging_takes_the_plain_mean() -> None:
    paper = EarlyTom(compat="paper", tau_seg=0.5)
    (_, first), (_, second) = middle_weights(paper)
    assert first > second
    assert [weight for _, weight in middle_weights(replace(paper, weighted_merging=False))] == [0.5, 0.5]


def test_the_three_variants_differ_on_one_segment() -> None:
    outcomes = {
        compat: [[s for s, _ in row] for row in method.merge_frames(scene_of_five(), 6, 1).reduction.to_rows()]
        for compat in VARIANTS
        for method in [EarlyTom(compat=compat, tau_seg=0.5, least_frames=0.0)]
    }
    assert outcomes == {
        "default": [[0], [1, 2, 3], [4]],
        "official": [[0], [1, 2], [4]],
        "paper": [[0], [1, 2], [3], [4]],
    }


def test_all_dynamic_selection_takes_the_highest_scores_of_every_frame() -> None:
    tokens = pooled_tokens(5, 5, torch.ones(5, 5))
    method = EarlyTom(tau_seg=0.8, decoupled_selection=False, ranked_by=("attention",))
    assert not method.encoder_plan(EncoderShape(depth=26)).frame_similarity
    decision = method.select_tokens(tokens, 245)
    assert decision.details["dynamic"] == [True] * 5
    expected = select_naively(tokens.attention.tolist(), [49] * 5, [False] * 5)
    assert decision.reduction.source.tolist() == expected
    decoupled = replace(method, decoupled_selection=True).select_tokens(tokens, 245).reduction.source.tolist()
    assert decoupled != expected
    assert len(decoupled) == len(expected)


@pytest.mark.parametrize(
    ("knobs", "longest"),
    [({}, 2), ({"ema": 0.3}, 5), ({"tau_seg": 0.95}, 1), ({"tau_seg": 0.6}, 5), ({"tau_seg": 0.6, "max_window": 4}, 3)],
)
def test_segmentation_knobs_change_the_segments(knobs, longest) -> None:
    similarity = torch.full((12, 12), 0.7).fill_diagonal_(1.0)
    method = replace(EarlyTom(tau_seg=0.72, ema=0.9, max_window=6), **knobs)
    segments = method.select_tokens(pooled_tokens(12, 12, similarity), 500).details["segments"]
    assert max(last - first + 1 for first, last in segments) == longest


def test_inner_merging_is_off_by_default_on_with_the_papers_presets_and_obeys_its_knobs() -> None:
    acting = {name for name in preset_names() if EarlyTom(preset=name).llm_plan(28).reduce_before}
    assert acting == {"paper", *PRESETS}
    assert EarlyTom(inner_merging=True).llm_plan(28).reduce_before == (18,)
    assert EarlyTom(inner_merging=True).llm_plan(24).reduce_before == (18,)
    assert EarlyTom(inner_merging=True, inner_layer=3).llm_plan(28).reduce_before == (3,)
    assert EarlyTom(inner_merging=True, inner_ratio=0.0).llm_plan(28).reduce_before == ()
    assert EarlyTom(inner_layer=3).llm_plan(28).reduce_before == ()
    with pytest.raises(MethodError, match="inner_layer 28 does not fit a language model of 28 layers"):
        EarlyTom(inner_merging=True, inner_layer=28).llm_plan(28)


@pytest.mark.parametrize("depth", range(2, 19))
def test_the_inner_layer_scales_to_shallow_language_models(depth) -> None:
    (layer,) = EarlyTom(inner_merging=True).llm_plan(depth).reduce_before
    assert 1 <= layer < depth
    assert abs(layer - 18 / 28 * depth) <= 1


@pytest.mark.parametrize(("compat", "sequential"), [("default", False), ("paper", False), ("official", True)])
@pytest.mark.parametrize("ratio", [0.5, 0.7])
def test_inner_merging_equals_the_naive_loop(compat, sequential, ratio) -> None:
    hidden, attention = torch.randn(30, 8), torch.rand(30)
    states = LanguageStates(features=hidden, attention=attention, entered=30, depth=28)
    reduction = EarlyTom(compat=compat, inner_merging=True, inner_ratio=ratio).reduce_in_llm(states, 18)
    kept, expected = merge_dropped_naively(hidden, attention, ratio, sequential)
    assert reduction.survivors().tolist() == kept
    torch.testing.assert_close(reduction.apply(hidden).double(), expected, atol=1e-5, rtol=1e-5)


# What tokens are ranked by


@pytest.mark.parametrize("signals", [(), ("attention", "attention"), ("loudness",), "change", 3])
def test_what_tokens_are_ranked_by_is_checked(signals) -> None:
    with pytest.raises(MethodError, match=r"ranked_by must be one or several of attention/change/contrast, each once"):
        EarlyTom(ranked_by=signals)


def test_ranking_is_read_from_text_and_written_back() -> None:
    method = parse_method("earlytom:ranked_by=change/attention,cell_share=0.5")
    assert method == EarlyTom(ranked_by=("change", "attention"), cell_share=0.5)
    assert parse_method(method.describe()) == method == EarlyTom(ranked_by=["change", "attention"], cell_share=0.5)


@quick
@given(scene_clips(), st.sampled_from([("change",), ("contrast",), ("attention", "change", "contrast"), None]))
def test_tokens_are_ranked_by_the_sum_of_what_is_named(features, signals) -> None:
    frames, per_frame = features.shape[:2]
    attention = torch.rand(frames, per_frame, generator=torch.Generator().manual_seed(0))
    states = FrameStates(features=features, attention=attention, origin=Reduction.identity(frames))
    tokens = tokens_of(states, FrameGrid(frames=frames, rows=3, columns=3))
    named = {
        "attention": over_mean(attention),
        "change": relative_change(features),
        "contrast": relative_contrast(features),
    }
    scores = torch.stack([named[signal] for signal in signals or ("change", "contrast")]).sum(dim=0)
    method = EarlyTom(retention=0.3, ranked_by=signals)
    by_attention = EarlyTom(retention=0.3, ranked_by=("attention",))
    budget = method.budget(tokens.grid)
    expected = by_attention.select_tokens(replace(tokens, attention=scores), budget).reduction
    assert method.select_tokens(tokens, budget).reduction == expected


def test_only_a_ranking_by_attention_asks_the_encoder_for_it() -> None:
    shape = EncoderShape(depth=26, cells=True)
    assert EarlyTom().encoder_plan(shape).attention_layer is None
    assert EarlyTom(ranked_by=("contrast", "attention")).encoder_plan(shape).attention_layer == 23
    assert EarlyTom(ranked_by=("attention",), score_layer=5).encoder_plan(shape).attention_layer == 5
    fast = EarlyTom(preset="fast").encoder_plan(shape)
    assert (fast.cell_layer, fast.cell_attention, fast.attention_layer) == (fast.merge_layers[-1], False, None)
    assert EarlyTom(preset="fast", ranked_by=("attention",)).encoder_plan(shape).cell_attention


def test_cells_that_only_a_preset_asks_for_are_left_out_where_an_encoder_has_none() -> None:
    shape = EncoderShape(depth=26)
    assert EarlyTom(preset="fast").check_encoder(shape).cell_layer is None
    with pytest.raises(MethodError, match="go through its layers whole"):
        EarlyTom(cell_share=0.5).check_encoder(shape)
    for share in (0.0, 1.5, "half"):
        with pytest.raises(MethodError, match=r"cell_share must be a number in \(0.0, 1.0\]"):
            EarlyTom(cell_share=share)


# Encoders whose similarities lie elsewhere


@quick
@given(scene_clips(), st.sampled_from([0.4, 2.5]))
def test_a_monotone_change_of_all_similarities_merges_the_same_frames(features, power) -> None:
    """Weights of merged frames go by the values themselves; which frames merge does not."""
    table = (frame_similarity(features).double() * 50).round() / 50
    bent = ((table + 1) / 2) ** power
    merged = []
    for similarity in (table, bent):
        states = FrameStates(
            features=features,
            attention=None,
            origin=Reduction.identity(len(features)),
            similarity=similarity.fill_diagonal_(1.0),
            token_similarity=torch.full((len(features),), -3.0),
        )
        reduction = EarlyTom(max_window=4).merge_frames(states, 3, 1).reduction
        merged.append(None if reduction is None else [[frame for frame, _ in row] for row in reduction.to_rows()])
    assert merged[0] == merged[1]


# Cells


def test_whoever_counts_tokens_of_whole_frames_takes_no_cells() -> None:
    with pytest.raises(MethodError, match=r"cell_share \(0.5\) does not go with compat='official'"):
        EarlyTom(compat="official", cell_share=0.5)
    fast = EarlyTom(compat="official", preset="fast", least_frames=0.0)
    assert fast.encoder_plan(EncoderShape(depth=26, cells=True)).cell_layer is None


def test_a_share_of_nearly_nothing_is_one_cell() -> None:
    assert EarlyTom(cell_share=1e-12).cells_kept(FrameGrid(frames=4, rows=4, columns=4)) == 1


def test_cells_are_an_encoder_stage_of_their_own() -> None:
    assert EarlyTom(frame_merging=False).active_stages == ("tokens",)
    assert EarlyTom(frame_merging=False, cell_share=0.5).active_stages == ("encoder", "tokens")
    shape = EncoderShape(depth=26, cells=True)
    composed = parse_method("earlytom:frame_merging=false,cell_share=0.5+visionzip")
    assert composed.check_encoder(shape).cell_layer == 16


def test_a_preset_does_without_cells_beside_who_needs_whole_grids() -> None:
    shape = EncoderShape(depth=26, cells=True)
    assert parse_method("earlytom:preset=fast+holitom").check_encoder(shape).cell_layer is None
    assert parse_method("earlytom:preset=fast+visionzip").check_encoder(shape).cell_layer == 3
    with pytest.raises(MethodError, match="holitom needs whole temporal grids"):
        parse_method("earlytom:cell_share=0.5+holitom").check_encoder(shape)


@pytest.mark.parametrize("text", ["earlytom:frame_merging=false", "earlytom:frame_merging=false,ranked_by=change"])
def test_without_merging_frames_are_compared_where_they_would_have_merged(text) -> None:
    assert parse_method(text).encoder_plan(EncoderShape(depth=26)).similarity_layer == 16


def test_only_who_cuts_at_the_weakest_link_asks_how_alike_tokens_are() -> None:
    shape = EncoderShape(depth=26)
    assert EarlyTom().encoder_plan(shape).token_similarity
    for method in (EarlyTom(tau_seg=0.5), EarlyTom(compat="paper"), EarlyTom(frame_merging=False)):
        assert not method.encoder_plan(shape).token_similarity
