"""Bounds beside times: what they are made of, and that they say so."""

from __future__ import annotations

import json

import pytest
import torch

import earlytom
from conftest import batch, clip
from earlytom.bench.ceilings import Ceilings
from earlytom.bench.roofline import PARTS, StageBound, measure_rooflines, plain_results, roofline_tables, stage_times
from earlytom.errors import EarlyTomError

METHODS = {"none": "none", "earlytom": "earlytom:retention=0.25,ranked_by=attention"}
# So fast that arithmetic never counts, and memory alone makes the bounds.
MEMORY = Ceilings(flops=1e30, bandwidth=1e6, dtype="float32", side=8, copied=64, repeats=1)


@pytest.fixture(scope="module")
def found(model):
    order = []
    rooflines = measure_rooflines(
        model, batch([[clip(12)]]), METHODS, MEMORY, repeats=2, decoding_steps=2, on_run=order.append
    )
    return order, rooflines


def test_methods_take_turns_and_are_told_in_full(found) -> None:
    order, rooflines = found
    assert order == ["earlytom", "none", "none", "earlytom", "earlytom", "none", "none", "earlytom"]
    assert list(rooflines) == ["none", "earlytom"]
    assert "retention=0.25" in rooflines["earlytom"].method


def test_every_stage_has_a_bound_and_a_time(found) -> None:
    for name, roofline in found[1].items():
        stages = {stage.name: stage for stage in roofline.stages}
        assert set(PARTS) - set(stages) == ({"attention", "merging"} if name == "none" else set())
        for stage in stages.values():
            assert stage.bound == pytest.approx(1000 * stage.bytes / 1e6)
            assert stage.as_written == pytest.approx(1000 * stage.moved_bytes / 1e6)
            assert stage.limited_by == "memory"
            assert len(stage.measured) == 2
            assert min(stage.measured) > 0
            assert stage.ratio == pytest.approx(stage.milliseconds / stage.bound)
        assert roofline.uncounted == ()


def test_parts_are_sums_of_their_stages(found) -> None:
    roofline = found[1]["earlytom"]
    parts = {part.name: part for part in roofline.parts}
    assert list(parts) == ["vision_encoding", "token_processing", "prefill", "overhead", "decoding"]
    inside = [stage for stage in roofline.stages if PARTS[stage.name] == "token_processing"]
    assert len(inside) == 5
    for name in ("flops", "bytes", "moved_bytes", "operations", "bound", "as_written"):
        assert getattr(parts["token_processing"], name) == pytest.approx(sum(getattr(stage, name) for stage in inside))
    assert parts["token_processing"].measured == pytest.approx(
        [sum(times) for times in zip(*(stage.measured for stage in inside), strict=True)]
    )


def test_dropping_tokens_lowers_the_bound_of_the_prefill(found) -> None:
    work = {name: {stage.name: stage for stage in roofline.stages} for name, roofline in found[1].items()}
    for stage in ("encoder", "prefill", "decoding"):
        assert work["earlytom"][stage].flops < work["none"][stage].flops


def test_times_of_stages_add_up_to_the_first_token(model) -> None:
    with earlytom.compress(model, "earlytom:retention=0.25,ranked_by=attention") as trace, torch.no_grad():
        model.generate(**batch([[clip(12)]]), do_sample=False, max_new_tokens=2)
    times = stage_times(trace.last)
    assert sum(times.values()) == pytest.approx(trace.last.milliseconds["ttft"])
    assert list(times) == [name for name in PARTS if name != "decoding"]


def test_json_and_tables_tell_the_same(found) -> None:
    document = json.loads(json.dumps(plain_results(found[1], MEMORY)))
    ceilings, *tables = roofline_tables(document)
    assert ceilings.cells[1][:2] == ("memory", "0.001 GB/s")
    assert [table.title for table in tables] == ["Stages of none", "Stages of earlytom"]
    for table, result in zip(tables, document["results"], strict=True):
        rows = {row[0]: row for row in table.cells}
        assert list(rows)[-2:] == ["decoding", "token processing"]
        for stage, values in result["stages"].items():
            assert rows[stage][3:5] == (f"{values['bound']:.3g}", "memory")
            assert rows[stage][7:] == (
                f"{values['ratio']:.3g}", f"{values['ratio_as_written']:.3g}", str(values["operations"])
            )  # fmt: skip


def test_a_stage_that_must_do_nothing_has_no_ratio() -> None:
    stage = StageBound(
        name="selection", flops=0, bytes=0, moved_bytes=0, operations=0, bound=0.0, as_written=0.0,
        limited_by="arithmetic", measured=(1.0,),
    )  # fmt: skip
    assert (stage.ratio, stage.ratio_as_written) == (None, None)


@pytest.mark.parametrize("changes", [{"repeats": 0}, {"warm_ups": -1}, {"decoding_steps": 0}])
def test_numbers_are_checked(model, changes) -> None:
    name = next(iter(changes))
    with pytest.raises(EarlyTomError, match=f"{name} must be at least"):
        measure_rooflines(model, {}, METHODS, MEMORY, **changes)
