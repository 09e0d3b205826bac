"""What a call does, counted while it runs, against operations counted from shapes."""

from __future__ import annotations

import pytest
import torch

from earlytom import parse_method
from earlytom.bench.configurations import build_model
from earlytom.bench.inspection import count_waits
from earlytom.bench.measuring import Measurer
from earlytom.bench.processors import made_up_question
from earlytom.bench.running import flops_of, tokens_of
from earlytom.bench.subjects import Subject
from earlytom.runtime.flops import count_flops
from earlytom.video import Sampling

FRAMES = 8
MERGING = "earlytom:retention=0.25,tau_seg=0.1,least_frames=0"


def subject(text: str, attention: str = "eager") -> Subject:
    return Subject(method=parse_method(text), label=text, attention=attention, frames=FRAMES)


@pytest.fixture(scope="module")
def inputs(tiny, generated):
    return tiny.prepare_inputs(tiny.read(generated, Sampling(frames=FRAMES)), made_up_question())


@pytest.fixture(scope="module")
def measurer(tiny):
    return Measurer(tiny.model, 2)


def from_shapes(inputs, frames, prefill, after):
    """Operations of the same call, from a model without weights."""
    model = build_model("tiny", device="meta", dtype=torch.float32)
    pixels = inputs["pixel_values_videos"][:, :1].to("meta")
    ids = inputs["input_ids"]
    video = (ids == model.config.video_token_id).nonzero()[:, 1].tolist()
    per_frame = (len(video) - 1) // FRAMES
    kept = [place for place in range(ids.shape[1]) if place not in video[per_frame + 1 :]]
    one = {"input_ids": ids[:, kept], "pixel_values_videos": pixels}
    return count_flops(model, one, frames=frames, prefill_tokens=prefill, frames_after=after)


@pytest.mark.parametrize("text", ["none", MERGING, "earlytom:retention=1"])
def test_operations_are_those_that_shapes_give(text, inputs, measurer) -> None:
    _, call = measurer.timed(subject(text), inputs)
    tokens = tokens_of(call)
    found = flops_of(measurer.inspected(subject(text), inputs))
    expected = from_shapes(inputs, FRAMES, tokens.prefill, dict(tokens.grids_after))
    assert found.encoder == expected.encoder
    assert found.projection == expected.projection
    assert found.prefill == pytest.approx(expected.prefill, rel=1e-3)  # angles of positions are a product too
    assert (found.decisions > 0) == (text != "none")
    assert found.total == found.encoder + found.projection + found.decisions + found.prefill


def test_frames_that_merge_spare_the_encoder(inputs, measurer) -> None:
    plain, merged = (flops_of(measurer.inspected(subject(text), inputs)) for text in ("none", MERGING))
    assert merged.encoder < plain.encoder
    assert merged.prefill < plain.prefill


def test_tokens_that_merge_or_leave_inside_spare_work_too(inputs, measurer) -> None:
    plain, tome, inner = (
        flops_of(measurer.inspected(subject(text), inputs))
        for text in ("none", "tome:retention=0.5", "inner-merging:layer=2")
    )
    assert tome.encoder < plain.encoder
    assert inner.encoder == plain.encoder
    assert inner.prefill < plain.prefill


def test_masked_attention_is_half_the_work_where_its_kernel_leaves_the_mask_out(inputs, measurer) -> None:
    eager, sdpa = (flops_of(measurer.inspected(subject("none", name), inputs)) for name in ("eager", "sdpa"))
    assert sdpa.encoder == eager.encoder
    assert sdpa.prefill < eager.prefill


def test_decoding_is_not_counted_as_work_up_to_the_first_token(tiny, inputs) -> None:
    few, many = (Measurer(tiny.model, new).inspected(subject("none"), inputs) for new in (1, 4))
    assert few.operations == many.operations
    assert flops_of(few) == flops_of(many)
    assert "decoding" not in few.work
    assert many.work["decoding"].flops > 0


def test_peaks_do_not_depend_on_who_ran_before(inputs) -> None:
    texts = ("none", MERGING, "visionzip:retention=0.25")

    def peaks(order):
        fresh = Measurer(build_model("tiny", device="cpu", dtype=torch.float32), 2)
        return {text: dict(fresh.inspected(subject(text), inputs).peaks) for text in order}

    first = peaks(texts)
    assert peaks(reversed(texts)) == first
    assert first["none"]["encoder"] > 0


def test_peaks_are_told_by_part(inputs, measurer) -> None:
    found = measurer.inspected(subject("earlytom:retention=0.25"), inputs)
    parts = {name: found.peak_of(name) for name in ("vision_encoding", "token_processing", "prefill", "decoding")}
    assert None not in parts.values()
    assert found.peak == max([*parts.values(), found.peak_of("overhead") or 0])
    assert found.peak > 0
    assert found.peak_of("overhead") is None or found.peak_of("overhead") <= found.peak


def test_a_host_has_no_device_to_wait_for(inputs, measurer) -> None:
    assert measurer.inspected(subject("none"), inputs).waits is None
    assert count_waits(lambda: pytest.fail("it is not run for nothing"), torch.device("cpu")) is None


@pytest.mark.gpu
def test_the_host_waits_as_often_as_it_reads_a_value() -> None:
    values = torch.ones(8, device="cuda")
    event = torch.cuda.Event()

    def read() -> None:
        values.sum().item()
        values.tolist()
        event.record()
        event.synchronize()

    assert count_waits(lambda: values.sum(), values.device) == 0
    assert count_waits(read, values.device) == 3


def test_kernels_of_others_leave_the_work_unknown(inputs, measurer) -> None:
    from dataclasses import replace

    found = measurer.inspected(subject("none"), inputs)
    hidden = {**found.work, "prefill": replace(found.work["prefill"], uncounted=("flash_attn::forward",))}
    assert flops_of(found) is not None
    assert flops_of(replace(found, work=hidden)) is None
