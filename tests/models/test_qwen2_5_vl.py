"""What is Qwen2.5-VL's own: attention windows and the order of patches they ask for. The rest: test_qwen_vl*.py."""

from __future__ import annotations

import pytest
import torch

import earlytom
from earlytom.models import open_model
from earlytom.types import FrameGrid
from families.qwen2_5_vl import batch, build, clip
from reference import qwen_vl as slow
from visitors import Watching, encode, frames_of, project

ROWS, COLUMNS = 3, 5
GRID = FrameGrid(frames=4, rows=ROWS, columns=COLUMNS)
# Windows of 16 pixels are 2x2 merge units of 2x2 patches of 4 pixels.
WINDOW = 2


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return build()


def window_order() -> list[tuple[int, int]]:
    """Row and column of each merge unit in the order of the encoder's sequence: window by window."""
    order = []
    for top in range(0, ROWS, WINDOW):
        for left in range(0, COLUMNS, WINDOW):
            for row in range(top, min(top + WINDOW, ROWS)):
                for column in range(left, min(left + WINDOW, COLUMNS)):
                    order.append((row, column))
    return order


def test_pooled_attention_is_the_mean_of_each_unit_in_raster_order(model) -> None:
    attention = torch.rand(2, ROWS * COLUMNS * 4, generator=torch.Generator().manual_seed(1))
    pooled = open_model(model).tower(GRID).pool_attention(attention)
    for frame in range(2):
        for place, (row, column) in enumerate(window_order()):
            expected = sum(attention[frame, 4 * place + patch] for patch in range(4)) / 4
            torch.testing.assert_close(pooled[frame, row * COLUMNS + column], expected)


def test_projected_tokens_stand_in_raster_order(model) -> None:
    hidden = torch.randn(2, ROWS * COLUMNS * 4, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tokens = project(model, frames_of(hidden), GRID)
        for frame in range(2):
            for place, (row, column) in enumerate(window_order()):
                expected = model.model.visual.merger(hidden[frame, 4 * place : 4 * place + 4])[0]
                torch.testing.assert_close(tokens[frame, row * COLUMNS + column], expected, atol=1e-5, rtol=1e-5)


class Recording(Watching):
    """A visitor that keeps the hidden states behind every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[torch.Tensor] = []

    def after_layer(self, layer, batch):
        self.states.append(batch.hidden)
        return super().after_layer(layer, batch)


def test_attention_crosses_windows_in_whole_layers_only(model) -> None:
    """Changing one patch changes its own window behind layer 0, and the whole frame, no other, behind layer 1."""
    pixels = clip(3, 0)
    changed = pixels.clone()
    changed.flatten(1, 2)[1, 0] += 5
    states = []
    with torch.no_grad():
        for one in (pixels, changed):
            visitor = Recording()
            grid = FrameGrid(frames=3, rows=ROWS, columns=COLUMNS)
            encode(model, one.flatten(1, 2), visitor, grid)
            states.append(visitor.states)
    for layer, reached in enumerate([4 * WINDOW**2, ROWS * COLUMNS * 4]):
        moved = (states[0][layer] != states[1][layer]).any(-1)
        assert not moved[0].any()
        assert not moved[2].any()
        assert moved[1].nonzero().flatten().tolist() == list(range(reached))


def test_temporal_positions_follow_the_seconds_of_each_grid(model) -> None:
    inputs = batch([[clip(4, 0), clip(3, 1)]])
    inputs["second_per_grid_ts"] = torch.tensor([3.0, 1.0])
    prepared = earlytom.prepare(model, inputs, "none")
    runs = iter([(4, ROWS, COLUMNS, 6), (3, ROWS, COLUMNS, 2)])
    expected = slow.positions(inputs["input_ids"][0].tolist(), runs, iter([]))
    assert torch.equal(prepared.arguments["position_ids"][1:, 0], expected)


def test_prepare_gives_what_compress_gives(model) -> None:
    inputs, method = batch([[clip(12, 0)], [clip(12, 1)]]), "earlytom:retention=0.25,merge_layers=1/3/5"
    with earlytom.compress(model, method):
        expected = model.generate(**inputs, do_sample=False, max_new_tokens=6)
    prepared = earlytom.prepare(model, inputs, method)
    assert torch.equal(model.generate(**prepared.arguments, do_sample=False, max_new_tokens=6), expected)


@pytest.mark.parametrize(
    "method", ["earlytom:compat=paper,merge_layers=2/4", "earlytom:ranked_by=attention,score_layer=6"]
)
def test_a_window_layer_cannot_rank_tokens(model, method) -> None:
    with pytest.raises(earlytom.MethodError, match=r"stays inside windows.*1, 3, 5, 7"):
        earlytom.prepare(model, batch([[clip(12, 0)]]), method)


def test_methods_choose_layers_that_see_the_whole_frame(model) -> None:
    shape = open_model(model).shape
    assert shape.global_layers == (1, 3, 5, 7)
    assert earlytom.EarlyTom(ranked_by=("attention",)).encoder_plan(shape).attention_layer in shape.global_layers


def test_an_encoder_of_windows_alone_is_refused() -> None:
    model = build()
    model.config.vision_config.fullatt_block_indexes = [9]
    with pytest.raises(earlytom.ModelError, match="fullatt_block_indexes"):
        open_model(model)


@pytest.mark.slow
def test_a_clip_of_768_frames_and_23040_tokens_runs() -> None:
    """384 temporal grids of 60 tokens, as in Table 7's setting; the model itself is tiny."""
    model, inputs = build(), batch([[clip(384, 0, rows=12, columns=20)]])
    method = "earlytom:retention=0.15,inner_merging=true,least_frames=0.15,tau_seg=0.3"
    with torch.no_grad(), earlytom.compress(model, method) as trace:
        output = model.generate(**inputs, do_sample=False, max_new_tokens=2)
    (shown,) = trace.videos
    assert (shown.grid.frames, shown.grid.tokens, shown.tokens) == (384, 23040, 3456)
    assert 58 <= shown.frames_left < 384
    assert output.shape[1] == inputs["input_ids"].shape[1] + 2
    assert trace.last.prefill_tokens == trace.last.prompt_tokens - 23040 + 3456
