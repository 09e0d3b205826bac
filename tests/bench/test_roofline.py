"""Bounds beside times: what they are made of, and that they say so."""

from __future__ import annotations

import json

import pytest
import torch

import earlytom
from conftest import batch, clip
from earlytom.bench.ceilings import Ceilings
from earlytom.bench.roofline import PARTS, StageBound, measure_rooflines, rooflines_markdown, stage_times
from earlytom.errors import EarlyTomError

METHODS = {"none": "none", "earlytom": "earlytom:retention=0.25"}
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
    assert order == ["earlytom", "none", "none", "earlytom", "earlytom", "none"]
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
    with earlytom.compress(model, "earlytom:retention=0.25") as trace, torch.no_grad():
        model.generate(**batch([[clip(12)]]), do_sample=False, max_new_tokens=2)
    times = stage_times(trace.last)
    assert sum(times.values()) == pytest.approx(trace.last.milliseconds["ttft"])
    assert list(times) == [name for name in PARTS if name != "decoding"]


def test_json_and_markdown_tell_the_same(found) -> None:
    rooflines = found[1]
    plain = json.loads(json.dumps({name: roofline.to_dict() for name, roofline in rooflines.items()}))
    text = rooflines_markdown(rooflines, MEMORY)
    for name, roofline in plain.items():
        for stage, values in roofline["stages"].items():
            row = next(line for line in text.splitlines() if line.startswith(f"| {name} | {stage} |"))
            assert f"{values['ratio']:.2f}" in row
            assert f"| {values['bound']:.4g} | memory |" in row


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
