"""Several prompts about one clip: it is encoded once, and every prompt gets what it would get alone."""

from __future__ import annotations

import pytest
import torch

import earlytom
from conftest import batch, clip

METHODS = [
    "none",
    "earlytom:retention=0.25,merge_layers=1/3/5",
    "earlytom:retention=0.25,merge_layers=1/3/5,inner_merging=true,inner_layer=2",
]


def copies(count: int) -> dict[str, torch.Tensor]:
    """Prompts of different length about one clip that is copied for each, as processors give them."""
    return batch([[clip(12, 0)]] * count)


def shared(count: int) -> dict[str, torch.Tensor]:
    inputs = copies(count)
    pixels = inputs["pixel_values_videos"]
    return inputs | {"pixel_values_videos": pixels[:1].expand(pixels.shape)}


def frames_encoded(model, run) -> list[int]:
    """How many frames entered the vision encoder in each of its calls."""
    seen: list[int] = []
    first = model.model.vision_tower.encoder.layers[0]
    handle = first.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0]))
    try:
        run()
    finally:
        handle.remove()
    return seen


def generate(model, inputs, method):
    with earlytom.compress(model, method) as trace:
        return model.generate(**inputs, do_sample=False, max_new_tokens=6), trace


@pytest.mark.parametrize("method", METHODS)
def test_answers_and_traces_equal_those_of_copies(model, method) -> None:
    expected, one_each = generate(model, copies(3), method)
    output, together = generate(model, shared(3), method)
    assert torch.equal(output, expected)
    assert len(together.videos) == 3
    assert [video.tokens for video in together.videos] == [video.tokens for video in one_each.videos]
    assert [video.sources() for video in together.videos] == [video.sources() for video in one_each.videos]
    assert together.last.prefill_tokens == one_each.last.prefill_tokens
    assert together.last.language == one_each.last.language


@pytest.mark.parametrize("method", METHODS[:2])
def test_every_prompt_gets_the_tokens_it_gets_alone_bit_for_bit(model, method) -> None:
    inputs = shared(3)
    together = earlytom.prepare(model, inputs, method)
    for sample in range(3):
        alone = {
            "input_ids": inputs["input_ids"][sample : sample + 1],
            "attention_mask": inputs["attention_mask"][sample : sample + 1],
            "pixel_values_videos": inputs["pixel_values_videos"][:1].clone(),
        }
        expected = earlytom.prepare(model, alone, method)
        for name in ("inputs_embeds", "attention_mask"):
            assert torch.equal(together.arguments[name][sample : sample + 1], expected.arguments[name])
        assert together.visual_positions[sample] == expected.visual_positions[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_encoder_runs_on_one_clip_only(model, method) -> None:
    assert frames_encoded(model, lambda: generate(model, shared(3), method)) == [12]
    assert frames_encoded(model, lambda: generate(model, copies(3), method)) == [36]


def test_a_forward_pass_shares_the_clip_too(model) -> None:
    inputs = shared(2)
    with torch.no_grad(), earlytom.compress(model, METHODS[1]):
        assert frames_encoded(model, lambda: model(**inputs)) == [12]


def test_different_clips_are_never_taken_for_one(model) -> None:
    inputs = batch([[clip(12, 0)], [clip(12, 1)]])
    assert frames_encoded(model, lambda: generate(model, inputs, METHODS[1])) == [24]
    # A stride of zero elsewhere says nothing about the clips.
    pixels = inputs["pixel_values_videos"][:, :1].expand(-1, 12, -1, -1, -1)
    assert frames_encoded(model, lambda: generate(model, inputs | {"pixel_values_videos": pixels}, "none")) == [24]
    assert frames_encoded(model, lambda: generate(model, shared(1), METHODS[1])) == [12]


def test_traces_of_a_shared_clip_can_be_written_to_one_by_one(model) -> None:
    _, trace = generate(model, shared(2), METHODS[1])
    trace.videos[0].source = {"source": "first.mp4"}
    assert trace.videos[1].source == {}


def test_beams_and_several_sequences_work(model) -> None:
    with earlytom.compress(model, METHODS[1]):
        for options in ({"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}):
            torch.manual_seed(0)
            expected = model.generate(**copies(2), max_new_tokens=3, **options)
            torch.manual_seed(0)
            assert torch.equal(model.generate(**shared(2), max_new_tokens=3, **options), expected)
