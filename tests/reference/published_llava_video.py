"""A small LLaVA-Video checkpoint in the layout of the published one, and what the original makes of its video.

The computation is written out with loops and without any model class, from the weights by their published names.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

TOWER = "model.vision_tower.vision_tower.vision_model."
WIDTH, HEADS, INNER, LAYERS, PATCH, SIDE = 32, 4, 64, 8, 4, 7
HIDDEN, TEXT_LAYERS, TEXT_HEADS, KEY_HEADS, TEXT_INNER = 48, 5, 4, 2, 96
# Bytes and three special tokens: there is no row for the placeholder that is added to the tokenizer.
VOCABULARY, END, VIDEO = 259, 258, 259


def make_settings(**changes: object) -> dict[str, object]:
    """``config.json`` with the keys of the published one, sizes aside; ``None`` takes a key out."""
    settings = {
        "architectures": ["LlavaQwenForCausalLM"], "model_type": "llava_qwen", "add_time_instruction": True,
        "attention_dropout": 0.0, "bos_token_id": 256, "eos_token_id": END, "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": TEXT_INNER, "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": TEXT_HEADS, "num_key_value_heads": KEY_HEADS, "vocab_size": VOCABULARY,
        "max_position_embeddings": 32768, "max_window_layers": 28, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "rope_scaling": None, "sliding_window": 131072, "use_sliding_window": False, "tie_word_embeddings": False,
        "image_aspect_ratio": "anyres_max_9", "image_grid_pinpoints": [[384, 384]], "mm_hidden_size": WIDTH,
        "mm_newline_position": "grid", "mm_patch_merge_type": "spatial_unpad", "mm_projector_lr": None,
        "mm_projector_type": "mlp2x_gelu", "mm_resampler_type": None, "mm_spatial_pool_mode": "average",
        "mm_spatial_pool_stride": 2, "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_use_im_patch_token": False, "mm_use_im_start_end": False, "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2, "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "tokenizer_padding_side": "right", "torch_dtype": "float32", "use_cache": True, "use_mm_proj": True,
        "vision_config": {"hidden_size": WIDTH, "num_attention_heads": HEADS},
    } | changes  # fmt: skip
    return {key: value for key, value in settings.items() if key not in changes or value is not None}


def make_weights(layers: int = LAYERS) -> dict[str, Tensor]:
    """Random weights by their published names."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN), "model.image_newline": (HIDDEN,),
        "model.mm_projector.0.weight": (HIDDEN, WIDTH), "model.mm_projector.0.bias": (HIDDEN,),
        "model.mm_projector.2.weight": (HIDDEN, HIDDEN), "model.mm_projector.2.bias": (HIDDEN,),
        f"{TOWER}embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        f"{TOWER}embeddings.patch_embedding.bias": (WIDTH,),
        f"{TOWER}embeddings.position_embedding.weight": (SIDE * SIDE, WIDTH),
        f"{TOWER}post_layernorm.weight": (WIDTH,), f"{TOWER}post_layernorm.bias": (WIDTH,),
    }  # fmt: skip
    for layer in range(layers):
        start = f"{TOWER}encoder.layers.{layer}."
        parts = {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in ("q", "k", "v", "out")}
        parts |= {
            "mlp.fc1": (INNER, WIDTH),
            "mlp.fc2": (WIDTH, INNER),
            "layer_norm1": (WIDTH,),
            "layer_norm2": (WIDTH,),
        }
        for name, shape in parts.items():
            shapes |= {f"{start}{name}.weight": shape, f"{start}{name}.bias": shape[:1]}
    size = HIDDEN // TEXT_HEADS * KEY_HEADS
    for layer in range(TEXT_LAYERS):
        start = f"model.layers.{layer}."
        for name, rows in (("q", HIDDEN), ("k", size), ("v", size)):
            shapes[f"{start}self_attn.{name}_proj.weight"] = (rows, HIDDEN)
            shapes[f"{start}self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{start}self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        shapes |= {f"{start}mlp.{name}_proj.weight": (TEXT_INNER, HIDDEN) for name in ("gate", "up")}
        shapes[f"{start}mlp.down_proj.weight"] = (HIDDEN, TEXT_INNER)
        shapes |= {f"{start}{name}.weight": (HIDDEN,) for name in ("input_layernorm", "post_attention_layernorm")}
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_tokenizer(folder: Path) -> None:
    """Qwen2's files, with bytes for a vocabulary."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    (folder / "vocab.json").write_text(
        json.dumps({char: place for place, char in enumerate(bytes_to_unicode().values())})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n")
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "add_prefix_space": False, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "padding_side": "right", "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
        "added_tokens_decoder": {str(256 + n): {"content": token, **plain} for n, token in enumerate(special)},
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_checkpoint(
    folder: Path,
    settings: dict[str, object] | None = None,
    weights: dict[str, Tensor] | None = None,
    layout: str = "sharded safetensors",
) -> Path:
    """Write a checkpoint; ``layout`` is ``"safetensors"`` or ``"bin"``, ``"sharded"`` before it or not."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = make_weights() if weights is None else weights
    (folder / "config.json").write_text(json.dumps(make_settings() if settings is None else settings))
    write_tokenizer(folder)
    stem, end = ("model", "safetensors") if layout.endswith("safetensors") else ("pytorch_model", "bin")
    save = save_file if end == "safetensors" else torch.save
    if not layout.startswith("sharded"):
        save(weights, folder / f"{stem}.{end}")
        return folder
    names = sorted(weights)
    parts = {f"{stem}-0000{part + 1}-of-00003.{end}": names[part::3] for part in range(3)}
    for part, held in parts.items():
        save({name: weights[name] for name in held}, folder / part)
    index = {"metadata": {}, "weight_map": {name: part for part, held in parts.items() for name in held}}
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps(index))
    return folder


def encode_frame(frame: Tensor, weights: dict[str, Tensor], layers: int = LAYERS) -> Tensor:
    """[3, H, W] pixels to the last layer's [L, D] output."""

    def linear(states: Tensor, name: str) -> Tensor:
        return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(states: Tensor, name: str) -> Tensor:
        return functional.layer_norm(states, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    kernel, bias = (weights[f"{TOWER}embeddings.patch_embedding.{part}"] for part in ("weight", "bias"))
    patches = []
    for row in range(SIDE):
        for column in range(SIDE):
            block = frame[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            patches.append((kernel * block).sum(dim=(1, 2, 3)) + bias)
    hidden = torch.stack(patches) + weights[f"{TOWER}embeddings.position_embedding.weight"]
    for layer in range(layers):
        start = f"{TOWER}encoder.layers.{layer}."
        normed, heads = norm(hidden, f"{start}layer_norm1"), []
        queries, keys, values = (linear(normed, f"{start}self_attn.{name}_proj") for name in "qkv")
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = queries[:, part] @ keys[:, part].T / math.sqrt(WIDTH // HEADS)
            heads.append(scores.softmax(dim=-1) @ values[:, part])
        hidden = hidden + linear(torch.cat(heads, dim=1), f"{start}self_attn.out_proj")
        inner = functional.gelu(linear(norm(hidden, f"{start}layer_norm2"), f"{start}mlp.fc1"), approximate="tanh")
        hidden = hidden + linear(inner, f"{start}mlp.fc2")
    return hidden


def pool_frame(features: Tensor, mode: str, side: int = SIDE) -> list[list[Tensor]]:
    """[side * side, C] features of a frame to rows of pooled features, stride 2."""
    grid = features.view(side, side, -1)
    if mode == "bilinear":
        size = math.ceil(side / 2)
        return [[_between(grid, (row + 0.5) * side / size - 0.5, (column + 0.5) * side / size - 0.5)
                 for column in range(size)] for row in range(size)]  # fmt: skip
    blocks = [[grid[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(0, 1) for column in range(side // 2)]
              for row in range(side // 2)]  # fmt: skip
    return [[block.mean(dim=0) if mode == "average" else block.amax(dim=0) for block in row] for row in blocks]


def _between(grid: Tensor, row: float, column: float) -> Tensor:
    """Bilinear interpolation at a point of a [side, side, C] grid."""
    last, value = grid.shape[0] - 1, torch.zeros(grid.shape[-1])
    row, column = max(row, 0.0), max(column, 0.0)
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (row % 1 if y else 1 - row % 1) * (column % 1 if x else 1 - column % 1)
        value = value + weight * grid[min(int(row) + y, last), min(int(column) + x, last)]
    return value


def video_sequence(
    frames: Tensor, weights: dict[str, Tensor], mode: str, newlines: str, layers: int = LAYERS
) -> Tensor:
    """[T, 3, H, W] pixels to the [S, C] embeddings that stand in the prompt: project, pool, put newlines between."""
    newline, sequence = weights["model.image_newline"], []
    for frame in frames:
        hidden = encode_frame(frame, weights, layers)
        inner = functional.gelu(
            hidden @ weights["model.mm_projector.0.weight"].T + weights["model.mm_projector.0.bias"]
        )
        projected = inner @ weights["model.mm_projector.2.weight"].T + weights["model.mm_projector.2.bias"]
        for row in pool_frame(projected, mode):
            sequence += [*row, newline] if newlines == "grid" else row
        sequence += [newline] if newlines == "frame" else []
    sequence += [newline] if newlines == "one_token" else []
    return torch.stack(sequence)
