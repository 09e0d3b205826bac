"""What ``config.json`` and the names and shapes of weights mean in LLaVA's own checkpoint layout.

``lmms-lab/LLaVA-Video-7B-Qwen2`` is published in it: the language model's settings lie in the open, those of the vision
tower not at all, so that they are read off the shapes of its weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from earlytom.errors import ModelError, shown

__all__ = [
    "check_settings",
    "is_published_layout",
    "is_surplus",
    "published_name",
    "text_settings",
    "vision_settings",
]

_TOWER = "model.vision_tower.vision_tower.vision_model."
# How names begin, in the model and as published.
_PREFIXES = {
    "model.language_model.embed_tokens.": "model.embed_tokens.",
    "model.language_model.layers.": "model.layers.",
    "model.language_model.norm.": "model.norm.",
    "lm_head.": "lm_head.",
    "model.image_newline": "model.image_newline",
    "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
    "model.vision_tower.": _TOWER,
}
# What older libraries saved besides: tables that are computed from the settings.
_TABLES = (".rotary_emb.inv_freq", ".embeddings.position_ids")

# SigLIP so400m/14@384, which every published checkpoint has; LLaVA leaves out the last of its layers.
_SO400M = {"hidden_size": 1152, "num_attention_heads": 16, "num_hidden_layers": 27, "image_size": 384}

_REQUIRED = ("mm_patch_merge_type",)
_TEXT_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
_OPTIONAL_TEXT_KEYS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "initializer_range",
    "max_position_embeddings",
    "max_window_layers",
    "pad_token_id",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_cache",
    "use_sliding_window",
)
# Settings that would change what the model computes, and the values that are supported; absent is the first, except for
# those of _REQUIRED, where the original then takes another one.
_SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "mm_patch_merge_type": ("spatial_unpad",),
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_vision_select_layer": (-2,),
    "mm_vision_select_feature": ("patch",),
    "mm_resampler_type": (None,),
    "mm_use_im_start_end": (False,),
    "mm_use_im_patch_token": (False,),
    "add_faster_video": (False,),
}


def is_published_layout(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is one of LLaVA's own. Some say ``llava`` for their type, which means another model."""
    architectures = config.get("architectures")
    named = isinstance(architectures, list) and "LlavaQwenForCausalLM" in architectures
    return named or config.get("model_type") == "llava_qwen"


def check_settings(config: Mapping[str, Any]) -> None:
    """Raise `ModelError` when the configuration asks for something that is not supported; says which key."""
    tower = config.get("mm_vision_tower")
    if not isinstance(tower, str) or "siglip" not in tower.lower():
        raise ModelError(f"mm_vision_tower in config.json must name a SigLIP tower, got {shown(tower)}")
    for key, allowed in _SETTINGS.items():
        value = config.get(key, None if key in _REQUIRED else allowed[0])
        if value not in allowed:
            raise ModelError(f"{key} in config.json must be {' or '.join(map(repr, allowed))}, got {shown(value)}")


def text_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the language model's configuration. Raises `ModelError` naming the keys that are missing."""
    missing = [key for key in _TEXT_KEYS if config.get(key) is None]
    if missing:
        raise ModelError(f"config.json lacks what the language model needs: {', '.join(missing)}")
    return {key: config[key] for key in (*_TEXT_KEYS, *_OPTIONAL_TEXT_KEYS) if config.get(key) is not None}


def vision_settings(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The arguments of the vision tower's configuration.

    Args:
        config: of the checkpoint; its ``vision_config``, where it has the tower's width, says what shapes cannot.
        shapes: of all weights, by their published names.

    Raises:
        ModelError: weights of the tower are missing, or the number of attention heads cannot be known.
    """
    names = [f"{_TOWER}embeddings.patch_embedding.weight", f"{_TOWER}embeddings.position_embedding.weight"]
    names.append(f"{_TOWER}encoder.layers.0.mlp.fc1.weight")
    missing = [name for name in names if name not in shapes]
    if missing:
        raise ModelError(f"the checkpoint lacks weights of the vision tower: {', '.join(missing)}")
    (width, channels, _, patch), (positions, _), (intermediate, _) = (shapes[name] for name in names)
    said = config.get("vision_config") or {}
    if not isinstance(said, Mapping):
        raise ModelError(f"vision_config in config.json must be an object, got {shown(said)}")
    said = said if said.get("hidden_size", width) == width else {}
    side = math.isqrt(positions)
    size = said.get("image_size") or _SO400M["image_size"]
    return {
        "hidden_size": width,
        "intermediate_size": intermediate,
        "num_hidden_layers": _depth(said, shapes),
        "num_attention_heads": _heads(said, width),
        "num_channels": channels,
        "patch_size": patch,
        "image_size": size if size // patch == side else side * patch,
        "vision_use_head": False,
    }


def published_name(name: str) -> str:
    """What a weight of the model is called in the published layout."""
    for own, published in _PREFIXES.items():
        if name.startswith(own):
            return published + name.removeprefix(own)
    return name


def is_surplus(name: str, layers: int) -> bool:
    """Whether a published weight is known, and not needed.

    Args:
        name: the published name.
        layers: layers of the vision tower that are kept.
    """
    layer = _layer(name)
    return name.endswith(_TABLES) or name.startswith(f"{_TOWER}head.") or (layer is not None and layer >= layers)


def _layer(name: str) -> int | None:
    """The number of the vision tower's layer that a weight belongs to."""
    found = re.match(re.escape(_TOWER) + r"encoder\.layers\.(\d+)\.", name)
    return None if found is None else int(found[1])


def _depth(said: Mapping[str, Any], shapes: Iterable[str]) -> int:
    """Layers that run: those that there are, but never the full tower's last."""
    stored = 1 + max(layer for layer in map(_layer, shapes) if layer is not None)
    return min(stored, int(said.get("num_hidden_layers") or _SO400M["num_hidden_layers"]) - 1)


def _heads(said: Mapping[str, Any], width: int) -> int:
    heads = said.get("num_attention_heads")
    if heads is None and width == _SO400M["hidden_size"]:
        heads = _SO400M["num_attention_heads"]
    if heads is None or width % heads:
        raise ModelError(
            f"the number of attention heads of a vision tower of width {width} cannot be told from its weights; add "
            f'"vision_config": {{"hidden_size": {width}, "num_attention_heads": ...}} to config.json'
        )
    return int(heads)
