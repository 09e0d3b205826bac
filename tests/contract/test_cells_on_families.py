"""Cells that go on alone through the vision encoder, on every family: against plain loops, and beside all the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch

import earlytom
from cell_methods import SomeCells
from contract.test_family_contract import NEW, built, cast, plain_logits, prefill_of, prompts, recompute
from earlytom.models import open_model
from earlytom.runtime.encode import encode_videos
from earlytom.runtime.plans import Plans
from earlytom.stages import FrameBatch
from earlytom.trace import Stopwatch
from families import FAMILY_NAMES, family_case
from reference import cells as slow
from visitors import Watching

pytestmark = pytest.mark.parametrize("family", FAMILY_NAMES)

PACKED = ("qwen2_5_vl", "qwen3_vl")


def slow_frame(family: str, model, frame: torch.Tensor, layer: int, choose: slow.Choose):
    """The cells of one grid that go on, and their tokens, by plain loops."""
    if family == "internvl":
        return slow.internvl(model, frame, layer, choose)
    if family in PACKED:
        rows, columns = frame.shape[0] // 2, frame.shape[1] // 2
        return slow.packed(model, frame, layer, choose, sequence(family, rows, columns), deepstack(model))
    if family == "llava_video":
        taps = [[(2 * place, 0.5), (2 * place + 1, 0.5)] for place in range(4)]
    else:
        taps = slow.bilinear_taps(8, 4)
    return slow.llava(model, frame, layer, choose, taps)


def sequence(family: str, rows: int, columns: int) -> list[int]:
    """Merge units as the encoder puts them behind one another: windows of 2x2 of them in Qwen2.5-VL."""
    if family == "qwen3_vl":
        return list(range(rows * columns))
    return [
        row * columns + column
        for top in range(0, rows, 2)
        for left in range(0, columns, 2)
        for row in range(top, min(top + 2, rows))
        for column in range(left, min(left + 2, columns))
    ]


def deepstack(model) -> list[int]:
    return sorted(getattr(model.config.vision_config, "deepstack_visual_indexes", []))


def encoded(model, inputs, method):
    """The kept tokens and the trace of each clip."""
    host = open_model(model)
    return encode_videos(host.open(inputs), method, Plans.of(method, host).encoder, Stopwatch())


@pytest.mark.parametrize(("share", "layer"), [(0.5, 3), (0.3, 1), (0.7, 7), (0.05, 4)])
@torch.no_grad()
def test_cells_that_go_on_equal_encoding_them_cell_by_cell(family, share, layer) -> None:
    model, case = built(family), family_case(family)
    clip = case.clip(4, 3)
    cells = case.batch([[clip]])
    (grid,) = open_model(model).open(cells).grids
    # All tokens of the cells that go on are kept, so that each of them is compared.
    count = max(1, round(share * grid.tokens_per_frame))
    method = SomeCells(visual_tokens=4 * count, share=share, layer=layer)
    (kept,), (trace,) = encoded(model, cells, method)
    places, tokens = [], []
    for number, frame in enumerate(clip):
        chosen, of_frame = slow_frame(family, model, frame, layer, slow.strongest(share))
        places += [number * grid.tokens_per_frame + cell for cell in chosen]
        tokens.append(of_frame)
    assert kept.places.tolist() == places
    torch.testing.assert_close(kept.features, torch.cat(tokens), atol=2e-5, rtol=1e-4)
    assert (trace.cells.layer, trace.cells.cells_before, trace.cells.cells_after) == (
        layer, grid.tokens_per_frame, count
    )  # fmt: skip


def test_where_all_cells_go_on_nothing_is_other_than_without(family) -> None:
    model, inputs = built(family), prompts(family, 2, 1)
    whole = SomeCells(retention=0.5, share=1.0)

    class Without(SomeCells):
        def encoder_plan(self, encoder):
            return replace(super().encoder_plan(encoder), cell_layer=None, cell_attention=False)

    found = []
    for method in (replace(whole, attention=True), Without(retention=0.5)):
        with earlytom.compress(model, method) as trace:
            found.append(plain_logits(model, inputs))
        assert [clip.cells for clip in trace.videos] == [None] * 3
    assert torch.equal(*found)


@torch.no_grad()
def test_all_cells_gathered_are_the_whole_grid(family) -> None:
    """Nothing but the order of the patches changes, in the Qwen families not even that."""
    model, case = built(family), family_case(family)
    call = open_model(model).open(case.batch([[case.clip(3, 5)]]))
    tower, features = call.host.tower(call.grids[0]), []
    for gathered in (False, True):
        batch = tower.run(tower.embed(call.pixels([0]), (3,)), range(4), Watching())
        if gathered:
            batch = batch.only(torch.arange(call.grids[0].tokens_per_frame).expand(3, -1))
            assert batch.patches.shape[1] == 4 * call.grids[0].tokens_per_frame
        features.append(tower.project(tower.run(batch, range(4, tower.depth), Watching())))
    if family == "llava_video":
        # Average pooling leaves out the last row and column, which then draw no attention any more.
        assert features[0].shape == features[1].shape
        return
    if family in PACKED:
        assert torch.equal(*features)
    torch.testing.assert_close(*features, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("merging", [False, True], ids=["cells", "cells of merged grids"])
@pytest.mark.parametrize("samples", [(1,), (1, 2)], ids=["one", "batch"])
def test_decoding_equals_recomputation_on_the_same_kept_tokens(family, merging, samples, attention) -> None:
    model, inputs = built(family, attention), prompts(family, *samples, frames=8)
    method = SomeCells(retention=0.1, merging=merging, attention=True, similarity=True)
    options = {"do_sample": False, "max_new_tokens": NEW, "return_dict_in_generate": True, "output_logits": True}
    with prefill_of(model) as seen, earlytom.compress(model, method) as trace:
        output = model.generate(**inputs, **options)
    new = output.sequences[:, inputs["input_ids"].shape[1] :]
    for step, logits in enumerate(output.logits):
        torch.testing.assert_close(logits, recompute(model, seen[0], new[:, :step]), atol=1e-4, rtol=1e-4)
    for clip in trace.videos:
        assert clip.tokens == clip.budget < clip.grid.tokens
        assert clip.temporal_grids_left == (2 if merging else 8)
        assert clip.cells.cells_after == round(0.5 * clip.grid.tokens_per_frame)
        assert len(clip.cells.details["similarity"]) == clip.temporal_grids_left


def test_clips_of_a_call_decide_as_they_do_alone(family) -> None:
    model, case = built(family), family_case(family)
    clips = [case.clip(6, 0), case.clip(6, 1), case.clip(6, 2)]
    method = SomeCells(retention=0.15, merging=True, attention=True)
    kept, traces = encoded(model, case.batch([[clips[0]], clips[1:]]), method)
    for clip, together, trace in zip(clips, kept, traces, strict=True):
        (alone,), (own,) = encoded(model, case.batch([[clip]]), method)
        assert torch.equal(alone.places, together.places)
        assert own.sources() == trace.sources()
        torch.testing.assert_close(alone.features, together.features, atol=1e-4, rtol=1e-4)


def test_provenance_is_of_whole_grids(family) -> None:
    model, inputs = built(family), prompts(family, 1, frames=7)
    (kept,), (clip,) = encoded(model, inputs, SomeCells(retention=0.1, merging=True))
    per_grid = clip.grid.tokens_per_frame
    assert clip.sources() == [[0, 1, 2, 3], [4, 5, 6]]
    assert clip.selection.inputs == 2 * per_grid
    assert clip.attention.shape == (2, per_grid)
    assert int((clip.attention > 0).sum()) == 2 * clip.cells.cells_after
    first = clip.origin.survivors()
    expected = [int(first[grid]) * per_grid + token for grid, token in clip.kept_tokens()]
    assert kept.places.tolist() == expected == sorted(set(expected))


@pytest.mark.parametrize("merging", [False, True])
def test_parts_give_what_the_whole_gives(family, merging) -> None:
    case = family_case(family)
    model, inputs = built(family), case.batch([[case.clip(7, 0), case.clip(7, 2)], [case.clip(7, 1)]])
    method = SomeCells(retention=0.15, merging=merging, attention=True, similarity=True)
    found = {}
    for grids in (None, 1, 4, 21):
        with torch.no_grad(), earlytom.compress(model, method, grids_at_once=grids) as trace:
            logits = model(**inputs, use_cache=False).logits
        found[grids] = logits, [(video.sources(), video.kept_tokens()) for video in trace.videos]
        torch.testing.assert_close(logits, found[None][0], atol=1e-4, rtol=1e-4)
        assert found[grids][1] == found[None][1]
    assert torch.equal(found[21][0], found[None][0])


def test_bfloat16_and_compiled_models_run(family) -> None:
    model = family_case(family).build(dtype=torch.bfloat16)
    inputs = cast(prompts(family, 1, 1), torch.bfloat16)
    method = SomeCells(retention=0.2, attention=True)
    with torch.no_grad(), earlytom.compress(model, method) as trace:
        expected = model(**inputs).logits
    assert all(clip.tokens == clip.budget for clip in trace.videos)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), earlytom.compress(compiled, method):
        assert torch.equal(compiled(**inputs).logits, expected)


def test_gradients_reach_the_first_layer(family) -> None:
    model, inputs = family_case(family).build(), prompts(family, 1)

    class Watching(SomeCells):
        def select_cells(self, states, budget):
            assert not torch.is_grad_enabled()
            assert not states.features.requires_grad
            return super().select_cells(states, budget)

    with earlytom.compress(model, Watching(retention=0.2, attention=True)):
        model(**inputs).logits.float().square().mean().backward()
    visual = model.model.visual if hasattr(model.model, "visual") else model.model.vision_tower
    assert float(next(visual.parameters()).grad.abs().sum()) > 0


@dataclass(frozen=True, kw_only=True)
class Keyed(SomeCells):
    """Notes the keys and the attention that selection gets, of a layer before the cells go, or of one behind."""

    def encoder_plan(self, encoder):
        return replace(super().encoder_plan(encoder), keys=True)

    def select_tokens(self, tokens, budget):
        decision = super().select_tokens(tokens, budget)
        return replace(decision, details={"keys": tokens.keys, "attention": tokens.attention, "cells": tokens.cells})


@torch.no_grad()
def test_scores_of_earlier_layers_are_those_of_whole_grids(family) -> None:
    """Read before the cells go, attention and keys are those of the whole grid at the cells that are left."""
    layer = 1 if family == "qwen2_5_vl" else 2
    model, inputs = built(family), prompts(family, 1)
    _, (cut,) = encoded(model, inputs, Keyed(retention=0.2, scores=layer))
    _, (whole,) = encoded(model, inputs, Keyed(retention=0.2, scores=layer, share=1.0))
    cells = cut.details["cells"]
    assert whole.details["cells"] is None
    assert bool((cells.diff(dim=1) > 0).all())
    for name in ("attention", "keys"):
        rows = whole.details[name]
        index = cells if rows.dim() == 2 else cells[..., None].expand(-1, -1, rows.shape[2])
        torch.testing.assert_close(cut.details[name], rows.gather(1, index), atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_scores_of_later_layers_are_among_the_cells_that_are_left(family) -> None:
    model, inputs = built(family), prompts(family, 1)
    _, (clip,) = encoded(model, inputs, Keyed(retention=0.2, scores=5))
    attention = clip.details["attention"]
    total = attention.sum(dim=1) * 4  # of the four patches of a cell it is the mean
    # Attention that patches give one another sums to one; CLS takes its share of it in InternVL.
    if family == "internvl":
        assert bool((total < 1).all())
    else:
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-4, rtol=1e-4)


def test_devices_may_part_scores_and_cells(family) -> None:
    """A batch that is cut says where its cells are, wherever rows are to be pooled."""
    model, inputs = built(family), prompts(family, 1)
    call = open_model(model).open(inputs)
    tower = call.host.tower(call.grids[0])
    frames = call.grids[0].frames
    batch: FrameBatch = tower.run(tower.embed(call.pixels([0]), (frames,)), range(2), Watching())
    left = batch.only(torch.tensor([[0, 2, 5]]).expand(frames, -1))
    pool = partial(left.layout.pooled, cells=left.cells)
    assert pool(left.patches.to("meta")).shape == (frames, 3, batch.hidden.shape[2])
    parts = list(left.parts(4))
    assert parts[0].cells.shape == (4, 3)
    assert torch.equal(FrameBatch.joined(parts, (frames,)).cells, left.cells)
