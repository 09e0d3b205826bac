"""The LLaVA-OneVision adapter against stock."""

from __future__ import annotations

import pytest
import torch

import earlytom
from conftest import clip, tiny_model
from earlytom.models import FAMILIES, find_adapter, load_adapter
from earlytom.types import EncoderPlan, FrameGrid

GRID = FrameGrid(frames=6, rows=4, columns=4)


def encode(model, pixels, visitor):
    """Encode the clips of [V, T, 3, H, W] pixels."""
    adapter = find_adapter(model)
    grids = [FrameGrid(frames=pixels.shape[1], rows=4, columns=4)] * len(pixels)
    return adapter.encode(model, {"pixel_values_videos": pixels}, grids, range(len(pixels)), visitor)


class Watching:
    """A visitor that changes nothing and remembers what it was shown."""

    def __init__(self, plan: EncoderPlan) -> None:
        self.plan, self.layers, self.attention = plan, [], None

    def receive_attention(self, compute) -> None:
        self.attention = compute()

    def after_layer(self, layer, hidden, others=()):
        self.layers.append(layer)
        return hidden, list(others)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_own_loop_is_bit_identical_to_stock(attention) -> None:
    model = tiny_model(attention)
    adapter = find_adapter(model)
    pixels = clip(6, 0)[None]
    visitor = Watching(EncoderPlan())
    with torch.no_grad():
        hidden = encode(model, pixels, visitor)
        tokens = adapter.project(model, hidden, GRID)
        stock = model.model.get_video_features(pixels).pooler_output
    assert torch.equal(tokens.flatten(0, 1), stock.view(-1, stock.shape[-1])[: 6 * 16])
    assert visitor.layers == list(range(8))


class Unmerging(Watching):
    """Is shown the middle of every layer, and merges nothing."""

    token_sizes = None

    def merge_tokens(self, layer, hidden, keys, others):
        self.layers.append((layer, tuple(hidden.shape), tuple(keys.shape), keys.dtype))
        return hidden, list(others)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_layers_run_in_their_parts_are_bit_identical_to_stock(attention) -> None:
    model = tiny_model(attention)
    pixels = clip(6, 0)[None]
    visitor = Unmerging(EncoderPlan(token_layers=tuple(range(8)), proportional_attention=True, attention_layer=5))
    plain = Watching(EncoderPlan(attention_layer=5))
    with torch.no_grad():
        hidden = encode(model, pixels, visitor)
        assert torch.equal(hidden, encode(model, pixels, plain))
    assert torch.equal(visitor.attention, plain.attention)
    middles = [entry for entry in visitor.layers if isinstance(entry, tuple)]
    assert middles == [(layer, (6, 64, 32), (6, 64, 8), torch.float32) for layer in range(8)]


def test_received_attention_equals_the_maps_of_eager_attention() -> None:
    model = tiny_model("eager")
    pixels, layer = clip(6, 0)[None], 5
    visitor = Watching(EncoderPlan(attention_layer=layer))
    with torch.no_grad():
        encode(model, pixels, visitor)
        maps = model.model.vision_tower(pixels[0], output_attentions=True).attentions[layer]
    torch.testing.assert_close(visitor.attention, maps.mean(dim=(1, 2)), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(visitor.attention.sum(1), torch.ones(6))


def test_attention_is_resized_as_features_are() -> None:
    """A feature map whose every channel is the score map comes out of stock pooling as the resized scores."""
    model = tiny_model()
    scores = torch.rand(3, 64)
    pooled = model.model.apply_pooling(scores[..., None].expand(-1, -1, 5).contiguous())
    torch.testing.assert_close(find_adapter(model).pool_attention(model, scores, GRID), pooled[..., 0])


def test_hooks_of_others_fire_on_every_block(model) -> None:
    fired = []
    handles = [
        layer.register_forward_hook(lambda module, args, output, index=index: fired.append(index))
        for index, layer in enumerate(model.model.vision_tower.encoder.layers)
    ]
    try:
        with torch.no_grad():
            encode(model, clip(6, 0)[None], Watching(EncoderPlan()))
    finally:
        for handle in handles:
            handle.remove()
    assert fired == list(range(8))


def test_earlier_feature_layer_skips_the_layers_behind_it() -> None:
    model = tiny_model()
    model.config.vision_feature_layer = -3
    adapter = find_adapter(model)
    visitor = Watching(EncoderPlan())
    pixels = clip(6, 0)[None]
    with torch.no_grad():
        tokens = adapter.project(model, encode(model, pixels, visitor), GRID)
        stock = model.model.get_video_features(pixels).pooler_output
    assert visitor.layers == list(range(6))
    assert adapter.encoder(model).depth == 6
    assert torch.equal(tokens.flatten(0, 1), stock.view(-1, stock.shape[-1])[: 6 * 16])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model.config, "vision_feature_select_strategy", "default"), "vision_feature_select"),
        (lambda model: setattr(model.config.vision_config, "model_type", "clip_vision_model"), "clip_vision_model"),
        (lambda model: setattr(model.config, "model_type", "gpt2"), "llava_onevision"),
        (lambda model: setattr(model, "_compiled_call_impl", lambda: None), "torch.compile"),
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
        find_adapter(object())
    with pytest.raises(earlytom.ModelError, match="LlavaOnevisionForConditionalGeneration"):
        find_adapter(tiny_model().model)


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

    from earlytom.models.base import ModelAdapter
    from earlytom.models.llava_video import model as llava_video

    adapter = load_adapter(name)
    wanted = [method for method in vars(ModelAdapter) if not method.startswith("_")]
    assert wanted
    assert all(callable(getattr(adapter, method)) for method in wanted)
    assert isinstance(adapter.clip_arguments, tuple)
    assert isinstance(adapter.sequential_positions, bool)
    for known in FAMILIES[name].classes:
        module = transformers if hasattr(transformers, known) else llava_video
        assert getattr(module, known).config_class.model_type == name


def test_token_counts_at_true_size() -> None:
    """LLaVA-OneVision at 32 frames: 6272 visual tokens, from shapes on the meta device."""
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    from earlytom.models.prompt import HostPrompt

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
    prompt = HostPrompt(ids=ids, mask=torch.ones_like(ids))
    (grid,) = find_adapter(model).grids(model, {"pixel_values_videos": pixels}, prompt)
    assert grid.tokens == 6272
    assert earlytom.EarlyTom(retention=0.1).budget(grid) == 627
    assert earlytom.EarlyTom(retention=0.1).encoder_plan(find_adapter(model).encoder(model)).merge_layers == (3, 10, 16)
