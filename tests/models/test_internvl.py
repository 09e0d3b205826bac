"""The InternVL host: the tower and its pooling against stock, clips told from images, and whole calls."""

from __future__ import annotations

import pytest
import torch

import earlytom
from earlytom.models import open_model
from earlytom.types import EncoderPlan, FrameGrid
from families import pad_left
from families.internvl import (
    LINE_BREAK,
    batch,
    build,
    clip,
    image,
    picture,
)
from visitors import Watching, encode, project

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
