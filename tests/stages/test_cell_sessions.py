"""Cells that go on alone: where they lie, what sessions make of a choice, what it costs, and what is refused."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

import earlytom
from cell_methods import SomeCells
from claimed_device import ClaimedDevice, claim, claim_model
from conftest import batch, clip, tiny_model
from earlytom import CompressionError, MethodError, Reduction
from earlytom.models import open_model
from earlytom.ops import pool_bilinear
from earlytom.stages import CellLayout, CellLayouts, ClipSession, FrameBatch, SessionBatch
from earlytom.trace import Stopwatch
from earlytom.types import Decision, EncoderShape, FrameGrid
from families import FAMILY_NAMES, family_case
from reference.cells import bilinear_taps

DEPTH, ROWS, COLUMNS, WIDTH = 8, 3, 4, 24
CELLS = ROWS * COLUMNS
SHAPE = EncoderShape(depth=DEPTH, cells=True)
WINDOWS = (2, 6, 4)


def layout(windows: bool = False) -> CellLayout:
    """Each cell rests on two patches; with windows the cells stand in the order of their squares modulo 13."""
    order = torch.tensor(sorted(range(CELLS), key=lambda cell: (cell + 1) ** 2 % 13)) if windows else None
    place = torch.arange(CELLS) if order is None else torch.argsort(order)
    support = place[:, None] * 2 + torch.arange(2)
    weight = torch.tensor([0.25, 0.75]).expand(CELLS, 2)
    return CellLayout(support=support, weight=weight, order=order, windows=WINDOWS if windows else None)


def session(method, frames: int, shape: EncoderShape = SHAPE) -> ClipSession:
    return ClipSession(method, FrameGrid(frames=frames, rows=ROWS, columns=COLUMNS), shape)


def drive(clips, hidden: torch.Tensor, cells: CellLayout, decide=lambda make: make()) -> list:
    """An encoder whose layers add a number, its projector the same mean of patches as the layout's."""
    sessions = SessionBatch(clips, Stopwatch(), decide)
    state = FrameBatch(hidden=hidden, grids_per_clip=sessions.grids_per_clip, cell_layout=CellLayouts(lambda: cells))
    for layer in range(DEPTH):
        state = state.with_hidden(state.hidden + 0.1)
        if layer in sessions.requests.attention_layers:
            scores = state.patches.abs().sum(-1)
            sessions.receive_attention(layer, lambda scores=scores: scores)
        state = sessions.after_layer(layer, state)
    if state.cells is None:
        return sessions.select(state.layout.means(state.hidden), state.layout.means)
    return sessions.select(state.layout.pooled(state.hidden, state.cells), lambda scores: pytest.fail("pooled twice"))


def hidden_states(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(frames, 2 * CELLS, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("side", "pooled"), [(27, 14), (8, 4), (7, 4), (5, 2), (1, 1), (4, 4)])
def test_the_cells_of_bilinear_pooling_are_those_of_its_taps(side, pooled) -> None:
    made = CellLayout.of_pooling(
        lambda maps: pool_bilinear(maps, side=side, pooled=(pooled, pooled)), (side, side), (pooled, pooled)
    )
    taps = bilinear_taps(side, pooled)
    for cell in range(pooled**2):
        row, column = divmod(cell, pooled)
        expected = {top * side + left: down * across for top, down in taps[row] for left, across in taps[column]}
        found = dict(zip(made.support[cell].tolist(), made.weight[cell].tolist(), strict=True))
        assert found == pytest.approx(expected, abs=1e-6)
    maps = torch.randn(3, side**2, 2)
    whole = pool_bilinear(maps.transpose(1, 2).flatten(0, 1), side=side, pooled=(pooled, pooled))
    whole = whole.unflatten(0, (3, 2)).transpose(1, 2)
    torch.testing.assert_close(made.means(maps), whole, atol=1e-6, rtol=1e-5)
    cells = torch.arange(pooled**2)[-3:].expand(3, -1)
    rows = maps.gather(1, made.patches(cells)[..., None].expand(-1, -1, 2))
    torch.testing.assert_close(made.pooled(rows, cells), whole[:, -3:], atol=1e-6, rtol=1e-5)


def test_the_middle_of_27_patches_is_shared_and_nothing_else() -> None:
    made = CellLayout.of_pooling(lambda maps: pool_bilinear(maps, side=27, pooled=(14, 14)), (27, 27), (14, 14))
    assert made.support.shape == (196, 4)
    uses = torch.bincount(made.support.flatten(), minlength=729)
    shared = {int(patch) for patch in (uses > 1).nonzero()}
    assert shared == {patch for patch in range(729) if 13 in divmod(patch, 27)}
    torch.testing.assert_close(made.weight.sum(1), torch.ones(196))


@pytest.mark.parametrize("windows", [False, True], ids=["whole", "windows"])
def test_places_attention_and_features_are_those_of_the_cells_that_went_on(windows) -> None:
    cells, frames = layout(windows), 4
    hidden = hidden_states(frames)
    method = SomeCells(retention=0.5, attention=True)
    made = session(method, frames)
    (kept,) = drive([made], hidden, cells)
    whole = cells.means(hidden + 0.1 * DEPTH)
    assert kept.features.shape == (frames * 6, WIDTH)
    torch.testing.assert_close(kept.features, whole.flatten(0, 1)[kept.places], atol=1e-5, rtol=1e-5)
    assert kept.places.tolist() == sorted(set(kept.places.tolist()))
    assert torch.bincount(kept.places // CELLS).tolist() == [6] * frames
    scores = cells.means((hidden + 0.1 * DEPTH).abs().sum(-1)).flatten()
    torch.testing.assert_close(made.trace.attention.flatten()[kept.places], scores[kept.places], atol=1e-3, rtol=1e-5)
    assert int((made.trace.attention > 0).sum()) == frames * 6
    if windows:
        of = torch.empty(CELLS, dtype=torch.int64)
        of[cells.order] = torch.repeat_interleave(torch.arange(3), torch.tensor(WINDOWS))
        counts = [torch.bincount(of[row % CELLS], minlength=3).tolist() for row in kept.places.split(6)]
        assert counts == [[1, 3, 2]] * frames


def test_grids_merge_before_their_cells_go_in_the_same_layer_too() -> None:
    hidden, cells = hidden_states(8), layout(windows=True)
    made = session(SomeCells(retention=0.1, merging=True, attention=True), 8)
    (kept,) = drive([made], hidden, cells)
    assert made.trace.sources() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    whole = cells.means(hidden.unflatten(0, (2, 4)).mean(1) + 0.1 * DEPTH)
    grids, tokens = kept.places // (4 * CELLS), kept.places % CELLS
    assert set((kept.places // CELLS).tolist()) <= {0, 4}
    assert made.trace.kept_tokens() == list(zip(grids.tolist(), tokens.tolist(), strict=True))
    torch.testing.assert_close(kept.features, whole[grids, tokens], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 2 * CELLS, 200), (3, 2 * CELLS, 7, 9), (3, 2 * CELLS)], ids=str)
def test_wide_rows_are_pooled_by_parts_of_their_columns(shape, monkeypatch) -> None:
    rows, cells = torch.randn(shape), torch.arange(0, CELLS, 3).expand(3, -1)
    taken = rows[:, layout().patches(cells)[0]]
    whole, some = layout().means(rows), layout().pooled(taken, cells)
    monkeypatch.setattr("earlytom.stages.cells._CHUNK_VALUES", 1)
    assert torch.equal(layout().means(rows), whole)
    assert torch.equal(layout().pooled(taken, cells), some)
    assert torch.equal(whole[:, ::3], some)
    for cell in range(CELLS):
        expected = 0.25 * rows[:, 2 * cell] + 0.75 * rows[:, 2 * cell + 1]
        torch.testing.assert_close(whole[:, cell], expected, atol=1e-6, rtol=1e-5)


def test_the_floor_of_frames_knows_how_many_cells_are_left() -> None:
    assert session(SomeCells(retention=0.25), 12).floor == 6
    assert session(SomeCells(retention=0.25, share=1.0), 12).floor == 3
    assert session(SomeCells(retention=0.25, share=0.34), 12).cells == 4


@pytest.mark.parametrize(
    ("share", "retention", "left", "floor"),
    [(0.5, 0.75, 9, 10), (0.25, 0.3, 4, 9), (0.5, 0.3, 6, 6), (0.5, 1.0, None, 10)],
)
def test_as_many_cells_go_on_as_the_budget_needs(share, retention, left, floor) -> None:
    made = session(SomeCells(retention=retention, share=share), 10)
    assert made.cells == left
    assert made.floor == floor
    assert made.plan.cell_layer == (3 if left else None)


def test_a_clip_that_is_left_alone_keeps_all_cells() -> None:
    made = session(SomeCells(visual_tokens=500), 4)
    assert made.cells is None
    assert made.plan.cell_layer is None


@pytest.mark.parametrize("count", [0, CELLS + 1, 2.5, True, "6"])
def test_numbers_of_cells_that_cannot_be_are_refused(count) -> None:
    class Wrong(SomeCells):
        def cells_kept(self, grid):
            return count

    with pytest.raises(MethodError, match="'some-cells' must keep 1 to 12 cells of each temporal grid, got"):
        session(Wrong(), 4)


def test_an_encoder_whose_grids_go_through_whole_says_so() -> None:
    with pytest.raises(MethodError, match="go through its layers whole"):
        session(SomeCells(), 4, EncoderShape(depth=DEPTH))
    with pytest.raises(MethodError, match=r"layer 2 of this vision encoder cannot rank the cells of a frame, .*: 1, 3"):
        session(SomeCells(layer=2, attention=True, scores=3), 4, replace(SHAPE, global_layers=(1, 3)))
    with pytest.raises(MethodError, match=r"cell_layer must be ascending layers from 0 to 7, got \(8,\)"):
        session(SomeCells(layer=8), 4)
    session(SomeCells(layer=2, scores=3), 4, replace(SHAPE, global_layers=(1, 3)))


def test_max_pooling_is_no_mean_of_patches() -> None:
    case = family_case("llava_video")
    model, inputs = case.build(spatial_pool_mode="max"), case.batch([[case.clip(4, 0)]])
    with pytest.raises(MethodError, match="no weighted mean of a few patches"), earlytom.compress(model, SomeCells()):
        model(**inputs)


def test_bilinear_pooling_of_llava_video_lets_cells_go_on() -> None:
    case = family_case("llava_video")
    model = case.build(spatial_pool_mode="bilinear")
    call = open_model(model).open(
        {
            "input_ids": torch.full((1, 2 * 5 * 6), 299),
            "pixel_values_videos": torch.stack([case.clip(2, 0)]),
        }
    )
    tower = call.host.tower(call.grids[0])
    assert tower.embed(call.pixels([0]), (2,)).layout.support.shape == (25, 4)


def test_a_batch_that_does_not_say_where_cells_lie_is_refused() -> None:
    sessions = SessionBatch([session(SomeCells(retention=0.25), 4)], Stopwatch())
    with pytest.raises(CompressionError, match="no cell_layout that says where they lie"):
        sessions.after_layer(3, FrameBatch(hidden=hidden_states(4), grids_per_clip=(4,)))


def test_cells_are_not_chosen_by_attention_that_nobody_reported() -> None:
    sessions = SessionBatch([session(SomeCells(retention=0.25, attention=True), 4)], Stopwatch())
    batch = FrameBatch(hidden=hidden_states(4), grids_per_clip=(4,), cell_layout=CellLayouts(layout))
    with pytest.raises(CompressionError, match="without reporting the attention of layer 3, by which cells are chosen"):
        sessions.after_layer(3, batch)


def test_a_batch_is_left_with_equally_many_cells_everywhere() -> None:
    kinds = [SomeCells(retention=0.25), SomeCells(retention=0.25, share=1.0), SomeCells(retention=0.25, layer=5)]
    with pytest.raises(CompressionError, match="clips that keep 6 after layer 3 and all; make a batch of each"):
        SessionBatch([session(kind, 4) for kind in kinds[:2]], Stopwatch())
    with pytest.raises(CompressionError, match="keep 6 after layer 3 and 6 after layer 5"):
        SessionBatch([session(kind, 4) for kind in kinds[::2]], Stopwatch())
    clips = [session(kinds[0], 4), session(replace(kinds[0], retention=0.4), 6)]
    kept = drive(clips, hidden_states(10), layout())
    assert [len(tokens.features) for tokens in kept] == [12, 29]


def test_clips_of_a_call_that_keep_other_numbers_of_cells_are_encoded_by_themselves() -> None:
    """A fixed number of tokens needs more cells of a short clip."""
    case, method = family_case("qwen2_5_vl"), SomeCells(visual_tokens=40, share=0.2)
    model = case.build()
    clips = [case.clip(3, 0), case.clip(12, 1), case.clip(3, 2)]
    with torch.no_grad(), earlytom.compress(model, method) as trace:
        model(**case.batch([[clips[0]], clips[1:]]))
        found = [(clip.cells.cells_after, clip.kept_tokens()) for clip in trace.videos]
        assert [count for count, _ in found] == [14, 4, 14]
        for clip, expected in zip(clips, found, strict=True):
            model(**case.batch([[clip]]))
            (alone,) = trace.videos
            assert (alone.cells.cells_after, alone.kept_tokens()) == expected


class Wrong(SomeCells):
    """Changes the rows that would have been kept."""

    def select_cells(self, states, budget):
        rows = super().select_cells(states, budget).reduction.source
        return self.changed(rows, states.features.shape[0] * states.features.shape[1])

    def changed(self, rows, inputs) -> object:
        raise NotImplementedError


def wrong(change) -> Wrong:
    return type("Changing", (Wrong,), {"changed": lambda self, rows, inputs: change(rows, inputs)})(retention=0.25)


def selection(rows, inputs) -> Decision:
    return Decision(reduction=Reduction.keep(rows, inputs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows, inputs: None, "must return an earlytom.types.Decision, got None"),
        (lambda rows, inputs: Decision(), "promised 6 of the 12 cells of each temporal grid and chose none"),
        (lambda rows, inputs: selection(rows[1:], inputs), "kept 23 cells of 4 .* where it had promised 6 of each"),
        (lambda rows, inputs: selection(rows, inputs + 1), "decided about 49 rows where there are 48"),
        (lambda rows, inputs: selection(rows.flip(0), inputs), "6 different cells of each temporal grid, ascending"),
        (lambda rows, inputs: selection(rows.sort().values[[0, *range(23)]], inputs), "6 different cells"),
        (lambda rows, inputs: selection(torch.arange(24), inputs), "6 different cells"),
        (
            lambda rows, inputs: Decision(
                reduction=Reduction.groups(torch.arange(inputs) // 2, torch.ones(inputs), torch.arange(24) * 2)
            ),
            "must keep cells as they are, but gave them weights",
        ),
    ],
    ids=["none", "nothing", "too few", "other rows", "descending", "twice", "of other grids", "weights"],
)
def test_a_choice_that_cannot_be_is_named(change, message) -> None:
    with pytest.raises(CompressionError, match=message):
        drive([session(wrong(change), 4)], hidden_states(4), layout())


def test_windows_get_the_numbers_that_they_were_promised() -> None:
    class First(SomeCells):
        def select_cells(self, states, budget):
            assert states.windows.kept == (1, 3, 2)
            grids = states.features.shape[0]
            first = layout(windows=True).order[: states.kept].sort().values
            rows = first + torch.arange(grids)[:, None] * CELLS
            return selection(rows.flatten(), grids * CELLS)

    with pytest.raises(CompressionError, match=r"must keep \(1, 3, 2\) cells of the attention windows"):
        drive([session(First(retention=0.25), 4)], hidden_states(4), layout(windows=True))


def test_one_process_decides_and_another_takes_over() -> None:
    sent: list[bytes] = []

    def first(make):
        decision = make()
        sent.append(pickle.dumps(decision))
        return decision

    class Mute(SomeCells):
        def select_cells(self, states, budget):
            raise LookupError("asked")

        select_tokens = select_cells

    hidden, frames = hidden_states(10), (4, 6)
    decided = [session(SomeCells(retention=0.25), count) for count in frames]
    kept = drive(decided, hidden, layout(), first)
    assert len(sent) == 3
    taking = [session(Mute(retention=0.25), count) for count in frames]
    taken = drive(taking, hidden, layout(), lambda make: pickle.loads(sent.pop(0)))
    for one, other in zip(kept, taken, strict=True):
        assert torch.equal(one.features, other.features)
        assert torch.equal(one.places, other.places)
    with pytest.raises(CompressionError, match="expected the decisions of 2 clips, got 'kept'"):
        drive([session(SomeCells(retention=0.25), count) for count in frames], hidden, layout(), lambda make: "kept")


def test_a_cell_layer_that_was_left_out_is_noticed() -> None:
    sessions = SessionBatch([session(SomeCells(retention=0.25), 4)], Stopwatch())
    assert sessions.requests.cell_layers == {3}
    assert sessions.requests.barriers == [3]
    sessions.receive_attention(DEPTH - 1, lambda: torch.rand(4, 2 * CELLS))
    with pytest.raises(CompressionError, match="without reporting layers"):
        sessions.select(torch.rand(4, CELLS, WIDTH), lambda scores: scores[:, ::2])


# As a method of the package is, whose choices are not read back.
Ours = type("Ours", (SomeCells,), {"__module__": "earlytom.example"})


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_choosing_cells_waits_for_nothing_and_similarities_are_waited_for_once(family) -> None:
    case = family_case(family)
    inputs = case.batch([[case.clip(6, 0)], [case.clip(6, 1)]])
    waits = {}
    with torch.no_grad(), ClaimedDevice() as device:
        model = claim_model(case.build(attention="eager"))
        there = {name: claim(value) for name, value in inputs.items()}
        kinds = {
            "whole": Ours(retention=0.2, share=1.0),
            "cells": Ours(retention=0.2, attention=True),
            "similarity": Ours(retention=0.2, attention=True, similarity=True),
            "theirs": SomeCells(retention=0.2),
        }
        for name, method in kinds.items():
            with earlytom.compress(model, method) as trace:
                device.reset()
                model(**there, use_cache=False)
            waits[name] = sum(device.waits.values())
            assert all((clip.cells is None) == (name == "whole") for clip in trace.videos)
    assert waits["cells"] == waits["whole"]
    assert waits["similarity"] == waits["whole"] + 1
    assert waits["theirs"] > waits["cells"]


def test_the_trace_tells_how_many_cells_went_on() -> None:
    model, inputs = tiny_model(), batch([[clip(6, 0)]])
    with torch.no_grad(), earlytom.compress(model, SomeCells(retention=0.2, similarity=True)) as trace:
        model(**inputs)
    (told,) = trace.to_dict()["videos"]
    assert told["cells"].pop("similarity") == trace.videos[0].cells.details["similarity"]
    assert told["cells"] == {"layer": 3, "cells_before": 16, "cells_after": 8}
    with torch.no_grad(), earlytom.compress(model, "earlytom") as trace:
        model(**inputs)
    assert trace.to_dict()["videos"][0]["cells"] is None


@pytest.mark.parametrize("default", ["dtype", "device"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_defaults_of_the_process_play_no_part(family, default) -> None:
    case = family_case(family)
    model, inputs, method = case.build(), case.batch([[case.clip(6, 0)]]), Ours(retention=0.2, attention=True)
    found = []
    for changed in (False, True):
        if changed and default == "dtype":
            torch.set_default_dtype(torch.float64)
        elif changed:
            torch.set_default_device("meta")
        try:
            with torch.no_grad(), earlytom.compress(model, method) as trace:
                model(**inputs)
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
        found.append(trace.videos[0].kept_tokens())
    assert found[0] == found[1]
