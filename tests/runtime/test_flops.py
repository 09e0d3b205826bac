"""Operations and token counts of the published checkpoints' sizes, on the meta device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from earlytom.models import open_model
from earlytom.runtime.flops import count_flops

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
    """Budget, layers and operations: merging after 7, 15 and 23, ranking at 23 (methods.md 2.9)."""
    inputs = sizes.packed_inputs(qwen, 384, 168, 280)
    host = open_model(qwen)
    grid = host.open(inputs).grids[0]
    method = earlytom.EarlyTom(retention=0.15)
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames_after": {6: 40}}, "fall from at most 32"),
        ({"frames_after": {6: 0}}, "at least 1"),
        ({"frames_after": {26: 4}}, "layers 0 to 25"),
    ],
)
def test_numbers_that_cannot_be_are_refused(onevision, options, message) -> None:
    inputs = sizes.frame_inputs(onevision, 1, 197, 384)
    with pytest.raises(earlytom.CompressionError, match=message):
        count_flops(onevision, inputs, frames=32, prefill_tokens=100, **options)
    with pytest.raises(earlytom.CompressionError, match="one frame, got 2"):
        count_flops(onevision, sizes.frame_inputs(onevision, 2, 393, 384), frames=32, prefill_tokens=100)


def test_calls_without_values_are_counted_but_never_served() -> None:
    with torch.device("meta"):
        model = tiny_model()
    inputs = {
        name: value.to("meta") if name.startswith("pixel") else value for name, value in batch([[clip(1, 0)]]).items()
    }
    assert count_flops(model, inputs, frames=4, prefill_tokens=9).total > 0
    with pytest.raises(earlytom.ModelError, match="offloaded"):
        earlytom.prepare(model, inputs, "earlytom")
