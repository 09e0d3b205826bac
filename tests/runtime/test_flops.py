"""Operations and token counts of the published checkpoints' sizes, on the meta device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import earlytom
from cell_methods import SomeCells
from conftest import batch, clip, tiny_model
from earlytom.models import open_model
from earlytom.runtime.flops import Flops, count_call, count_flops

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import _true_sizes as sizes


def language_model_flops(tokens: int, width: int, inner: int, layers: int, heads: int, groups: int, words: int) -> int:
    """Two for each multiply-add: projections, the whole attention matrix, a gated MLP, one row of logits."""
    head = width // heads
    projections = tokens * width * (2 * width + 2 * groups * head)
    attention = 2 * tokens * tokens * width
    return 2 * layers * (projections + attention + 3 * tokens * width * inner) + 2 * width * words


def nearly(flops: int) -> object:
    """But for the rotary angles, which transformers 5.17 makes with a matrix product: 2e-8 of the whole."""
    return pytest.approx(flops, rel=1e-7)


def siglip_flops(patches: int = 729, width: int = 1152, inner: int = 4304, layers: int = 26, patch: int = 14) -> int:
    layer = 4 * patches * width**2 + 2 * patches**2 * width + 2 * patches * width * inner
    return 2 * (layers * layer + patches * 3 * patch**2 * width)


@pytest.fixture(scope="module")
def onevision() -> torch.nn.Module:
    return sizes.llava_onevision("7b")


@pytest.fixture(scope="module")
def qwen() -> torch.nn.Module:
    return sizes.qwen2_5_vl()


def tokens_of(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> int:
    return sum(grid.tokens for grid in open_model(model).open(inputs).grids)


def test_tokens_of_llava_onevision_at_32_frames(onevision) -> None:
    inputs = sizes.frame_inputs(onevision, 32, 32 * 196 + 1, 384)
    assert tokens_of(onevision, inputs) == 6272
    grid = open_model(onevision).open(inputs).grids[0]
    assert [earlytom.EarlyTom(retention=r).budget(grid) for r in (0.25, 0.2, 0.15, 0.1)] == [1568, 1254, 941, 627]


def test_operations_of_llava_onevision_equal_the_formulas(onevision) -> None:
    inputs = sizes.frame_inputs(onevision, 1, 197, 384)
    found = count_flops(onevision, inputs, frames=32, prefill_tokens=6273)
    assert found.encoder == 32 * siglip_flops()
    assert found.projection == pytest.approx(2 * 32 * 729 * (1152 * 3584 + 3584**2), rel=0.01)
    assert found.prefill == nearly(language_model_flops(6273, 3584, 18944, 28, 28, 4, 152128))
    assert found.total == found.encoder + found.projection + found.prefill
    merged = count_flops(onevision, inputs, frames=32, prefill_tokens=628, frames_after={6: 22, 14: 16, 20: 14})
    at_the_end = count_flops(onevision, inputs, frames=32, prefill_tokens=628, frames_after={25: 8})
    assert (at_the_end.encoder, at_the_end.projection * 4) == (found.encoder, found.projection)
    layer = (siglip_flops() - siglip_flops(layers=0)) // 26
    assert merged.encoder == 32 * siglip_flops(layers=0) + layer * (7 * 32 + 8 * 22 + 6 * 16 + 5 * 14)


def test_tokens_and_operations_of_qwen2_5_vl_at_768_frames(qwen) -> None:
    """Table 7: at most 768 frames, a context of 23k tokens; 168 x 280 pixels a frame make 60 tokens of each pair."""
    assert tokens_of(qwen, sizes.packed_inputs(qwen, 384, 168, 280)) == 23040
    inputs = sizes.packed_inputs(qwen, 1, 168, 280)
    found = count_flops(qwen, inputs, frames=384, prefill_tokens=23000)
    assert found.prefill == nearly(language_model_flops(23000, 3584, 18944, 28, 28, 4, 152064))
    assert found.prefill / 1e12 == pytest.approx(512.5, abs=1.5)
    whole = 4 * 2 * (2 * 240**2 * 1280)
    windows = 28 * 2 * (2 * sum(size**2 for size in (64, 64, 32, 32, 32, 16)) * 1280)
    linear = 32 * 2 * 240 * (4 * 1280**2 + 3 * 1280 * 3420)
    assert found.encoder == 384 * (whole + windows + linear + 2 * 240 * 3 * 2 * 14**2 * 1280)


def test_table_7_s_setting_of_qwen2_5_vl_at_15_percent(qwen) -> None:
    """Budget, layers and operations: merging after 7, 15 and 23, ranking at 23 (methods.md 2.9), as in the paper."""
    inputs = sizes.packed_inputs(qwen, 384, 168, 280)
    host = open_model(qwen)
    grid = host.open(inputs).grids[0]
    method = earlytom.EarlyTom(retention=0.15, compat="paper")
    plan = method.encoder_plan(host.shape)
    assert (method.budget(grid), plan.merge_layers, plan.attention_layer) == (3456, (7, 15, 23), 23)
    one = sizes.packed_inputs(qwen, 1, 168, 280)
    plain = count_flops(qwen, one, frames=384, prefill_tokens=23040)
    short = count_flops(qwen, one, frames=384, prefill_tokens=3456, frames_after={7: 300, 15: 250, 23: 220})
    assert short.prefill == nearly(language_model_flops(3456, 3584, 18944, 28, 28, 4, 152064))
    # Of two frames one is left after a layer: what is more than one frame's total is what one frame costs up to there.
    whole = plain.encoder // 384
    up_to = {
        layer: count_flops(qwen, one, frames=2, prefill_tokens=1, frames_after={layer: 1}).encoder - whole
        for layer in (7, 15, 23)
    }
    assert 0 < up_to[7] < up_to[15] < up_to[23] < whole
    parts = [up_to[7], up_to[15] - up_to[7], up_to[23] - up_to[15], whole - up_to[23]]
    assert short.encoder == sum(count * cost for count, cost in zip((384, 300, 250, 220), parts, strict=True))


def test_the_other_families_at_true_size() -> None:
    """LLaVA-Video-7B, Qwen3-VL-8B and InternVL3-8B: token counts, and operations that the formulas give."""
    video = sizes.llava_video()
    assert tokens_of(video, sizes.frame_inputs(video, 64, 64 * 13 * 14, 384)) == 10816
    found = count_flops(video, sizes.frame_inputs(video, 1, 13 * 14, 384), frames=64, prefill_tokens=11648)
    assert found.encoder == 64 * siglip_flops()
    assert found.prefill == nearly(language_model_flops(11648, 3584, 18944, 28, 28, 4, 152064))

    qwen3 = sizes.qwen3_vl()
    assert tokens_of(qwen3, sizes.timestamped_inputs(qwen3, 128, 192, 320)) == 128 * 60
    found = count_flops(qwen3, sizes.timestamped_inputs(qwen3, 1, 192, 320), frames=128, prefill_tokens=9000)
    layer = 4 * 240 * 1152**2 + 2 * 240**2 * 1152 + 2 * 240 * 1152 * 4304
    assert found.encoder == 128 * 2 * (27 * layer + 240 * 3 * 2 * 16**2 * 1152)
    projections = 4096 * (2 * 32 * 128 + 2 * 8 * 128)
    layers = 2 * 36 * (9000 * projections + 2 * 9000**2 * 32 * 128 + 3 * 9000 * 4096 * 12288)
    assert found.prefill == nearly(layers + 2 * 4096 * 151936)

    internvl = sizes.internvl()
    assert tokens_of(internvl, sizes.labelled_inputs(internvl, 32, 448)) == 32 * 256
    found = count_flops(internvl, sizes.labelled_inputs(internvl, 1, 448), frames=32, prefill_tokens=8500)
    layer = 4 * 1025 * 1024**2 + 2 * 1025**2 * 1024 + 2 * 1025 * 1024 * 4096
    assert found.encoder == 32 * 2 * (24 * layer + 1024 * 3 * 14**2 * 1024)
    assert found.prefill == nearly(language_model_flops(8500, 3584, 18944, 28, 28, 4, 151674))


def test_layers_of_the_language_model_are_counted_with_the_tokens_that_each_gets(onevision) -> None:
    inputs = sizes.frame_inputs(onevision, 1, 197, 384)
    found = count_flops(onevision, inputs, frames=32, prefill_tokens=1606, prefill_after={2: 700, 18: 390})
    head = 2 * 3584 * 152128
    layers = [
        language_model_flops(tokens, 3584, 18944, count, 28, 4, 0)
        for tokens, count in ((1606, 2), (700, 16), (390, 10))
    ]
    assert found.prefill == nearly(sum(layers) + head)


def test_layers_of_the_encoder_are_counted_with_the_tokens_that_are_left_in_each(onevision) -> None:
    inputs, width, inner = sizes.frame_inputs(onevision, 1, 197, 384), 1152, 4304
    after = {0: 600, 1: 400, 20: 182}
    tokens = [729, 600, *[400] * 19, *[182] * 5]  # enter each layer's attention
    layers = [
        4 * count * width**2 + 2 * count**2 * width + 2 * after.get(layer, count) * width * inner
        for layer, count in enumerate(tokens)
    ]
    whole = count_flops(onevision, inputs, frames=3, prefill_tokens=100)
    restored = count_flops(onevision, inputs, frames=3, prefill_tokens=100, tokens_after=after)
    left = count_flops(onevision, inputs, frames=3, prefill_tokens=100, tokens_after=after, pooled=False)
    assert left.encoder == restored.encoder == 3 * 2 * sum(layers) + 3 * siglip_flops(layers=0)
    assert restored.projection == whole.projection
    assert left.projection == 3 * 2 * 182 * (1152 * 3584 + 3584**2)


def test_operations_of_cells_that_go_on_equal_the_formulas(onevision) -> None:
    """So many patches go through the layers behind, and through the projector, as the cells rest on: four each."""
    inputs = sizes.frame_inputs(onevision, 1, 197, 384)
    found = count_flops(onevision, inputs, frames=3, prefill_tokens=100, cells_after={5: 98})
    width, inner = 1152, 4304
    layers = [
        2 * (4 * count * width**2 + 2 * count**2 * width + 2 * count * width * inner)
        for count in [729] * 6 + [4 * 98] * 20
    ]
    assert found.encoder == 3 * (sum(layers) + siglip_flops(layers=0))
    assert found.projection == 3 * 2 * 4 * 98 * (width * 3584 + 3584**2)


def test_operations_of_cells_in_windows_equal_the_formulas(qwen) -> None:
    """Half of the cells of each window are half of its patches; layers of Qwen2.5-VL see windows or the whole grid."""
    inputs = sizes.packed_inputs(qwen, 1, 168, 280)
    found, plain = (
        count_flops(qwen, inputs, frames=1, prefill_tokens=100, cells_after=after) for after in ({7: 30}, None)
    )
    linear = 24 * 2 * 240 * (4 * 1280**2 + 3 * 1280 * 3420)
    whole = 3 * 2 * (2 * 240**2 * 1280)
    windows = 21 * 2 * (2 * sum(size**2 for size in (64, 64, 32, 32, 32, 16)) * 1280)
    assert plain.encoder - found.encoder == linear // 2 + (whole + windows) * 3 // 4
    assert found.projection * 2 == plain.projection


@pytest.mark.parametrize(
    ("method", "merging", "layers_inside"),
    [
        ("none", {}, False),
        ("earlytom:retention=0.25,tau_seg=0.2", {"frames_after"}, False),
        ("tome:retention=0.25", {"tokens_after"}, False),
        ("tome:retention=0.25,unmerge=false", {"tokens_after", "pooled"}, False),
        ("fastv:retention=0.25", {"prefill_after"}, True),
        (SomeCells(retention=0.25), {"cells_after"}, False),
        (SomeCells(retention=0.1, merging=True), {"frames_after", "cells_after"}, False),
    ],
)
def test_a_call_is_counted_by_its_trace(method, merging, layers_inside) -> None:
    model, inputs = tiny_model(), batch([[clip(12)]])
    with earlytom.compress(model, method) as trace:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    call = trace.last
    video = call.videos[0]
    assert bool(call.language) is layers_inside
    numbers = {
        "frames_after": {merge.layer: merge.grids_after for merge in video.merges},
        "tokens_after": {merge.layer: merge.tokens_after for merge in video.token_merges},
        "cells_after": video.cells and {video.cells.layer: video.cells.cells_after},
        "pooled": False,
        "prefill_after": {
            step.layer: call.prefill_tokens - call.visual_tokens[0] + step.tokens_after[0] for step in call.language
        },
    }
    if not isinstance(method, str):
        assert video.cells.cells_after == 8
    expected = on_meta(
        count_flops, frames=12, prefill_tokens=call.prefill_tokens, **{name: numbers[name] for name in merging}
    )
    found = on_meta(count_call, call=call)
    assert found == expected
    plain = on_meta(count_flops, frames=12, prefill_tokens=call.prompt_tokens)
    assert (found == plain) is (method == "none")


def on_meta(count, **options: object) -> Flops:
    """What counting says of the tiny model with a clip of one frame."""
    with torch.device("meta"):
        model = tiny_model()
    inputs = {
        name: value.to("meta") if name.startswith("pixel") else value for name, value in batch([[clip(1)]]).items()
    }
    return count(model, inputs, **options)


def test_what_is_counted_by_shapes_is_what_a_call_does() -> None:
    """Without a method's own decisions the whole call, run for real, does as many operations.

    The counter does not know the fused attention of CPUs, so the call's is eager.
    """
    model, inputs = tiny_model("eager"), batch([[clip(12)]])
    with earlytom.compress(model, "none") as trace, FlopCounterMode(display=False) as counter:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert on_meta(count_call, call=trace.last).total == counter.get_total_flops()


def test_calls_without_one_clip_are_refused() -> None:
    with pytest.raises(earlytom.CompressionError, match="one clip, got one with 0"):
        on_meta(count_call, call=earlytom.trace.CallTrace())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames_after": {6: 40}}, "fall from at most 32"),
        ({"frames_after": {6: 0}}, "at least 1"),
        ({"frames_after": {26: 4}}, "layers 0 to 25"),
        ({"tokens_after": {26: 4}}, "layers 0 to 25"),
        ({"tokens_after": {3: 730}}, "the 729 tokens that enter layer 3, got 730"),
        ({"cells_after": {26: 4}}, "layers 0 to 25"),
        ({"cells_after": {3: 197}}, "from 1 to the 196 cells of a frame, got 197"),
        ({"cells_after": {3: 0}}, "from 1 to the 196 cells of a frame, got 0"),
        ({"cells_after": {3: 9, 4: 8}}, r"one layer at most, got \[3, 4\]"),
        ({"prefill_after": {0: 4}}, "layers 1 to 27"),
        ({"prefill_after": {3: 101}}, "fall from at most 100"),
    ],
)
def test_numbers_that_cannot_be_are_refused(onevision, options, message) -> None:
    inputs = sizes.frame_inputs(onevision, 1, 197, 384)
    with pytest.raises(earlytom.CompressionError, match=message):
        count_flops(onevision, inputs, frames=32, prefill_tokens=100, **options)
    with pytest.raises(earlytom.CompressionError, match="one frame, got 2"):
        count_flops(onevision, sizes.frame_inputs(onevision, 2, 393, 384), frames=32, prefill_tokens=100)


def test_tokens_that_cannot_merge_are_refused(qwen) -> None:
    inputs = sizes.packed_inputs(qwen, 1, 168, 280)
    with pytest.raises(earlytom.CompressionError, match="cannot merge in the encoder of Qwen2_5_VLFor"):
        count_flops(qwen, inputs, frames=1, prefill_tokens=9, tokens_after={3: 5})


def test_calls_without_values_are_counted_but_never_served() -> None:
    with torch.device("meta"):
        model = tiny_model()
    inputs = {
        name: value.to("meta") if name.startswith("pixel") else value for name, value in batch([[clip(1, 0)]]).items()
    }
    assert count_flops(model, inputs, frames=4, prefill_tokens=9).total > 0
    with pytest.raises(earlytom.ModelError, match="offloaded"):
        earlytom.prepare(model, inputs, "earlytom")
