"""Models of the published checkpoints' sizes with random weights: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from earlytom.errors import ModelError, shown

if TYPE_CHECKING:
    from earlytom.runtime.pipeline import VideoQA

__all__ = [
    "CONFIGURATIONS",
    "Configuration",
    "build_model",
    "build_video_qa",
    "configuration_names",
    "find_configuration",
]

_SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26,
    "num_attention_heads": 16, "image_size": 384, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
_QWEN2 = {
    "model_type": "qwen2", "max_position_embeddings": 32768, "rope_theta": 1e6, "use_sliding_window": False,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
_QWEN2_7B = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4,
}  # fmt: skip
_QWEN2_05B = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2,
}  # fmt: skip
_NO_END = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """An architecture at one size.

    Attributes:
        family: its ``config.model_type``.
        configure: makes its configuration, in the values that the checkpoint was published with.
    """

    family: str
    configure: Callable[[], Any]


def _llava_onevision(text: Mapping[str, Any], vision: Mapping[str, Any] = _SIGLIP) -> Callable[[], Any]:
    def configure() -> Any:
        from transformers import LlavaOnevisionConfig

        side, words = vision["image_size"], text["vocab_size"]
        return LlavaOnevisionConfig(
            vision_config=dict(vision), text_config=dict(text), image_token_index=words - 2,
            video_token_index=words - 1, image_grid_pinpoints=[[side, side]], vision_feature_layer=-1,
            vision_feature_select_strategy="full", tie_word_embeddings=text["tie_word_embeddings"],
        )  # fmt: skip

    return configure


def _llava_video() -> Any:
    from earlytom.models.llava_video.model import LlavaVideoConfig

    return LlavaVideoConfig(
        vision_config=dict(_SIGLIP), text_config=_QWEN2 | _QWEN2_7B | {"vocab_size": 152064}, image_token_index=152000,
        video_token_index=152001, spatial_pool_mode="average", newline_position="grid", vision_feature_layer=-1,
        vision_feature_select_strategy="full", tie_word_embeddings=False,
    )  # fmt: skip


def _qwen2_5_vl() -> Any:
    from transformers import Qwen2_5_VLConfig

    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text = _NO_END | _QWEN2_7B | {"vocab_size": 152064, "max_position_embeddings": 128000, "rope_parameters": rope}
    return Qwen2_5_VLConfig(vision_config=vision, text_config=text)


def _qwen3_vl() -> Any:
    from transformers import Qwen3VLConfig

    vision = {
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 4096, "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    }  # fmt: skip
    text = _NO_END | {
        "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    }  # fmt: skip
    return Qwen3VLConfig(vision_config=vision, text_config=text)


_TINY_VISION = _SIGLIP | {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4, "image_size": 98}
_TINY_TEXT = _QWEN2 | {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 1000, "tie_word_embeddings": True,
}  # fmt: skip

CONFIGURATIONS: Mapping[str, Configuration] = {
    "llava-onevision-7b": Configuration(
        family="llava_onevision",
        configure=_llava_onevision(_QWEN2 | _QWEN2_7B | {"vocab_size": 152128, "tie_word_embeddings": False}),
    ),
    "llava-onevision-0.5b": Configuration(
        family="llava_onevision",
        configure=_llava_onevision(_QWEN2 | _QWEN2_05B | {"vocab_size": 152000, "tie_word_embeddings": True}),
    ),
    "llava-video-7b": Configuration(family="llava_video", configure=_llava_video),
    "qwen2.5-vl-7b": Configuration(family="qwen2_5_vl", configure=_qwen2_5_vl),
    "qwen3-vl-8b": Configuration(family="qwen3_vl", configure=_qwen3_vl),
    "tiny": Configuration(family="llava_onevision", configure=_llava_onevision(_TINY_TEXT, _TINY_VISION)),
}
"""By name. ``tiny`` is for trying things out: 26 narrow layers of SigLIP and a small language model."""


def configuration_names() -> list[str]:
    """All names, the largest models first."""
    return list(CONFIGURATIONS)


def find_configuration(name: str) -> Configuration:
    """The configuration of a name. Raises `ModelError` for an unknown one; the message lists the known ones."""
    if name not in CONFIGURATIONS:
        raise ModelError(f"unknown configuration {shown(name)}; the configurations are: {', '.join(CONFIGURATIONS)}")
    return CONFIGURATIONS[name]


def build_model(
    name: str,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    attention: str = "sdpa",
    seed: int = 0,
) -> Any:
    """A stock model with random weights that keep activations finite, attention uneven and logits distinct.

    Weights are normal with variance 1 / fan-in, biases zero, norms one; the same for one seed on one kind of device.
    It never ends an answer by itself.

    Args:
        name: of the configuration.
        device: on which it is made; ``"meta"`` for shapes alone.
        dtype: of its weights.
        attention: transformers' attention implementation.
        seed: of the weights.

    Raises:
        ModelError: the name is unknown.
    """
    found, place = find_configuration(name), torch.device(device)
    config = found.configure()
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)  # of the few weights that only their constructors fill
        with place:
            made = _model_class(found.family)._from_config(config, attn_implementation=attention, dtype=dtype)
        if place.type != "meta":
            _fill(made, torch.Generator(place).manual_seed(seed))
    made.generation_config.pad_token_id, made.generation_config.eos_token_id = 0, None
    return made.to(place).eval()


def build_video_qa(
    name: str, *, device: torch.device | str, dtype: torch.dtype, attention: str = "sdpa", seed: int = 0
) -> VideoQA:
    """`build_model` with its family's processor, whose vocabulary is made up from the seed as well."""
    from earlytom.bench.processors import build_processor
    from earlytom.runtime.pipeline import VideoQA

    model = build_model(name, device=device, dtype=dtype, attention=attention, seed=seed)
    return VideoQA(model, build_processor(find_configuration(name).family, model.config, seed))


def _model_class(family: str) -> Any:
    if family == "llava_video":
        from earlytom.models.llava_video.model import LlavaVideoForConditionalGeneration

        return LlavaVideoForConditionalGeneration
    import transformers

    from earlytom.models import FAMILIES

    return getattr(transformers, FAMILIES[family].classes[0])


@torch.no_grad()
def _fill(model: nn.Module, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(std=0.02, generator=generator)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            fan_in = module.weight.numel() / module.weight.shape[0]
            module.weight.normal_(std=fan_in**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
