"""Models of published sizes without weights, and their processors."""

from __future__ import annotations

import pytest
import torch

import earlytom
from earlytom.bench.configurations import CONFIGURATIONS, build_model, build_video_qa, configuration_names
from earlytom.bench.processors import build_processor, made_up_question
from earlytom.models import open_model
from earlytom.runtime.preprocessing import preprocess
from earlytom.video import Sampling, read_video

# As published; LLaVA's and Qwen's 7B hold an encoder of 0.4 B and 0.7 B besides.
PARAMETERS = {
    "llava-onevision-7b": 8.03e9, "llava-onevision-0.5b": 0.894e9, "llava-video-7b": 8.03e9, "qwen2.5-vl-7b": 8.29e9,
    "qwen3-vl-8b": 8.77e9,
}  # fmt: skip
DEPTHS = {
    "llava-onevision-7b": (26, 28), "llava-onevision-0.5b": (26, 24), "llava-video-7b": (26, 28),
    "qwen2.5-vl-7b": (32, 28), "qwen3-vl-8b": (27, 36), "tiny": (26, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", configuration_names())
def test_sizes_are_the_published_ones_and_the_processor_fits(name, generated) -> None:
    model = build_model(name, device="meta", dtype=torch.bfloat16)
    host = open_model(model)
    assert (host.shape.depth, len(host.language.layers)) == DEPTHS[name]
    if name in PARAMETERS:
        assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(PARAMETERS[name], rel=0.01)
    processor = build_processor(CONFIGURATIONS[name].family, model.config)
    conversation = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": made_up_question()}]}]
    prompt = processor.apply_chat_template(conversation, add_generation_prompt=True)
    made = dict(preprocess(processor, prompt, read_video(generated, Sampling(frames=4))))
    # Places without weights; LLaVA looks whether its newline has been loaded.
    call = host.open({key: value.to("meta") if key.startswith("pixel") else value for key, value in made.items()})
    (grid,) = call.grids
    assert grid.temporal_grids == (2 if "qwen" in name else 4)
    assert made["input_ids"].min() >= 0
    assert made["input_ids"].max() < model.get_input_embeddings().num_embeddings
    assert (made["input_ids"] == 1).sum() == 0  # no word is unknown


def test_the_same_seed_gives_the_same_weights_and_logits_that_differ(generated) -> None:
    one, same, other = (build_video_qa("tiny", device="cpu", dtype=torch.float32, seed=seed) for seed in (0, 0, 1))
    weights = [torch.cat([weight.flatten() for weight in qa.model.parameters()]) for qa in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    inputs = one.prepare_inputs(one.read(generated, Sampling(frames=4)), made_up_question())
    logits = one.model(**inputs).logits[0, -1]
    assert logits.isfinite().all()
    assert logits.unique().numel() > 0.99 * logits.numel()


def test_building_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model("tiny", device="cpu", dtype=torch.float32)
    assert torch.equal(torch.rand(3), expected)


def test_questions_are_made_of_so_many_tokens(tiny) -> None:
    ids = tiny.processor.tokenizer(made_up_question(words=24))["input_ids"]
    assert len(ids) == 24
    assert 1 not in ids
    assert made_up_question(1) != made_up_question(2)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(earlytom.ModelError, match=r"unknown configuration 'gpt'; .* tiny"):
        build_model("gpt", device="cpu", dtype=torch.float32)
