"""Counted work against torch's own counter, and against sums that can be done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import earlytom
from conftest import batch, clip, tiny_model
from earlytom.bench.roofline import call_stage
from earlytom.bench.work import count_work

CPU = torch.device("cpu")


def counted(run, stage=lambda: "all"):
    with torch.no_grad():
        return count_work(run, stage, CPU)


class Stages:
    """A stage that the test changes."""

    def __init__(self, name=None) -> None:
        self.name = name

    def __call__(self):
        return self.name


def test_a_linear_layer_reads_its_weights_and_input_and_writes_its_output() -> None:
    layer, rows = nn.Linear(16, 32), torch.randn(8, 16)
    work = counted(lambda: layer(rows))["all"]
    values = 16 * 32 + 32 + 8 * 16 + 8 * 32
    assert (work.flops, work.bytes, work.moved_bytes, work.operations) == (2 * 8 * 16 * 32, 4 * values, 4 * values, 1)


def test_what_is_made_and_used_up_inside_a_stage_moves_but_need_not() -> None:
    rows = torch.randn(1000)
    work = counted(lambda: ((rows + 1) * 2).sum())["all"]
    assert work.bytes == 4 * (1000 + 1)
    assert work.moved_bytes == 4 * (1000 + 1000 + 1000 + 1000 + 1000 + 1)
    assert (work.operations, work.flops) == (3, 0)


def test_a_tensor_that_is_read_twice_comes_in_once() -> None:
    rows = torch.randn(1000)
    work = counted(lambda: (rows.exp(), rows.sum()))["all"]
    assert work.bytes == 4 * (1000 + 1000 + 1)
    assert work.moved_bytes == 4 * (2 * 1000 + 1000 + 1)


def test_what_another_stage_reads_is_written_and_read() -> None:
    stage, rows = Stages(), torch.randn(1000)

    def run():
        stage.name = "first"
        made = rows + 1
        stage.name = "second"
        return made.sum()

    work = counted(run, stage)
    assert list(work) == ["first", "second"]
    assert (work["first"].bytes, work["second"].bytes) == (4 * 2000, 4 * 1001)


def test_views_repetitions_and_rooms_move_nothing() -> None:
    rows = torch.randn(10, 6)
    assert counted(lambda: (rows.t()[1:].unflatten(1, (2, 5)), torch.empty(5))) == {}
    expanded = rows[:1].expand(1000, 6)
    assert counted(lambda: expanded.sum())["all"].bytes == 4 * (6 + 1)


@pytest.mark.parametrize(
    "look_up",
    [
        lambda table, rows: functional.embedding(rows, table),
        lambda table, rows: table[rows],
        lambda table, rows: table.index_select(0, rows),
    ],
)
def test_of_a_table_only_the_rows_that_are_looked_up_come_in(look_up) -> None:
    table, rows = torch.randn(1000, 4), torch.tensor([3, 5, 7])
    work = counted(lambda: look_up(table, rows))["all"]
    assert work.bytes == 4 * 12 + 8 * 3 + 4 * 12


def test_in_place_changes_are_written_where_they_stay() -> None:
    kept, rows = torch.zeros(100), torch.randn(50)
    work = counted(lambda: kept[:50].add_(rows))["all"]
    assert work.bytes == 4 * (50 + 50 + 50)
    assert counted(lambda: kept[:50].copy_(rows))["all"].bytes == 4 * (50 + 50)


@pytest.mark.parametrize(("causal", "pairs"), [(False, 8 * 8), (True, 8 * 9 // 2)])
def test_attention_counts_the_pairs_that_see_each_other(causal, pairs) -> None:
    query = torch.randn(2, 4, 8, 16)
    work = counted(lambda: functional.scaled_dot_product_attention(query, query, query, is_causal=causal))["all"]
    assert work.flops == 2 * 4 * pairs * 2 * (2 * 16)


def test_nothing_is_counted_without_a_stage_or_of_another_device() -> None:
    rows = torch.randn(5)
    assert counted(lambda: rows + 1, lambda: None) == {}
    assert count_work(lambda: rows + 1, lambda: "all", torch.device("meta")) == {}


@torch.library.custom_op("earlytom_tests::doubled", mutates_args=())
def doubled(rows: torch.Tensor) -> torch.Tensor:
    return rows * 2


def test_operations_of_other_libraries_are_named() -> None:
    rows = torch.randn(5)
    assert "earlytom_tests.doubled.default" in counted(lambda: doubled(rows))["all"].uncounted


@pytest.mark.parametrize("method", ["none", "earlytom:retention=0.25", "tome", "fastv"])
def test_a_call_does_what_torch_counts(method) -> None:
    """Eager attention is plain products, which torch counts whole, as they are done."""
    model, inputs = tiny_model(attention="eager"), batch([[clip(12)]])

    def run():
        with earlytom.compress(model, method):
            return model.generate(**inputs, do_sample=False, max_new_tokens=2, min_new_tokens=2)

    work = counted(run, call_stage)
    with FlopCounterMode(display=False) as counter:
        run()
    assert sum(stage.flops for stage in work.values()) == counter.get_total_flops() > 0


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_inference_mode_changes_nothing(attention) -> None:
    """There operations that are made of others, as a linear layer, are not taken apart before a mode sees them."""
    model, inputs = tiny_model(attention=attention), batch([[clip(12)]])

    def run():
        with earlytom.compress(model, "earlytom:retention=0.25"):
            return model.generate(**inputs, do_sample=False, max_new_tokens=2, min_new_tokens=2)

    plain = counted(run, call_stage)
    with torch.inference_mode():
        inside = count_work(run, call_stage, CPU)
    assert {name: work.flops for name, work in inside.items()} == {name: work.flops for name, work in plain.items()}
    assert plain["prefill"].flops > 0


def test_the_stages_of_a_call_read_their_weights_once() -> None:
    model, inputs = tiny_model(), batch([[clip(12)]])
    with earlytom.compress(model, "earlytom:retention=0.25,ranked_by=attention/change") as trace:
        work = counted(
            lambda: model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, do_sample=False), call_stage
        )
    assert set(work) == {
        "overhead", "encoder", "attention", "merging", "projection", "selection", "assembly", "prefill", "decoding",
    }  # fmt: skip
    language = sum(weight.nbytes for weight in model.model.language_model.layers.parameters())
    assert language < work["decoding"].bytes < work["prefill"].bytes < 2 * language + 4 * 300 * 48 * 2
    video = trace.videos[0]
    hidden = 4 * 64 * 32  # of one frame
    assert work["merging"].bytes >= hidden * (video.merges[0].grids_before + video.merges[0].grids_after)
