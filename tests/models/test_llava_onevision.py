"""The LLaVA-OneVision host against stock."""

from __future__ import annotations

import inspect

import pytest
import torch

import earlytom
from conftest import clip, tiny_model
from earlytom.models import FAMILIES, load_host_class, open_model
from earlytom.types import EncoderPlan, FrameGrid
from visitors import Watching, encode, project

GRID = FrameGrid(frames=6, rows=4, columns=4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_own_loop_is_bit_identical_to_stock(attention) -> None:
    model = tiny_model(attention)
    pixels = clip(6, 0)
    visitor = Watching()
    with torch.no_grad():
        tokens = project(model, encode(model, pixels, visitor, GRID), GRID)
        stock = model.model.get_video_features(pixels[None]).pooler_output
    assert torch.equal(tokens.flatten(0, 1), stock.view(-1, stock.shape[-1])[: 6 * 16])
    assert visitor.layers == [(layer, (6, 64, 32)) for layer in range(8)]


class Unmerging(Watching):
    """Is shown the middle of every layer, and merges nothing."""

    def __init__(self, plan: EncoderPlan) -> None:
        super().__init__(plan)
        self.middles: list[tuple[object, ...]] = []

    def merge_tokens(self, layer, batch, keys):
        self.middles.append((layer, tuple(batch.hidden.shape), tuple(keys.shape), keys.dtype))
        return super().merge_tokens(layer, batch, keys)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_layers_run_in_their_parts_are_bit_identical_to_stock(attention) -> None:
    model = tiny_model(attention)
    pixels = clip(6, 0)
    visitor = Unmerging(EncoderPlan(token_layers=tuple(range(8)), proportional_attention=True, attention_layer=5))
    plain = Watching(EncoderPlan(attention_layer=5))
    with torch.no_grad():
        hidden = encode(model, pixels, visitor, GRID).hidden
        assert torch.equal(hidden, encode(model, pixels, plain, GRID).hidden)
    assert torch.equal(visitor.attention, plain.attention)
    assert visitor.middles == [(layer, (6, 64, 32), (6, 64, 8), torch.float32) for layer in range(8)]


def test_received_attention_equals_the_maps_of_eager_attention() -> None:
    model = tiny_model("eager")
    pixels, layer = clip(6, 0), 5
    visitor = Watching(EncoderPlan(attention_layer=layer))
    with torch.no_grad():
        encode(model, pixels, visitor, GRID)
        maps = model.model.vision_tower(pixels, output_attentions=True).attentions[layer]
    torch.testing.assert_close(visitor.attention, maps.mean(dim=(1, 2)), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(visitor.attention.sum(1), torch.ones(6))


def test_attention_is_resized_as_features_are() -> None:
    """A feature map whose every channel is the score map comes out of stock pooling as the resized scores."""
    model = tiny_model()
    scores = torch.rand(3, 64)
    pooled = model.model.apply_pooling(scores[..., None].expand(-1, -1, 5).contiguous())
    torch.testing.assert_close(open_model(model).tower(GRID).pool_attention(scores), pooled[..., 0])


def test_hooks_of_others_fire_on_every_block(model) -> None:
    fired = []
    handles = [
        layer.register_forward_hook(lambda module, args, output, index=index: fired.append(index))
        for index, layer in enumerate(model.model.vision_tower.encoder.layers)
    ]
    try:
        with torch.no_grad():
            encode(model, clip(6, 0), Watching(), GRID)
    finally:
        for handle in handles:
            handle.remove()
    assert fired == list(range(8))


def test_earlier_feature_layer_skips_the_layers_behind_it() -> None:
    model = tiny_model()
    model.config.vision_feature_layer = -3
    visitor = Watching()
    pixels = clip(6, 0)
    with torch.no_grad():
        tokens = project(model, encode(model, pixels, visitor, GRID), GRID)
        stock = model.model.get_video_features(pixels[None]).pooler_output
    assert [layer for layer, _ in visitor.layers] == list(range(6))
    assert open_model(model).shape.depth == 6
    assert torch.equal(tokens.flatten(0, 1), stock.view(-1, stock.shape[-1])[: 6 * 16])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model.config, "vision_feature_select_strategy", "default"), "vision_feature_select"),
        (lambda model: setattr(model.config.vision_config, "model_type", "clip_vision_model"), "clip_vision_model"),
        (lambda model: setattr(model.config, "model_type", "gpt2"), "llava_onevision"),
    ],
)
def test_unsupported_models_are_refused(change, message) -> None:
    model = tiny_model()
    change(model)
    with pytest.raises(earlytom.ModelError, match=message), earlytom.compress(model, "earlytom"):
        pass


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(
        earlytom.ModelError,
        match=r"supported are: llava_onevision \(LlavaOnevisionForConditionalGeneration\), qwen2_5_vl",
    ):
        open_model(object())
    with pytest.raises(earlytom.ModelError, match="LlavaOnevisionForConditionalGeneration"):
        open_model(tiny_model().model)


@pytest.mark.parametrize("layers", [(1, 8), (26,)])
def test_merge_layers_that_the_encoder_lacks_are_refused(model, layers) -> None:
    method = earlytom.EarlyTom(merge_layers=layers)
    with pytest.raises(earlytom.MethodError, match="8 layers"), earlytom.compress(model, method):
        pass


def test_inner_layer_that_the_language_model_lacks_is_refused(model) -> None:
    method = earlytom.EarlyTom(inner_merging=True, inner_layer=5)
    with pytest.raises(earlytom.MethodError, match="5 layers"), earlytom.compress(model, method):
        pass


@pytest.mark.parametrize("name", FAMILIES)
def test_every_listed_family_loads(name) -> None:
    import transformers

    from earlytom.models.base import Host
    from earlytom.models.llava_video import model as llava_video

    host = load_host_class(name)
    public = {member for member in vars(Host) if not member.startswith("_")}
    switches = {"sequential_positions", "videos_among_images"}
    assert public > switches
    assert all(callable(getattr(host, method)) for method in public - switches)
    assert all(isinstance(getattr(host, switch), bool) for switch in switches)
    assert issubclass(host, Host)
    assert not inspect.isabstract(host)
    for known in FAMILIES[name].classes:
        module = transformers if hasattr(transformers, known) else llava_video
        assert getattr(module, known).config_class.model_type == name


def test_token_counts_at_true_size() -> None:
    """LLaVA-OneVision at 32 frames: 6272 visual tokens, from shapes on the meta device."""
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    with torch.device("meta"):
        config = LlavaOnevisionConfig(
            vision_config={
                "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                "num_hidden_layers": 26, "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
                "vision_use_head": False,
            },
            text_config={
                "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 152000,
            },
            vision_feature_layer=-1, vision_feature_select_strategy="full",
        )  # fmt: skip
        model = LlavaOnevisionForConditionalGeneration(config)
        pixels = torch.empty(1, 32, 3, 384, 384)
    ids = torch.full((1, 6273), config.video_token_id)
    host = open_model(model)
    (grid,) = host.open({"input_ids": ids, "pixel_values_videos": pixels}).grids
    assert grid.tokens == 6272
    assert earlytom.EarlyTom(retention=0.1).budget(grid) == 627
    assert earlytom.EarlyTom(retention=0.1).encoder_plan(host.shape).merge_layers == (3, 10, 16)


@pytest.mark.parametrize("layers", [9, -10, [-1, 99], []], ids=repr)
def test_hidden_states_that_there_are_not_are_refused(layers) -> None:
    model = tiny_model()
    model.config.vision_feature_layer = layers
    with pytest.raises(earlytom.ModelError, match=r"hidden states of 8 layers \(-9 to 8\), got"):
        open_model(model)
