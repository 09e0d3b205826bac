"""InternVL's prompts: where kept tokens go, which pictures are a clip, what is refused, clips that prompts share."""

from __future__ import annotations

import pytest
import torch

import earlytom
from earlytom.models import open_model
from earlytom.types import EncoderPlan, FrameGrid, KeptTokens
from families import PAD, pad_left
from families.internvl import (
    CASE,
    COLON,
    CONTEXT,
    END_IMG,
    FRAME,
    IMG,
    LINE_BREAK,
    SPACE,
    TOKENS,
    ZERO,
    batch,
    build,
    clip,
    image,
    label,
    picture,
    video,
)
from visitors import frames_of

GRID = FrameGrid(frames=6, rows=4, columns=4)
QUARTER = earlytom.EarlyTom(retention=0.25)
NEW = {"do_sample": False, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def model():
    return build()


def prompt_of(*parts: list[int], pictures: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """One sample out of pieces of text, with as many pictures."""
    pixels = torch.randn(pictures, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return pad_left([[word for part in parts for word in part]]) | {"pixel_values": pixels}


def clips_of(model, inputs) -> list[int]:
    """Frames of each clip that is found; none when the call is left to stock."""
    call = open_model(model).open(inputs)
    return [] if call is None else [grid.frames for grid in call.grids]


# What stays of a prompt -------------------------------------------------------------------------------------------


def assembled(model, inputs, places: list[list[int]]) -> list[list[int]]:
    """The ids that are left of each sample when these places of each clip are kept."""
    call = open_model(model).open(inputs)
    table = model.get_input_embeddings().weight
    kept = [
        KeptTokens(features=table[CONTEXT].detach().expand(len(clip), -1), places=torch.tensor(clip, dtype=torch.int64))
        for clip in places
    ]
    prepared = call.assemble(kept)
    rows = []
    for embeds, mask in zip(prepared.arguments["inputs_embeds"], prepared.arguments["attention_mask"], strict=True):
        found = (embeds[mask.bool()][:, None] == table[None]).all(dim=-1)
        assert (found.sum(dim=1) == 1).all()
        rows.append(found.to(torch.uint8).argmax(dim=1).tolist())
    for row, padding, visual in zip(rows, prepared.arguments["attention_mask"], prepared.visual_positions, strict=True):
        offset = int((padding == 0).sum())
        assert [row[position - offset] for position in visual] == [CONTEXT] * len(visual)
    return rows


def frame(number: int, tokens: int, first: bool = False) -> list[int]:
    return [*([] if first else [LINE_BREAK]), *label(number), IMG, *[CONTEXT] * tokens, END_IMG]


def test_tokens_stay_in_their_frames_and_empty_frames_leave(model) -> None:
    inputs = prompt_of([7, LINE_BREAK], video(12), [LINE_BREAK, 8], video(2), [9], pictures=14)
    first = [0, 5, 15, 16, 16 * 9 + 2, 16 * 11, 16 * 11 + 1]
    (row,) = assembled(model, inputs, [first, [17, 31]])
    frames = [*frame(1, 3, first=True), *frame(2, 1), *frame(10, 1), *frame(12, 2)]
    assert row == [7, LINE_BREAK, *frames, LINE_BREAK, 8, *frame(2, 2, first=True), 9]


def test_an_empty_first_frame_stays_where_its_label_is_not_its_own(model) -> None:
    grown = 16321  # " Frame"
    vocabulary = build_with_grown_words()
    words = video(3)
    inputs = prompt_of([7], [grown, *words[1:]], [8], pictures=3)
    assert clips_of(vocabulary, inputs) == [3]
    (row,) = assembled(vocabulary, inputs, [[33]])
    empty = [grown, ZERO + 1, COLON, SPACE, IMG, END_IMG]
    assert row == [7, *empty, *frame(3, 1), 8]


def build_with_grown_words():
    """A model whose vocabulary is large enough for a label that begins with a space."""
    model = build()
    model.resize_token_embeddings(16330)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        model.get_input_embeddings().weight.copy_(torch.randn(16330, 48, generator=generator))
    return model.eval()


def test_tokens_out_of_order_go_to_their_frames(model) -> None:
    """Features are told apart here by their first value, the place."""
    call = open_model(model).open(prompt_of([7], video(3), [8], pictures=3))
    places = torch.tensor([40, 3, 20, 1, 45])
    features = torch.zeros(5, 48)
    features[:, 0] = places.float()
    kept = KeptTokens(features=features, places=places)
    prepared = call.assemble([kept])
    visual = list(prepared.visual_positions[0])
    assert prepared.arguments["inputs_embeds"][0, visual, 0].tolist() == [3, 1, 20, 40, 45]


def test_right_padding_and_positions_of_the_user(model) -> None:
    rows = [[7, LINE_BREAK, *video(3), 8], [9, LINE_BREAK, *video(2), 8]]
    length = max(map(len, rows))
    inputs = {
        "input_ids": torch.tensor([row + [PAD] * (length - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
        "pixel_values": clip(5, 0),
    }
    positions = torch.arange(length)[None] + 7
    prepared = earlytom.prepare(model, inputs | {"position_ids": positions}, QUARTER).arguments
    assert prepared["attention_mask"][0].all()
    assert prepared["attention_mask"][1, 0] == 1
    assert prepared["attention_mask"][1, -1] == 0
    assert prepared["position_ids"].shape == prepared["attention_mask"].shape
    assert prepared["position_ids"][0, [0, -1]].tolist() == [7, length + 6]


# Clips and images -------------------------------------------------------------------------------------------------

CAPTION = [1906, 12]  # "Image", "-"


@pytest.mark.parametrize(
    ("parts", "pictures", "clips"),
    [
        ([[7, LINE_BREAK], video(3), [LINE_BREAK, 8]], 3, [3]),
        ([video(2)], 2, [2]),
        ([[7, LINE_BREAK], video(12), [LINE_BREAK], video(1), [LINE_BREAK], video(2), [8]], 15, [12, 1, 2]),
        ([picture(), [LINE_BREAK], picture(), [LINE_BREAK], picture(), [8]], 3, []),
        ([picture(4), [LINE_BREAK], video(2), [LINE_BREAK], picture(), [8]], 7, [2]),
        ([CAPTION, [16, COLON, SPACE], picture(), [LINE_BREAK], CAPTION, [17, COLON, SPACE], picture()], 2, []),
        ([CAPTION, [16, COLON, SPACE], picture(), [LINE_BREAK], video(2)], 3, [2]),
        ([[FRAME, SPACE, 16, COLON, SPACE], picture(), [LINE_BREAK, FRAME, SPACE, 17, COLON, SPACE], picture()], 2, []),
        ([[FRAME, ZERO, 16, COLON, SPACE], picture()], 1, []),
        ([[FRAME, COLON, SPACE], picture()], 1, []),
        ([[FRAME, 16, COLON], picture()], 1, []),
        ([[16, COLON, SPACE], picture()], 1, []),
        ([[COLON, SPACE], picture()], 1, []),
    ],
    ids=[
        "a clip",
        "nothing in front",
        "several clips",
        "images in a row",
        "images around a clip",
        "captioned images",
        "a captioned image in front of a clip",
        "other labels",
        "another way to count",
        "no number",
        "no space",
        "a number alone at the start",
        "no word at the start",
    ],
)
def test_only_what_the_processor_writes_as_a_video_is_a_clip(model, parts, pictures, clips) -> None:
    inputs = prompt_of(*parts, pictures=pictures)
    assert clips_of(model, inputs) == clips
    with earlytom.compress(model, "none") as trace:
        model.generate(**inputs, do_sample=False, max_new_tokens=1)
    assert [video.grid.frames for video in trace.videos] == clips


@pytest.mark.parametrize(
    "parts",
    [
        [label(2), picture()],
        [CAPTION, [16, COLON, SPACE], picture(), [LINE_BREAK], label(2), picture()],
        [label(1), picture(), [LINE_BREAK], label(3), picture()],
        [label(1), picture(), [LINE_BREAK, 8, LINE_BREAK], label(2), picture()],
        [label(1), picture(), label(2), picture()],
        [label(1), picture(), [LINE_BREAK], label(2), picture(2)],
        [label(1), picture(), [LINE_BREAK], picture(), [LINE_BREAK], label(2), picture()],
        [label(1), picture(), [LINE_BREAK, *label(2), IMG, CONTEXT, CONTEXT, END_IMG]],
    ],
    ids=[
        "no first",
        "a first in other words",
        "one is missing",
        "text between",
        "no line break",
        "several tiles",
        "an image between",
        "cut short",
    ],
)
def test_labels_of_frames_that_are_no_clip_are_refused(model, parts) -> None:
    inputs = prompt_of([7, LINE_BREAK], *parts, pictures=3)
    with earlytom.compress(model, QUARTER), pytest.raises(earlytom.CompressionError, match=r"labelled 'Frame\d: '"):
        model.generate(**inputs, **NEW)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": None}, "pixel_values is missing"),
        ({"input_ids": None}, "without input_ids"),
        ({"pixel_values": torch.zeros(3, 3, 32, 32)}, "192 placeholder tokens, but the 3 pictures"),
        ({"pixel_values": torch.zeros(12, 3, 64, 64)}, r"\[pictures, channels, 32, 32\], got \(12, 3, 64, 64\)"),
        ({"pixel_values": torch.zeros(1, 12, 3, 32, 32)}, r"\[pictures, channels"),
        ({"inputs_embeds": torch.zeros(1)}, "inputs_embeds"),
        ({"vision_feature_layer": -2}, "vision_feature_layer"),
        ({"attention_mask": torch.ones(1, 3)}, r"attention_mask must be .*\(1, 3\)"),
    ],
    ids=["pixels", "ids", "too few", "size", "dimensions", "embeddings", "override", "mask"],
)
def test_bad_calls_are_refused(model, change, message) -> None:
    inputs = batch([[clip(12, 0)]])
    with earlytom.compress(model, QUARTER), pytest.raises(earlytom.CompressionError, match=message):
        model.generate(**(inputs | change), **NEW)


def test_ways_around_compression_are_refused(model) -> None:
    inputs, earlier = batch([[clip(12, 0)]]), model.generate
    images = prompt_of([7], picture(2), [8], pictures=2)
    expected = earlier(**images, **NEW)
    with earlytom.compress(model, QUARTER):
        with pytest.raises(earlytom.CompressionError, match="inside"):
            earlier(**inputs, **NEW)
        with pytest.raises(earlytom.CompressionError, match="whole model"):
            model.model(**inputs)
        assert torch.equal(earlier(**images, **NEW), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: setattr(config, "vision_feature_select_strategy", "full"), "vision_feature_select_strategy"),
        (lambda config: setattr(config, "vision_feature_layer", [-2, -1]), r"got \[-2, -1\]"),
        (lambda config: setattr(config, "vision_feature_layer", 9), "got 9"),
        (lambda config: setattr(config.vision_config, "image_size", (32, 64)), "8 x 16"),
        (lambda config: setattr(config.vision_config, "image_size", (36, 36)), "9 x 9"),
        (lambda config: setattr(config.text_config, "model_type", "gpt_oss"), "gpt_oss"),
        (lambda config: setattr(config.vision_config, "model_type", "siglip_vision_model"), "siglip_vision_model"),
    ],
    ids=["strategy", "layers", "layer", "oblong", "odd", "language", "tower"],
)
def test_unsupported_models_are_refused(change, message) -> None:
    model = build()
    change(model.config)
    with pytest.raises(earlytom.ModelError, match=message), earlytom.compress(model, QUARTER):
        pass


def test_token_merging_in_the_tower_is_refused(model) -> None:
    plan = EncoderPlan(token_layers=(1,))
    with pytest.raises(earlytom.MethodError, match="tokens cannot merge"):
        open_model(model).shape.check(plan)
    with pytest.raises(earlytom.ModelError, match="neighbouring patches"):
        open_model(model).tower(GRID).project_tokens(frames_of(torch.zeros(1, 3, 32)))


def test_the_case_for_all_families_is_consistent(model) -> None:
    inputs = CASE.batch([[CASE.clip(12, 0)], [CASE.clip(8, 1)]])
    assert CASE.stock_features(model, inputs).shape == (20 * TOKENS, 48)
    assert clips_of(model, CASE.image(inputs, 1)) == [12, 8]


def test_token_counts_at_true_size() -> None:
    """InternVL3 at 448 pixels: 256 tokens a frame, and three merge layers of 24."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    config = InternVLConfig(text_config={"model_type": "qwen2", "hidden_size": 896, "num_attention_heads": 14})
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    row: list[int] = []
    for number in range(1, 33):
        row += [*([LINE_BREAK] if number > 1 else []), *label(number), 151665, *[151667] * 256, 151666]
    ids = torch.tensor([row])
    pixels = torch.empty(32, 3, 448, 448, device="meta")
    host = open_model(model)
    (grid,) = host.open({"input_ids": ids, "pixel_values": pixels}).grids
    assert (grid.frames, grid.rows, grid.columns, grid.tokens) == (32, 16, 16, 8192)
    assert host.shape.depth == 24


def test_prompts_about_one_expanded_clip_get_what_each_gets_alone(model) -> None:
    """Also with two clips a prompt, or an image beside the clip, where the encoder sees all of them."""
    options = {"max_new_tokens": 3, "do_sample": False}
    for sample, encoded in (([clip(12, 0)], 12), ([clip(6, 0), clip(6, 1)], 24)):
        alone = batch([sample])
        pixels, runs = alone["pixel_values"], []
        shared = {"input_ids": alone["input_ids"].repeat(2, 1), "attention_mask": alone["attention_mask"].repeat(2, 1)}
        hook = lambda _, args, runs=runs: runs.append(len(args[0]))  # noqa: E731
        with earlytom.compress(model, QUARTER) as trace:
            expected = model.generate(**alone, **options)
            handle = model.model.vision_tower.embeddings.register_forward_pre_hook(hook)
            found = model.generate(**shared, pixel_values=pixels.expand(2, *pixels.shape), **options)
            handle.remove()
        assert runs == [encoded]
        assert len(trace.videos) == 2 * len(sample)
        assert torch.equal(found, expected.expand(2, -1))


def test_an_image_beside_an_expanded_clip_goes_to_every_prompt(model) -> None:
    alone = image(batch([[clip(6, 0)]]), 0)
    pixels = alone["pixel_values"]
    shared = {"input_ids": alone["input_ids"].repeat(2, 1), "attention_mask": alone["attention_mask"].repeat(2, 1)}
    with earlytom.compress(model, QUARTER):
        expected = model.generate(**alone, max_new_tokens=3, do_sample=False)
        found = model.generate(
            **shared, pixel_values=pixels.expand(2, *pixels.shape), max_new_tokens=3, do_sample=False
        )
    assert torch.equal(found, expected.expand(2, -1))
