"""Shared fixtures: tiny models from configs, batches like a processor makes them, and the shared reference data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

SHARED = Path(__file__).resolve().parents[2] / "shared"
IMAGE, VIDEO, PAD = 298, 299, 0

# Tiny tensors: a second thread costs more than it brings, and tests must not depend on how many there are.
torch.set_num_threads(1)


def shared(path: str) -> Path:
    """A file or folder of the shared reference data; the test is skipped with a reason where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"reference data not available: {path}")
    return found


def tiny_model(attention: str = "sdpa", dtype: torch.dtype = torch.float32, **overrides: object) -> torch.nn.Module:
    """A LLaVA-OneVision of 8 encoder and 5 decoder layers with random weights: 8x8 patches, 16 tokens a frame."""
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8,
            "num_attention_heads": 4, "image_size": 32, "patch_size": 4, "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2", "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 5,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 4096,
            "bos_token_id": None, "eos_token_id": None, "pad_token_id": PAD,
        },
        image_token_index=IMAGE, video_token_index=VIDEO, image_grid_pinpoints=[[32, 32]],
        vision_feature_layer=-1, vision_feature_select_strategy="full", **overrides,
    )  # fmt: skip
    model = LlavaOnevisionForConditionalGeneration._from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)  # wider than the usual initialisation, so that attention and logits are not flat
    model.generation_config.pad_token_id = PAD
    return model.to(dtype).eval()


def model_with_head() -> torch.nn.Module:
    """A tower with the head of the original SigLIP, as a user would set it."""
    from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead

    model = tiny_model()
    torch.manual_seed(1)
    head = SiglipMultiheadAttentionPoolingHead(model.config.vision_config).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    model.model.vision_tower.head = head
    return model


def cache_name() -> str:
    """What this release of transformers calls the cache among the arguments of a model."""
    from transformers import LlavaOnevisionForConditionalGeneration

    names = inspect.signature(LlavaOnevisionForConditionalGeneration.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def clip(frames: int = 12, seed: int = 0, size: int = 32) -> Tensor:
    """[T, 3, size, size] pixels: a few scenes, each nearly static."""
    generator = torch.Generator().manual_seed(seed)
    scenes = torch.randn(1 + frames // 5, 3, size, size, generator=generator)
    noise = torch.randn(frames, 3, size, size, generator=generator)
    return scenes[torch.arange(frames) // 5] + 0.2 * noise


@pytest.fixture(autouse=True)
def same_numbers_in_every_run() -> None:
    """Whatever a test draws without a generator of its own: what fails once must fail again."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def model() -> torch.nn.Module:
    return tiny_model()


@pytest.fixture
def make_inputs() -> Callable[..., dict[str, Tensor]]:
    """Batches as the processor makes them: ``make_inputs([[video, ...], ...])`` with one list of clips per sample."""
    return batch


def batch(
    samples: list[list[Tensor]], prefix: int = 5, suffix: int = 6, tokens_per_frame: int = 16
) -> dict[str, Tensor]:
    """Left-padded prompts: text, then for each clip its placeholders and some text."""
    rows, videos = [], []
    for number, clips in enumerate(samples):
        generator = torch.Generator().manual_seed(number)
        row = torch.randint(1, 290, (prefix + number,), generator=generator).tolist()
        for frames in clips:
            row += [VIDEO] * (len(frames) * tokens_per_frame + 1)
            row += torch.randint(1, 290, (suffix,), generator=generator).tolist()
            videos.append(frames)
        rows.append(row)
    length = max(map(len, rows))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": mask}
    return inputs | ({"pixel_values_videos": torch.stack(videos)} if videos else {})
