"""compress() and prepare(): nothing changes but the tokens, and everything is put back."""

from __future__ import annotations

import pytest
import torch

import earlytom
from conftest import IMAGE, VIDEO, batch, clip, tiny_model

FULL = earlytom.EarlyTom(retention=1.0, frame_merging=False)
QUARTER = earlytom.EarlyTom(retention=0.25)


def two_samples():
    return batch([[clip(12, 0)], [clip(12, 1)]])


def generate(model, inputs, method, **options):
    with earlytom.compress(model, method) as trace:
        return model.generate(**inputs, **({"do_sample": False, "max_new_tokens": 6} | options)), trace


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("samples", [1, 2])
def test_full_retention_without_merging_is_bit_identical(samples, attention, dtype) -> None:
    model = tiny_model(attention, dtype)
    inputs = batch([[clip(12, seed)] for seed in range(samples)])
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(dtype)
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, FULL) as trace:
            compressed = model(**inputs).logits
    assert torch.equal(plain, compressed)
    assert [video.tokens for video in trace.videos] == [12 * 16] * samples
    options = {"return_dict_in_generate": True, "output_logits": True, "do_sample": False, "max_new_tokens": 4}
    stock = model.generate(**inputs, **options)
    ours, _ = generate(model, inputs, FULL, **options)
    assert torch.equal(stock.sequences, ours.sequences)
    assert all(torch.equal(a, b) for a, b in zip(stock.logits, ours.logits, strict=True))


@pytest.mark.parametrize("method", ["none", FULL], ids=["none", "full"])
def test_several_videos_in_one_prompt_are_bit_identical(model, method) -> None:
    inputs = batch([[clip(12, 0), clip(12, 1)], [clip(12, 2)]])
    stock = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    assert torch.equal(generate(model, inputs, method, max_new_tokens=4)[0], stock)


def with_image(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add one image (base view and one tile, 8 x 8 patches each) in front of a single prompt."""
    placeholders = 64 + 8 * 9
    ids = torch.cat([torch.full((1, placeholders), IMAGE), inputs["input_ids"]], dim=1)
    pixels = torch.randn(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    return inputs | {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels,
        "image_sizes": torch.tensor([[32, 32]]),
        "batch_num_images": torch.tensor([1]),
    }


def test_images_beside_a_video_are_untouched(model) -> None:
    inputs = with_image(batch([[clip(12, 0)]]))
    stock = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    assert torch.equal(generate(model, inputs, FULL, max_new_tokens=4)[0], stock)
    prepared = earlytom.prepare(model, inputs, QUARTER).arguments
    features = model.model.get_image_features(
        inputs["pixel_values"], inputs["image_sizes"], batch_num_images=inputs["batch_num_images"]
    ).pooler_output[0]
    assert torch.equal(prepared["inputs_embeds"][0, : len(features)], features)


def test_prompts_without_video_pass_through(model) -> None:
    text = batch([[], []])
    image = with_image(batch([[]]))
    for inputs in (text, image):
        stock = model.generate(**inputs, do_sample=False, max_new_tokens=4)
        ours, trace = generate(model, inputs, QUARTER, max_new_tokens=4)
        assert torch.equal(stock, ours)
        assert trace.videos == []
        with torch.no_grad():
            logits = model(**inputs).logits
            with earlytom.compress(model, QUARTER):
                assert torch.equal(model(**inputs).logits, logits)
        assert earlytom.prepare(model, inputs, QUARTER).arguments.keys() == inputs.keys()


def test_encoder_really_runs_fewer_frames(model) -> None:
    inputs, seen = batch([[clip(12, 0)], [clip(12, 1)]]), []
    handles = [
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0]))
        for layer in model.model.vision_tower.encoder.layers
    ]
    try:
        _, trace = generate(model, inputs, earlytom.EarlyTom(retention=0.1, merge_layers=(1, 3, 5)))
    finally:
        for handle in handles:
            handle.remove()
    expected = []
    for layer in range(8):
        done = [[merge for merge in video.merges if merge.layer < layer] for video in trace.videos]
        expected.append(sum(merges[-1].frames_after if merges else 12 for merges in done))
    assert seen == expected
    assert seen[-1] < seen[0]


def test_returned_ids_start_with_the_prompt_for_every_way_of_generating(model) -> None:
    inputs = two_samples()
    length = inputs["input_ids"].shape[1]
    for options in (
        {},
        {"do_sample": True, "top_k": 5},
        {"num_beams": 3},
        {"num_beams": 2, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    ):
        output, _ = generate(model, inputs, QUARTER, **options)
        repeats = options.get("num_return_sequences", 1)
        assert output.shape == (2 * repeats, length + 6)
        assert torch.equal(output[:, :length], inputs["input_ids"].repeat_interleave(repeats, dim=0))


@pytest.mark.parametrize("given", ["argument", "config", "model"])
def test_max_length_counts_the_prompt_that_the_user_wrote(given) -> None:
    from transformers import GenerationConfig

    model, inputs = tiny_model(), two_samples()
    length = inputs["input_ids"].shape[1]
    options: dict[str, object] = {"do_sample": False}
    if given == "argument":
        options |= {"max_length": length + 3, "min_length": length + 2}
    elif given == "config":
        options = {"generation_config": GenerationConfig(max_length=length + 3, pad_token_id=0)}
    else:
        model.generation_config.max_length = length + 3
    with earlytom.compress(model, QUARTER):
        output = model.generate(**inputs, **options)
    assert output.shape[1] == length + 3
    with earlytom.compress(model, QUARTER), pytest.raises(earlytom.CompressionError, match="max_length"):
        model.generate(**inputs, max_length=length)
    with earlytom.compress(model, QUARTER):
        assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] == length + 2


def test_default_length_is_that_of_stock(model) -> None:
    inputs = two_samples()
    with pytest.warns(UserWarning, match="max_length"), earlytom.compress(model, QUARTER):
        assert model.generate(**inputs).shape == (2, inputs["input_ids"].shape[1] + 20)


def test_streamer_gets_the_prompt_and_every_token(model) -> None:
    class Streamer:
        def __init__(self) -> None:
            self.pieces: list[torch.Tensor] = []
            self.ended = False

        def put(self, value: torch.Tensor) -> None:
            self.pieces.append(value)

        def end(self) -> None:
            self.ended = True

    inputs, streamer = batch([[clip(12, 0)]]), Streamer()
    output, _ = generate(model, inputs, QUARTER, streamer=streamer)
    assert torch.equal(streamer.pieces[0].flatten(), inputs["input_ids"][0])
    assert torch.cat([piece.flatten() for piece in streamer.pieces]).tolist() == output[0].tolist()
    assert streamer.ended


def test_stopping_criteria_and_processors_see_the_original_prompt(model) -> None:
    inputs, seen = batch([[clip(12, 0)]]), []

    def criterion(ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        seen.append(ids.clone())
        return torch.zeros(ids.shape[0], dtype=torch.bool)

    from transformers import StoppingCriteriaList

    generate(model, inputs, QUARTER, stopping_criteria=StoppingCriteriaList([criterion]), max_new_tokens=2)
    length = inputs["input_ids"].shape[1]
    assert [ids.shape[1] - length for ids in seen] == [1, 2]
    assert torch.equal(seen[0][:, :length], inputs["input_ids"])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_batch_equals_single(model, options) -> None:
    inputs = two_samples()
    together, trace = generate(model, inputs, QUARTER, **options)
    for number in range(2):
        padding = int((inputs["attention_mask"][number] == 0).sum())
        alone = {key: inputs[key][number : number + 1, padding:] for key in ("input_ids", "attention_mask")}
        alone["pixel_values_videos"] = inputs["pixel_values_videos"][number : number + 1]
        single, one = generate(model, alone, QUARTER, **options)
        assert single[0, -6:].tolist() == together[number, -6:].tolist()
        assert one.videos[0].kept_tokens() == trace.videos[number].kept_tokens()
        assert one.videos[0].sources() == trace.videos[number].sources()


def test_two_videos_in_a_prompt_keep_the_tokens_that_each_keeps_alone(model) -> None:
    both = batch([[clip(12, 0), clip(12, 1)]])
    _, trace = generate(model, both, QUARTER)
    for number in range(2):
        _, alone = generate(model, batch([[clip(12, number)]]), QUARTER)
        assert alone.videos[0].kept_tokens() == trace.videos[number].kept_tokens()


@pytest.mark.parametrize("merge_layers", [(1, 3, 5), (7,)])
def test_decoding_equals_recomputation_on_the_same_kept_tokens(model, merge_layers) -> None:
    method = earlytom.EarlyTom(retention=0.2, merge_layers=merge_layers)
    inputs = batch([[clip(12, 0)]])
    output, _ = generate(model, inputs, method, max_new_tokens=20, return_dict_in_generate=True, output_logits=True)
    prepared = earlytom.prepare(model, inputs, method).arguments
    new = output.sequences[:, inputs["input_ids"].shape[1] :]
    with torch.no_grad():
        for step, logits in enumerate(output.logits):
            embeds = torch.cat([prepared["inputs_embeds"], model.get_input_embeddings()(new[:, :step])], dim=1)
            expected = model(inputs_embeds=embeds, use_cache=False).logits[:, -1]
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_prepare_gives_what_compress_gives(model) -> None:
    inputs = two_samples()
    expected, _ = generate(model, inputs, QUARTER)
    prepared = earlytom.prepare(model, inputs, "earlytom:retention=0.25")
    assert torch.equal(model.generate(**prepared.arguments, do_sample=False, max_new_tokens=6), expected)
    assert prepared.dropped == (12 * 16 - 48,) * 2
    assert [len(row) for row in prepared.visual_positions] == [49, 49]


def test_order_of_the_prompt_survives(model) -> None:
    """Text around the kept tokens is the original text, in the original order."""
    inputs = batch([[clip(12, 0), clip(12, 1)]])
    prepared = earlytom.prepare(model, inputs, QUARTER)
    embeds, visual = prepared.arguments["inputs_embeds"][0], set(prepared.visual_positions[0])
    text_ids = inputs["input_ids"][0][inputs["input_ids"][0] != VIDEO]
    text = torch.stack([row for position, row in enumerate(embeds) if position not in visual])
    assert torch.equal(text, model.get_input_embeddings()(text_ids))
    newline = model.model.image_newline
    assert sum(torch.equal(row, newline) for row in embeds) == 2


def test_right_padding_stays_on_the_right(model) -> None:
    left = batch([[clip(12, 0)], [clip(12, 1), clip(12, 2)]])
    padding = int((left["attention_mask"][0] == 0).sum())
    right = {
        key: torch.stack([value[0].roll(-padding), value[1]]) if key != "pixel_values_videos" else value
        for key, value in left.items()
    }
    mask = earlytom.prepare(model, right, QUARTER).arguments["attention_mask"]
    assert mask[0, 0] == 1
    assert mask[0, -1] == 0
    with torch.no_grad(), earlytom.compress(model, QUARTER):
        a, b = model(**left).logits, model(**right).logits
    length = int(mask[0].sum())
    torch.testing.assert_close(a[0, -length:], b[0, :length], atol=1e-4, rtol=1e-4)


def test_user_position_ids_go_with_their_tokens(model) -> None:
    inputs = batch([[clip(12, 0)]])
    positions = torch.arange(inputs["input_ids"].shape[1])[None] + 7
    prepared = earlytom.prepare(model, inputs | {"position_ids": positions}, QUARTER).arguments
    assert prepared["position_ids"].shape == prepared["attention_mask"].shape
    assert int(prepared["position_ids"][0, 0]) == 7
    assert int(prepared["position_ids"][0, -1]) == int(positions[0, -1])
