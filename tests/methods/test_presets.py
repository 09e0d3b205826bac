"""Table 8 written out once more by hand, and its layers on encoders of other depths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earlytom import EarlyTom, MethodError
from earlytom.methods.presets import EVERYDAY, PRESETS, WITHOUT_PRESET, find_preset, preset_names, scale_layers
from earlytom.types import EncoderShape
from reference.strategies import quick

# fmt: off
TABLE_8 = {
    # LLaVA-OneVision-7B
    ("mvbench", 0.25): (0.8, [6, 14, 20]),
    ("mvbench", 0.20): (0.8, [6, 14, 20]),
    ("mvbench", 0.15): (0.8, [6, 14, 20]),
    ("mvbench", 0.10): (0.65, [8, 14, 20]),
    ("egoschema", 0.25): (0.7, [10, 21, 23]),
    ("egoschema", 0.20): (0.6, [10, 21, 23]),
    ("egoschema", 0.15): (0.5, [10, 21, 23]),
    ("egoschema", 0.10): (0.3, [10, 21, 23]),
    ("longvideobench", 0.25): (0.8, [6, 21, 23]),
    ("longvideobench", 0.20): (0.6, [10, 21, 23]),
    ("longvideobench", 0.15): (0.5, [10, 21, 23]),
    ("longvideobench", 0.10): (0.3, [10, 21, 23]),
    ("videomme", 0.25): (0.6, [10, 21, 23]),
    ("videomme", 0.20): (0.5, [8, 21, 23]),
    ("videomme", 0.15): (0.4, [8, 21, 23]),
    ("videomme", 0.10): (0.3, [10, 21, 23]),
    # LLaVA-OneVision-0.5B
    ("mvbench-0.5b", 0.25): (0.8, [8, 21, 23]),
    ("mvbench-0.5b", 0.20): (0.8, [8, 21, 23]),
    ("mvbench-0.5b", 0.15): (0.8, [8, 21, 23]),
    ("mvbench-0.5b", 0.10): (0.65, [8, 21, 23]),
    ("egoschema-0.5b", 0.25): (0.7, [10, 21, 23]),
    ("egoschema-0.5b", 0.20): (0.6, [10, 21, 23]),
    ("egoschema-0.5b", 0.15): (0.5, [10, 21, 23]),
    ("egoschema-0.5b", 0.10): (0.3, [10, 21, 23]),
    ("longvideobench-0.5b", 0.25): (0.8, [6, 21, 23]),
    ("longvideobench-0.5b", 0.20): (0.6, [10, 21, 23]),
    ("longvideobench-0.5b", 0.15): (0.5, [10, 21, 23]),
    ("longvideobench-0.5b", 0.10): (0.3, [10, 21, 23]),
    ("videomme-0.5b", 0.25): (0.6, [8, 21, 23]),
    ("videomme-0.5b", 0.20): (0.5, [8, 21, 23]),
    ("videomme-0.5b", 0.15): (0.4, [8, 21, 23]),
    ("videomme-0.5b", 0.10): (0.3, [8, 21, 23]),
}
# fmt: on

layer_triples = st.sampled_from([(6, 14, 20), (8, 14, 20), (10, 21, 23), (6, 21, 23), (8, 21, 23)])


@pytest.mark.parametrize(("name", "retention"), TABLE_8)
def test_every_cell_of_table_8(name, retention) -> None:
    tau_seg, layers = TABLE_8[name, retention]
    preset = find_preset(name, retention)
    assert (preset.tau_seg, list(preset.merge_layers)) == (tau_seg, layers)


def test_there_are_no_other_cells() -> None:
    assert {(name, retention) for name, rows in PRESETS.items() for retention in rows} == set(TABLE_8)


@pytest.mark.parametrize(("name", "retention"), TABLE_8)
def test_a_preset_sets_layers_and_inner_merging_of_the_method(name, retention) -> None:
    method = EarlyTom(preset=name, retention=retention)
    assert list(method.encoder_plan(EncoderShape(depth=26)).merge_layers) == TABLE_8[name, retention][1]
    assert method.llm_plan(28).reduce_before == method.llm_plan(24).reduce_before == (18,)
    assert (method.ema, method.max_window, method.inner_ratio) == (0.9, 6, 0.5)


def test_knobs_given_by_hand_win_over_the_preset() -> None:
    method = EarlyTom(preset="mvbench", merge_layers=(3, 5), inner_merging=False)
    assert method.encoder_plan(EncoderShape(depth=26)).merge_layers == (3, 5)
    assert method.llm_plan(28).reduce_before == ()


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(
        MethodError, match=r"unknown preset 'mvbnch'; the presets are: fast, quality, paper, mvbench, .*videomme-0\.5b"
    ):
        EarlyTom(preset="mvbnch")


@pytest.mark.parametrize("retention", [0.03, 0.1, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("name", list(EVERYDAY))
def test_everyday_presets_merge_no_later_than_the_default_at_any_retention(name, retention) -> None:
    method, default = EarlyTom(preset=name, retention=retention), EarlyTom(retention=retention)
    for depth in (8, 26, 27):
        first, usual = (one.encoder_plan(EncoderShape(depth=depth)).merge_layers for one in (method, default))
        if name == "fast":
            assert all(early < late for early, late in zip(first, usual, strict=False))
            assert first[-1] < usual[-1]
        else:
            assert first == usual
    assert method.active_stages == default.active_stages == ("encoder", "tokens")
    assert find_preset(name, retention).tau_seg is None


def test_the_published_method_has_no_bound() -> None:
    assert WITHOUT_PRESET["official"].least_frames == WITHOUT_PRESET["paper"].least_frames == 0
    assert all(preset.least_frames == 0 for rows in PRESETS.values() for preset in rows.values())


@pytest.mark.parametrize(
    ("retention", "nearest"), [(0.01, 0.1), (0.1, 0.1), (0.12, 0.1), (0.14, 0.15), (0.2, 0.2), (0.9, 0.25)]
)
def test_paper_is_the_row_of_mvbench_at_the_nearest_published_retention(retention, nearest) -> None:
    method = EarlyTom(preset="paper", retention=retention)
    assert find_preset("paper", retention) == PRESETS["mvbench"][nearest]
    assert list(method.encoder_plan(EncoderShape(depth=26)).merge_layers) == TABLE_8["mvbench", nearest][1]
    assert "llm" in method.active_stages


def test_presets_are_listed_once_each() -> None:
    assert preset_names() == ["fast", "quality", "paper", *PRESETS]


@pytest.mark.parametrize("name", preset_names())
def test_the_papers_presets_go_by_retention_and_the_others_by_nothing(name) -> None:
    if name in EVERYDAY:
        assert EarlyTom(preset=name, visual_tokens=100)._preset == EVERYDAY[name]
        return
    with pytest.raises(MethodError, match=f"preset '{name}' goes by the retention, .* give retention instead"):
        EarlyTom(preset=name, visual_tokens=100)


def test_a_retention_that_the_table_lacks_says_which_it_has() -> None:
    with pytest.raises(MethodError, match=r"retention 0\.1, 0\.15, 0\.2, 0\.25, got 0\.3"):
        EarlyTom(preset="mvbench", retention=0.3)


@quick
@given(layer_triples)
def test_scaling_to_the_same_depth_changes_nothing(layers) -> None:
    assert scale_layers(layers, EncoderShape(depth=26)) == layers


@quick
@given(layer_triples, st.integers(1, 80))
def test_scaled_layers_ascend_and_fit_the_encoder(layers, depth) -> None:
    scaled = scale_layers(layers, EncoderShape(depth=depth))
    assert list(scaled) == sorted(set(scaled))
    assert 1 <= len(scaled) <= len(layers)
    assert all(0 <= layer < depth for layer in scaled)


@quick
@given(layer_triples, st.integers(8, 80))
def test_no_layer_is_lost_where_the_encoder_has_room_for_all(layers, depth) -> None:
    assert len(scale_layers(layers, EncoderShape(depth=depth))) == len(layers)


@quick
@given(layer_triples, st.integers(12, 80))
def test_scaled_layers_lie_within_one_layer_of_26_of_the_same_share_of_the_depth(layers, depth) -> None:
    for layer, scaled in zip(layers, scale_layers(layers, EncoderShape(depth=depth)), strict=True):
        assert abs(scaled - layer * depth / 26) <= depth / 26 + 0.5


def test_layers_for_qwen2_5_vl_are_those_of_the_specification() -> None:
    """methods.md 2.9: the same relative depth as [10, 21, 23] of 26 is [12, 26, 28] of 32."""
    assert scale_layers((10, 21, 23), EncoderShape(depth=32)) == (12, 26, 28)


@pytest.mark.parametrize("layers", [(6, 14, 20), (10, 21, 23), (3, 10, 16), (1, 6, 13)])
def test_no_preset_merges_after_the_last_layer_of_an_encoder_with_windows(layers) -> None:
    """methods.md 2.9: Qwen2.5-VL merges after 7, 15, 23 and scores at 23."""
    qwen = EncoderShape(depth=32, global_layers=(7, 15, 23, 31))
    assert scale_layers(layers, qwen) == (7, 15, 23)
    assert scale_layers(layers, EncoderShape(depth=4, global_layers=(3,))) == (3,)
