"""The InternVL host: the tower and its pooling against stock, clips told from images, and whole calls."""

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
from visitors import Watching, encode, frames_of, project

GRID = FrameGrid(frames=6, rows=4, columns=4)
FULL = earlytom.EarlyTom(retention=1.0, frame_merging=False)
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


VISION = [{}, {"use_qk_norm": True, "norm_type": "rms_norm"}, {"use_mean_pooling": False}]


@pytest.mark.parametrize("vision", VISION, ids=["plain", "norms", "last norm"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_own_loop_is_bit_identical_to_stock(attention, vision) -> None:
    model, visitor, pixels = build(attention, **vision), Watching(), clip(6, 0)
    tokens = project(model, encode(model, pixels, visitor, GRID), GRID)
    with torch.no_grad():
        stock = model.model.get_image_features(pixels, return_dict=True).pooler_output
    assert torch.equal(tokens, stock)
    assert tokens.shape == (6, 16, 48)
    assert visitor.layers == [(layer, (6, 64, 32)) for layer in range(8)]


@pytest.mark.parametrize("layer", [-3, 6, 8])
def test_other_feature_layers_skip_the_layers_behind_them(layer) -> None:
    model, visitor, pixels = build(use_mean_pooling=False), Watching(), clip(6, 0)
    model.config.vision_feature_layer = layer
    tokens = project(model, encode(model, pixels, visitor, GRID), GRID)
    with torch.no_grad():
        stock = model.model.get_image_features(pixels, return_dict=True).pooler_output
    assert torch.equal(tokens, stock)
    assert len(visitor.layers) == open_model(model).shape.depth == (8 if layer == 8 else 6)


@pytest.mark.parametrize("vision", VISION[:2], ids=["plain", "norms"])
def test_received_attention_is_the_patches_part_of_the_eager_maps(vision) -> None:
    model, visitor, pixels, layer = build("eager", **vision), Watching(EncoderPlan(attention_layer=5)), clip(6, 0), 5
    plain, asked = encode(model, pixels, Watching(), GRID), encode(model, pixels, visitor, GRID)
    with torch.no_grad():
        maps = model.model.vision_tower(pixels, output_attentions=True).attentions[layer]
    assert maps.shape == (6, 4, 65, 65)
    torch.testing.assert_close(visitor.attention, maps.mean(dim=(1, 2))[:, 1:], atol=1e-6, rtol=1e-5)
    assert (visitor.attention.sum(1) < 1).all()
    assert torch.equal(plain.hidden, asked.hidden)


def test_keys_are_those_of_the_layer_behind_its_norm() -> None:
    model = build(use_qk_norm=True, norm_type="rms_norm")
    visitor, pixels = Watching(EncoderPlan(attention_layer=5, keys=True)), clip(6, 0)
    encode(model, pixels, visitor, GRID)
    with torch.no_grad():
        hidden = model.model.vision_tower.embeddings(pixels)
        for layer in model.model.vision_tower.encoder.layer[:5]:
            hidden = layer(hidden)
        layer = model.model.vision_tower.encoder.layer[5]
        keys = layer.attention.k_norm(layer.attention.k_proj(layer.layernorm_before(hidden)))
    expected = torch.stack([keys[:, 1:, head * 8 : head * 8 + 8] for head in range(4)]).mean(dim=0)
    torch.testing.assert_close(visitor.keys, expected)


def test_attention_is_pooled_as_pixel_shuffle_groups_the_patches(model) -> None:
    scores = torch.rand(3, 64)
    pooled = open_model(model).tower(GRID).pool_attention(scores)
    expected = torch.zeros(3, 16)
    for frame in range(3):
        for row in range(8):
            for column in range(8):
                expected[frame, row // 2 * 4 + column // 2] += scores[frame, row * 8 + column] / 4
    torch.testing.assert_close(pooled, expected)
    shuffled = model.model.pixel_shuffle(scores.view(3, 8, 8, 1), scale_factor=0.5)
    torch.testing.assert_close(pooled, shuffled.flatten(1, 2).mean(dim=-1))


class Averaging(Watching):
    """Makes one frame of each pair behind layer 3."""

    def after_layer(self, layer, batch):
        return batch.changed(means_of_pairs, (3,)) if layer == 3 else batch


def means_of_pairs(rows):
    return (rows[0::2] + rows[1::2]) / 2


def test_cls_tokens_merge_with_their_frames(model) -> None:
    pixels = clip(6, 0)
    merged = encode(model, pixels, Averaging(), GRID)
    tower = model.model.vision_tower
    with torch.no_grad():
        hidden = tower.embeddings(pixels)
        for index, layer in enumerate(tower.encoder.layer):
            hidden = layer(hidden)
            if index == 3:
                hidden = means_of_pairs(hidden)
    assert torch.equal(merged.hidden, hidden)
    assert torch.equal(merged.patches, hidden[:, 1:])


@pytest.mark.parametrize("language", ["qwen2", "qwen3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_full_retention_is_bit_identical_with_several_clips_in_a_padded_batch(attention, language) -> None:
    model = build(attention, language=language)
    inputs = batch([[clip(12, 0), clip(5, 1)], [clip(11, 2)]])
    assert (inputs["attention_mask"][1] == 0).any()
    with torch.no_grad():
        plain = model(**inputs).logits
        answers = model.generate(**inputs, **NEW)
        with earlytom.compress(model, FULL) as trace:
            assert torch.equal(model(**inputs).logits, plain)
            assert torch.equal(model.generate(**inputs, **NEW), answers)
    assert [clip.grid.frames for clip in trace.videos] == [12, 5, 11]
    assert [clip.tokens for clip in trace.videos] == [192, 80, 176]


@pytest.mark.parametrize("sample", [0, 1])
def test_images_beside_a_video_are_as_stock_computes_them(model, sample) -> None:
    inputs = image(batch([[clip(12, 0)], [clip(8, 1)]]), sample)
    with torch.no_grad():
        plain = model(**inputs).logits
        with earlytom.compress(model, FULL) as trace:
            torch.testing.assert_close(model(**inputs).logits, plain, atol=1e-4, rtol=1e-4)
    assert [clip.grid.frames for clip in trace.videos] == [12, 8]
    prepared = earlytom.prepare(model, inputs, QUARTER)
    tile = 12 * sample
    with torch.no_grad():
        tiles = inputs["pixel_values"][tile : tile + 3]
        features = model.model.get_image_features(tiles, return_dict=True).pooler_output.flatten(0, 1)
    mask = prepared.arguments["attention_mask"][sample]
    row = prepared.arguments["inputs_embeds"][sample][mask.bool()]
    assert torch.equal(row[2 : 2 + 48], features)
    assert [len(positions) for positions in prepared.visual_positions] == [48, 32]


def test_images_alone_pass_through(model) -> None:
    inputs = prompt_of([7], picture(3), [LINE_BREAK], picture(), [8, 9], pictures=4)
    stock = model.generate(**inputs, **NEW)
    with earlytom.compress(model, QUARTER) as trace:
        assert torch.equal(model.generate(**inputs, **NEW), stock)
    assert trace.videos == []


@pytest.mark.parametrize("language", ["qwen2", "qwen3"])
def test_decoding_equals_recomputation_without_a_cache(language) -> None:
    model, inputs = build(language=language), batch([[clip(12, 0), clip(8, 1)]])
    with earlytom.compress(model, "earlytom:retention=0.25") as trace:
        output = model.generate(
            **inputs, do_sample=False, max_new_tokens=8, return_dict_in_generate=True, output_logits=True
        )
    assert [video.tokens for video in trace.videos] == [48, 32]
    prepared = earlytom.prepare(model, inputs, "earlytom:retention=0.25").arguments
    length = inputs["input_ids"].shape[1]
    assert torch.equal(output.sequences[:, :length], inputs["input_ids"])
    new = output.sequences[:, length:]
    with torch.no_grad():
        for step, logits in enumerate(output.logits):
            embeds = torch.cat([prepared["inputs_embeds"], model.get_input_embeddings()(new[:, :step])], dim=1)
            expected = model(inputs_embeds=embeds, use_cache=False).logits[:, -1]
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
            assert int(expected.argmax()) == int(new[0, step])


def test_a_batch_equals_single_samples(model) -> None:
    inputs = batch([[clip(12, 0)], [clip(8, 1)]])
    with earlytom.compress(model, QUARTER):
        together = model.generate(**inputs, **NEW)
    for number, (first, last) in enumerate([(0, 12), (12, 20)]):
        row = inputs["input_ids"][number][inputs["attention_mask"][number].bool()].tolist()
        with earlytom.compress(model, QUARTER):
            alone = model.generate(**pad_left([row]), pixel_values=inputs["pixel_values"][first:last], **NEW)
        assert alone[0, -6:].tolist() == together[number, -6:].tolist()


@pytest.mark.parametrize("language", ["qwen2", "qwen3"])
def test_reducing_inside_the_language_model(language) -> None:
    model, inputs = build(language=language), batch([[clip(12, 0)], [clip(12, 1)]])
    method = earlytom.EarlyTom(retention=0.25, inner_merging=True)
    with torch.no_grad(), earlytom.compress(model, method) as trace:
        logits = model(**inputs).logits
        output = model.generate(**inputs, do_sample=False, max_new_tokens=1)
    assert trace.last.language[0].tokens_before == (48, 48)
    assert trace.last.language[0].tokens_after == (24, 24)
    assert output[:, -1].tolist() == logits[:, -1].argmax(dim=-1).tolist()


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
