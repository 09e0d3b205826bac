"""LLaVA-Video: the model's own features, its prompt, and newlines after compression."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import earlytom
from earlytom.models import open_model
from earlytom.models.llava_video.layout import VideoLayout
from earlytom.models.llava_video.model import LlavaVideoConfig, LlavaVideoForConditionalGeneration
from earlytom.models.llava_video.processor import LlavaVideoProcessor
from earlytom.types import FrameGrid
from earlytom.video import Video
from families import family_case
from reference.language_model import logits_without_cache
from reference.published_llava_video import (
    HIDDEN,
    VIDEO,
    make_settings,
    make_weights,
    pool_frame,
    video_sequence,
    write_checkpoint,
)

CASE = family_case("llava_video")


def load(folder, **options) -> earlytom.VideoQA:
    return earlytom.VideoQA.load(folder, device="cpu", **options)


def pixels(frames: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, frames, 3, 28, 28, generator=torch.Generator().manual_seed(seed))


def clocked(frames: int = 3) -> Video:
    images = np.random.default_rng(0).integers(0, 255, (frames, 40, 60, 3), dtype=np.uint8)
    return Video(
        frames=images, indices=tuple(range(frames)), timestamps=tuple(1.25 * n for n in range(frames)),
        source_frames=frames, source_fps=0.8, duration=1.25 * frames, decoder="frames", source="<array>", decoded=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> earlytom.VideoQA:
    return load(write_checkpoint(tmp_path_factory.mktemp("published")))


@pytest.mark.parametrize(
    ("mode", "newlines", "tokens"),
    [
        ("average", "grid", 3 * 3 * 4),
        ("average", "one_token", 3 * 9 + 1),
        ("average", "no_token", 3 * 9),
        ("max", "frame", 3 * 10),
        ("bilinear", "grid", 3 * 4 * 5),
        ("bilinear", "one_token", 3 * 16 + 1),
    ],
)
def test_features_are_what_the_original_computes(mode, newlines, tokens, tmp_path) -> None:
    settings = make_settings(mm_spatial_pool_mode=mode, mm_newline_position=newlines)
    qa = load(write_checkpoint(tmp_path, settings))
    with torch.no_grad():
        features = qa.model.get_video_features(pixels()).pooler_output
    expected = video_sequence(pixels()[0], make_weights(), mode, newlines)
    assert expected.shape == (tokens, HIDDEN)
    torch.testing.assert_close(features[0], expected, atol=2e-4, rtol=1e-4)
    assert qa.processor.placeholders(3) == tokens


def test_logits_are_those_of_qwen2_behind_the_original_features(published) -> None:
    """The features in the place of the placeholders, and the language model of the published weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    settings, weights = make_settings(), make_weights()
    text = {name: value for name, value in weights.items() if "vision" not in name and "mm_proj" not in name}
    del text["model.image_newline"]
    wanted = ("hidden_", "intermediate", "num_", "vocab_size", "rms_", "rope_theta", "max_", "use_sliding", "sliding")
    qwen = Qwen2ForCausalLM(Qwen2Config(**{key: settings[key] for key in settings if key.startswith(wanted)}))
    qwen.load_state_dict(text)
    before, after = [5, 6, 7], [8, 9]
    features = video_sequence(pixels()[0], weights, "average", "grid")
    table = weights["model.embed_tokens.weight"]
    embeds = torch.cat([table[before], features, table[after]])[None]
    ids = torch.tensor([before + [VIDEO] * len(features) + after])
    with torch.no_grad():
        expected = qwen.eval()(inputs_embeds=embeds).logits
        found = published.model(input_ids=ids, pixel_values_videos=pixels()).logits
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


def test_generate_outside_compression_sees_the_video(published) -> None:
    count = published.processor.placeholders(3)
    ids = torch.tensor([[5, 6] + [VIDEO] * count + [7]])
    options = {"do_sample": False, "max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}
    first, second = (
        published.model.generate(input_ids=ids, pixel_values_videos=pixels(seed=seed), **options) for seed in (0, 1)
    )
    with torch.no_grad():
        expected = published.model(input_ids=ids, pixel_values_videos=pixels()).logits[:, -1]
    torch.testing.assert_close(first.logits[0], expected)
    assert not torch.allclose(second.logits[0], expected)


def test_save_pretrained_round_trip(published, tmp_path) -> None:
    published.model.save_pretrained(tmp_path)
    published.processor.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert type(again.model) is LlavaVideoForConditionalGeneration
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llava_video"
    state = again.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in published.model.state_dict().items())
    inputs = published.prepare_inputs(clocked(), "What?")
    assert all(torch.equal(value, inputs[key]) for key, value in again.prepare_inputs(clocked(), "What?").items())
    assert again.default_frames == published.default_frames == 64
    with torch.no_grad():
        assert torch.equal(again.model(**inputs).logits, published.model(**inputs).logits)


def test_the_prompt_is_the_originals(published) -> None:
    inputs = published.prepare_inputs(clocked(), "What happens?")
    ids = inputs["input_ids"][0].tolist()
    start, count = ids.index(VIDEO), ids.count(VIDEO)
    assert ids[start : start + count] == [VIDEO] * count == [VIDEO] * (3 * 3 * 4)
    decode = published.processor.tokenizer.decode
    assert decode(ids[:start]) == "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    assert decode(ids[start + count :]) == (
        "\nThe video lasts for 3.75 seconds, and 3 frames are uniformly sampled from it. These frames are located at "
        "0.00s,1.25s,2.50s.Please answer the following questions related to this video.\nWhat happens?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_without_a_clock_or_the_habit_there_is_no_instruction(published, tmp_path) -> None:
    silent = load(write_checkpoint(tmp_path, make_settings(add_time_instruction=False)))
    frames = published.read(clocked().frames)
    for qa, video in ((silent, clocked()), (published, frames)):
        ids = qa.prepare_inputs(video, "What?")["input_ids"][0].tolist()
        tail = ids[len(ids) - ids[::-1].index(VIDEO) :]
        assert qa.processor.tokenizer.decode(tail) == "\nWhat?<|im_end|>\n<|im_start|>assistant\n"


def test_frames_are_normalised_as_siglip_wants_them(published) -> None:
    video = clocked()
    for value, wanted in ((0, -1.0), (255, 1.0)):
        video.frames[:] = value
        made = published.prepare_inputs(video, "What?")["pixel_values_videos"]
        assert made.shape == (1, 3, 3, 28, 28)
        torch.testing.assert_close(made, torch.full_like(made, wanted))


def test_answers_through_the_pipeline(published) -> None:
    plain = published.ask(clocked(12), "What?", method="none", max_new_tokens=4)
    short = published.ask(clocked(12), "What?", method="earlytom:retention=0.5", max_new_tokens=4)
    assert (plain.visual_tokens, short.visual_tokens) == (12 * 9, 12 * 9 // 2)
    inputs = published.prepare_inputs(clocked(12), "What?")
    stock = published.model.generate(**inputs, do_sample=False, max_new_tokens=4)
    assert (
        published.processor.tokenizer.decode(stock[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        == plain.text
    )
    both = published.ask_all(clocked(12), ["What?", "Where is it?"], method="none", max_new_tokens=4)
    assert both[0].text == plain.text
    assert len(both) == 2


@pytest.mark.parametrize(("mode", "side", "length"), [("average", 13, 11648), ("bilinear", 14, 64 * 14 * 15)])
def test_token_counts_at_true_size(mode, side, length) -> None:
    """From shapes on the meta device: 64 frames of 27x27 patches."""
    with torch.device("meta"):
        config = LlavaVideoConfig(
            vision_config={
                "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                "num_hidden_layers": 26, "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
                "vision_use_head": False,
            },
            text_config={
                "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
                "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 300,
            },
            video_token_index=VIDEO, image_token_index=-200, spatial_pool_mode=mode, newline_position="grid",
        )  # fmt: skip
        model = LlavaVideoForConditionalGeneration(config)
        frames = torch.empty(1, 64, 3, 384, 384)
    ids = torch.full((1, length), VIDEO)
    host = open_model(model)
    (grid,) = host.open({"input_ids": ids, "pixel_values_videos": frames}).grids
    assert (grid.frames, grid.rows, grid.columns) == (64, side, side)
    layers = earlytom.EarlyTom(retention=0.1).encoder_plan(host.shape).merge_layers
    assert layers == (3, 10, 16)


@pytest.mark.parametrize("mode", ["average", "max", "bilinear"])
@pytest.mark.parametrize("side", [4, 7])
def test_pooling_against_loops(mode, side) -> None:
    features = torch.randn(2, side * side, 5, generator=torch.Generator().manual_seed(0))
    layout = VideoLayout(pool_mode=mode, stride=2, newlines="grid")
    expected = torch.stack(
        [torch.stack([cell for row in pool_frame(frame, mode, side) for cell in row]) for frame in features]
    )
    torch.testing.assert_close(layout.pool(features, side), expected)
    assert layout.pooled(side) ** 2 == expected.shape[1]


@pytest.mark.parametrize("mode", ["average", "bilinear"])
def test_attention_is_pooled_as_features_are(mode) -> None:
    model = CASE.build(spatial_pool_mode=mode)
    scores, grid = torch.rand(3, 81), FrameGrid(frames=3, rows=4, columns=4)
    pooled = model.model.apply_pooling(scores[..., None].expand(-1, -1, 5).contiguous())
    torch.testing.assert_close(open_model(model).tower(grid).pool_attention(scores), pooled[..., 0])


def newlines_by_loop(places: list[int], grid: FrameGrid, position: str) -> list[int]:
    """The numbers of tokens in the order of their places, and -1 where a newline stands."""
    made: list[int] = []
    for frame in range(grid.frames):
        for row in range(grid.rows):
            start = frame * grid.tokens_per_frame + row * grid.columns
            held = [n for place in range(start, start + grid.columns) for n, at in enumerate(places) if at == place]
            made += [*held, -1] if held and position == "grid" else held
        whole = range(frame * grid.tokens_per_frame, (frame + 1) * grid.tokens_per_frame)
        if position == "frame" and any(place in whole for place in places):
            made.append(-1)
    return made


@pytest.mark.parametrize("position", ["grid", "frame"])
@pytest.mark.parametrize("seed", range(8))
def test_newlines_stand_behind_rows_that_are_left(position, seed) -> None:
    grid, generator = FrameGrid(frames=4, rows=3, columns=5), torch.Generator().manual_seed(seed)
    # In any order, two tokens of one place among them, whole rows and frames missing.
    places = torch.randperm(grid.tokens, generator=generator)[: 2 + 3 * seed]
    places = torch.cat([places, places[:1]])
    features = torch.arange(len(places), dtype=torch.float32)[:, None]
    layout = VideoLayout(pool_mode="average", stride=2, newlines=position)
    made = layout.sequence(features, places, grid, torch.tensor([-1.0]))
    assert made.flatten().int().tolist() == newlines_by_loop(places.tolist(), grid, position)


def test_one_newline_or_none_leaves_the_order_alone() -> None:
    grid, places = FrameGrid(frames=1, rows=2, columns=2), torch.tensor([3, 0])
    features, newline = torch.tensor([[1.0], [2.0]]), torch.tensor([-1.0])
    made = {
        position: VideoLayout(pool_mode="max", stride=2, newlines=position).sequence(features, places, grid, newline)
        for position in ("one_token", "no_token")
    }
    assert made["one_token"].flatten().tolist() == [1, 2, -1]
    assert made["no_token"].flatten().tolist() == [1, 2]


def test_compressed_prompt_holds_the_kept_tokens_and_their_newlines() -> None:
    model = CASE.build()
    inputs = CASE.batch([[CASE.clip(12, 0)]])
    prepared = earlytom.prepare(model, inputs, "random:retention=0.1")
    (visual,) = prepared.visual_positions
    embeds = prepared.arguments["inputs_embeds"][0]
    newline = (embeds == model.model.image_newline).all(dim=1)
    assert visual == tuple(range(visual[0], visual[0] + len(visual)))
    assert len(visual) - int(newline.sum()) == round(0.1 * 12 * 16)
    assert newline[visual[-1]]
    # No row of four tokens without its newline, and no newline without a token before it.
    marks = newline[list(visual)].tolist()
    runs = "".join("n" if mark else "t" for mark in marks).split("n")[:-1]
    assert all(1 <= len(run) <= 4 for run in runs)
    assert prepared.arguments["attention_mask"].shape[1] == inputs["input_ids"].shape[1] - prepared.dropped[0]


@pytest.mark.parametrize("position", ["grid", "frame", "one_token", "no_token"])
@pytest.mark.parametrize("mode", ["average", "bilinear"])
def test_nothing_dropped_is_the_plain_model_bit_for_bit(mode, position) -> None:
    model = CASE.build(spatial_pool_mode=mode, newline_position=position)
    side = 5 if mode == "bilinear" else 4
    grid = FrameGrid(frames=6, rows=side, columns=side)
    length = VideoLayout.of(model.config).length(grid)
    ids = torch.tensor([[5, 6, *[model.config.video_token_id] * length, 7]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": CASE.clip(6, 0)[None]}
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, "earlytom:retention=1.0,frame_merging=false"):
            assert torch.equal(model(**inputs).logits, plain)


def test_images_are_refused(published) -> None:
    inputs = published.prepare_inputs(clocked(), "What?")
    image = torch.zeros(1, 1, 3, 28, 28)
    with pytest.raises(earlytom.ModelError, match="images are not supported"):
        published.processor(text="What?", images=np.zeros((28, 28, 3), dtype=np.uint8))
    with pytest.raises(earlytom.ModelError, match="images are not supported"):
        published.model(**inputs, pixel_values=image)
    with pytest.raises(earlytom.ModelError, match="images are not supported"):
        published.model.generate(**inputs, pixel_values=image, image_sizes=torch.tensor([[28, 28]]))
    with (
        pytest.raises(earlytom.CompressionError, match="images are not supported"),
        earlytom.compress(published.model, "none"),
    ):
        published.model.generate(**inputs, pixel_values=image)


def test_placeholders_that_do_not_match_are_told(published) -> None:
    inputs = published.prepare_inputs(clocked(), "What?") | {"pixel_values_videos": pixels(4)}
    message = "36 video placeholder tokens, but its 1 video.s. need 48"
    with pytest.raises(earlytom.ModelError, match=message):
        published.model(**inputs)
    with pytest.raises(earlytom.CompressionError, match=message), earlytom.compress(published.model, "none"):
        published.model(**inputs)


def test_parts_and_strange_states_are_refused() -> None:
    model = CASE.build()
    with pytest.raises(earlytom.ModelError, match="LlavaVideoForConditionalGeneration, got LlavaVideoModel"):
        open_model(model.model)
    model.config.vision_feature_layer = -2
    with pytest.raises(earlytom.ModelError, match="vision_feature_layer must be -1"):
        open_model(model)
    model = CASE.build()
    model.config.newline_position = "row"
    with pytest.raises(earlytom.ModelError, match="newline_position must be one of"):
        open_model(model)


def test_processor_refuses_an_unknown_layout(published) -> None:
    with pytest.raises(earlytom.ModelError, match="spatial_pool_mode must be one of"):
        LlavaVideoProcessor(published.processor.tokenizer, spatial_pool_mode="median")


@pytest.mark.parametrize(
    "text",
    [
        "earlytom:retention=0.4,inner_merging=true,inner_layer=3",
        "fastv:retention=0.6,layer=2",
        "pyramiddrop:retention=0.5",
    ],
)
def test_cached_decoding_behind_a_reduction_in_the_language_model_equals_recomputation(text) -> None:
    model, method = CASE.build(), earlytom.parse_method(text)
    inputs = CASE.batch([[CASE.clip(6, 0)]])
    with torch.no_grad(), earlytom.compress(model, method) as trace:
        output = model.generate(
            **inputs, do_sample=False, max_new_tokens=20, return_dict_in_generate=True, output_logits=True
        )
    assert sum(trace.last.language[-1].tokens_after) < sum(trace.last.visual_tokens)
    tokens_only = replace(method, inner_merging=False) if isinstance(method, earlytom.EarlyTom) else "none"
    prepared = earlytom.prepare(model, inputs, tokens_only)
    prompt, visual = prepared.arguments["inputs_embeds"][0], list(prepared.visual_positions[0])
    new = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    assert len(new) == 20
    with torch.no_grad():
        for step, logits in enumerate(output.logits):
            expected = logits_without_cache(model, method, prompt, visual, new[:step])
            torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=1e-4)
