"""Loading LLaVA-Video from the layout that it was published in."""

from __future__ import annotations

import json

import pytest
import torch

import earlytom
from earlytom.models.llava_video.published import vision_settings
from reference.published_llava_video import (
    HIDDEN,
    LAYERS,
    SIDE,
    TOWER,
    make_settings,
    make_weights,
    video_sequence,
    write_checkpoint,
)


def load(folder, **options) -> earlytom.VideoQA:
    return earlytom.VideoQA.load(folder, device="cpu", **options)


def own(name: str) -> str:
    """The model's name for a published weight, spelled out apart from the package."""
    for old, new in (
        (TOWER, "model.vision_tower."),
        ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
        ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
        ("model.image_newline", "model.image_newline"),
        ("model.", "model.language_model."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


@pytest.mark.parametrize("layout", ["sharded safetensors", "safetensors", "bin", "sharded bin"])
def test_every_weight_of_the_published_layout_is_loaded(layout, tmp_path) -> None:
    model = load(write_checkpoint(tmp_path, layout=layout)).model
    state, weights = model.state_dict(), make_weights()
    assert len(state) == len(weights)
    for name, value in weights.items():
        assert torch.equal(state[own(name)], value), name


def test_what_is_saved_again_has_the_model_s_own_names(tmp_path) -> None:
    from safetensors.torch import load_file

    model = load(write_checkpoint(tmp_path / "source")).model
    model.save_pretrained(tmp_path / "saved")
    assert load_file(tmp_path / "saved" / "model.safetensors").keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_spatial_pool_mode": "median"}, r"spatial_pool_mode must be one of average, max, bilinear, got 'median'"),
        (
            {"mm_newline_position": "row"},
            r"newline_position must be one of grid, frame, one_token, no_token, got 'row'",
        ),
        ({"mm_spatial_pool_stride": 0}, "spatial_pool_stride must be an integer"),
        ({"mm_spatial_pool_stride": 8}, "at most the 7 patches"),
        ({"mm_projector_type": "linear"}, "mm_projector_type .*'mlp2x_gelu'.* got 'linear'"),
        ({"mm_vision_select_layer": -1}, "mm_vision_select_layer .*-2, got -1"),
        ({"mm_vision_tower": "openai/clip-vit-large-patch14-336"}, "mm_vision_tower .*SigLIP"),
        ({"mm_vision_tower": None}, "mm_vision_tower .*None"),
        ({"add_faster_video": True}, "add_faster_video"),
        ({"hidden_size": None, "vocab_size": None}, "lacks .*vocab_size, hidden_size"),
        ({"intermediate_size": 100}, r"mlp\.up_proj\.weight is \(96, 48\), config\.json says \(100, 48\)"),
        ({"vision_config": None}, '"vision_config": {"hidden_size": 32, "num_attention_heads"'),
        ({"vision_config": {"hidden_size": 1024, "num_attention_heads": 16}}, "heads of a vision tower of width 32"),
        ({"vision_config": {"num_attention_heads": 5}}, "heads of a vision tower of width 32"),
    ],
)
def test_wrong_settings_are_named(changes, message, tmp_path) -> None:
    with pytest.raises(earlytom.ModelError, match=message):
        load(write_checkpoint(tmp_path, make_settings(**changes)))


def test_missing_and_unknown_weights_are_named(tmp_path) -> None:
    weights = make_weights()
    del weights["model.mm_projector.2.bias"], weights["model.layers.3.mlp.up_proj.weight"]
    with pytest.raises(earlytom.ModelError, match=r"lacks weights: .*model\.layers\.3\.mlp\.up_proj\.weight") as caught:
        load(write_checkpoint(tmp_path / "few", weights=weights))
    assert "model.mm_projector.2.bias" in str(caught.value)
    weights = make_weights() | {"model.vision_resampler.query": torch.zeros(2)}
    with pytest.raises(earlytom.ModelError, match=r"does not have: model\.vision_resampler\.query"):
        load(write_checkpoint(tmp_path / "resampler", weights=weights))
    weights = make_weights() | {"model.layers.5.input_layernorm.weight": torch.zeros(HIDDEN)}
    with pytest.raises(earlytom.ModelError, match=r"does not have: model\.layers\.5\.input_layernorm\.weight"):
        load(write_checkpoint(tmp_path / "deep", weights=weights))
    weights = make_weights()
    weights["model.language_model.norm.weight"] = weights["model.norm.weight"]
    with pytest.raises(earlytom.ModelError, match=r"does not have: model\.language_model\.norm\.weight"):
        load(write_checkpoint(tmp_path / "own", weights=weights))
    bare = {name: value for name, value in make_weights().items() if "vision_tower" not in name}
    with pytest.raises(earlytom.ModelError, match=r"weights of the vision tower: .*patch_embedding"):
        load(write_checkpoint(tmp_path / "bare", weights=bare))


def test_missing_and_broken_files_are_named(tmp_path) -> None:
    folder = write_checkpoint(tmp_path / "shard")
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(earlytom.ModelError, match=r"lacks model-00002-of-00003\.safetensors"):
        load(folder)
    folder = write_checkpoint(tmp_path / "none", layout="bin")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(earlytom.ModelError, match="no weights"):
        load(folder)
    folder = write_checkpoint(tmp_path / "broken", layout="safetensors")
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(earlytom.ModelError, match=r"model\.safetensors cannot be read"):
        load(folder)


def test_last_layer_head_and_tables_of_the_full_tower_are_left_out(tmp_path) -> None:
    """Stored whole, the tower loses its last layer, as the original takes it away."""
    weights = make_weights() | {
        f"{TOWER}head.probe": torch.zeros(1, 1, 32),
        f"{TOWER}embeddings.position_ids": torch.arange(SIDE * SIDE)[None],
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(6),
    }
    whole = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": LAYERS}
    qa = load(write_checkpoint(tmp_path, make_settings(vision_config=whole), weights))
    assert len(qa.model.model.vision_tower.encoder.layers) == LAYERS - 1
    frames = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = qa.model.get_video_features(frames[None]).pooler_output[0]
    expected = video_sequence(frames, make_weights(), "average", "grid", LAYERS - 1)
    torch.testing.assert_close(features, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("stored", [26, 27])
def test_the_published_tower_is_known(stored) -> None:
    """so400m: sizes from shapes, 16 heads, 26 layers, and not the CLIP defaults that its config.json carries."""
    shapes = {
        f"{TOWER}embeddings.patch_embedding.weight": (1152, 3, 14, 14),
        f"{TOWER}embeddings.position_embedding.weight": (729, 1152),
    } | {f"{TOWER}encoder.layers.{layer}.mlp.fc1.weight": (4304, 1152) for layer in range(stored)}
    clip = {"hidden_size": 1024, "image_size": 336, "num_attention_heads": 8, "num_hidden_layers": 24}
    assert vision_settings({"vision_config": clip}, shapes) == {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 16,
        "num_channels": 3, "patch_size": 14, "image_size": 384, "vision_use_head": False,
    }  # fmt: skip


def test_settings_that_published_checkpoints_have(tmp_path) -> None:
    """Another type in config.json, tied embeddings without a head, no word on pooling and newlines, bfloat16."""
    weights = {name: value.bfloat16() for name, value in make_weights().items() if name != "lm_head.weight"}
    changes = {"mm_spatial_pool_mode": None, "mm_spatial_pool_stride": None, "mm_newline_position": None}
    settings = make_settings(model_type="llava", tie_word_embeddings=True, **changes)
    qa = load(write_checkpoint(tmp_path, settings, weights))
    model = qa.model
    assert (model.config.spatial_pool_mode, model.config.spatial_pool_stride) == ("bilinear", 2)
    assert model.config.newline_position == "one_token"
    assert model.lm_head.weight.dtype == torch.float32
    assert torch.equal(model.lm_head.weight, weights["model.embed_tokens.weight"].float())
    assert model.generation_config.eos_token_id == 258
    assert model.generation_config.pad_token_id == 256
    assert load(tmp_path, dtype="bfloat16").model.lm_head.weight.dtype == torch.bfloat16
    assert load(tmp_path, attention="eager").model.config._attn_implementation == "eager"
    assert model.config.text_config.rope_parameters["rope_theta"] == 1000000.0
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [258, 256], "pad_token_id": 7}))
    assert load(tmp_path).model.generation_config.eos_token_id == [258, 256]
