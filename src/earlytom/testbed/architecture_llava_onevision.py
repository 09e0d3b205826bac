"""The test model as LLaVA-OneVision: a SigLIP tower, a projector, a Qwen2."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from earlytom.testbed.checkpoint import (
    CHECKPOINT_FOLDER,
    FRAME_LIMIT,
    FRAME_SIZE,
    PATCH_SIZE,
    TOKENS_PER_FRAME,
    build_tokenizer,
    chat_template,
    generation_config,
    language_sizes,
    pixels_from_frames,
)
from earlytom.testbed.labels import IntArray
from earlytom.testbed.scene_types import PATCH_GRID, ByteArray

_VISUAL_TOKENS = ("<image>", "<video>")
_OPENING_WORDS = 2
_LOWEST_RATE = 0.08


def build_processor() -> LlavaOnevisionProcessor:
    """Return the stock processor for frames of 96 by 96 pixels, 12 by 12 patches."""
    size = {"height": FRAME_SIZE, "width": FRAME_SIZE}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[FRAME_SIZE, FRAME_SIZE]]),
        tokenizer=build_tokenizer(_VISUAL_TOKENS),
        video_processor=LlavaOnevisionVideoProcessor(size=size, num_frames=FRAME_LIMIT),
        num_image_tokens=4 * TOKENS_PER_FRAME,
        vision_feature_select_strategy="full",
        chat_template=chat_template(*_VISUAL_TOKENS),
    )


def build_vision_config() -> SiglipVisionConfig:
    """Return the configuration of the SigLIP tower."""
    return SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=8,
        num_attention_heads=4,
        image_size=FRAME_SIZE,
        patch_size=PATCH_SIZE,
        vision_use_head=False,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
    """Return the configuration of the whole model for the words of ``tokenizer``."""
    return LlavaOnevisionConfig(
        vision_config=build_vision_config(),
        text_config=Qwen2Config(**language_sizes(tokenizer)),
        image_token_index=tokenizer.get_vocab()["<image>"],
        video_token_index=tokenizer.get_vocab()["<video>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[FRAME_SIZE, FRAME_SIZE]],
        tie_word_embeddings=True,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlavaOnevisionForConditionalGeneration:
    """Return the untrained model in float32, its weights drawn from ``seed``."""
    torch.manual_seed(seed)
    model = LlavaOnevisionForConditionalGeneration(build_config(tokenizer))
    model.generation_config = generation_config(tokenizer)
    return model


def initialise_positions(tower: SiglipVisionModel) -> None:
    """Start the learned position embedding [144, width] from two-dimensional sines, so that neighbours look alike."""
    table = tower.embeddings.position_embedding.weight
    quarter = table.shape[1] // 4
    frequency = torch.exp(-math.log(40.0) * torch.arange(quarter) / quarter)
    angle = torch.arange(PATCH_GRID)[:, None] * frequency[None]
    wave = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = wave[:, None].expand(-1, PATCH_GRID, -1)
    columns = wave[None].expand(PATCH_GRID, -1, -1)
    with torch.no_grad():
        table.copy_(0.5 * torch.cat([rows, columns], dim=-1).reshape(PATCH_GRID * PATCH_GRID, -1))


class LlavaOnevisionArchitecture:
    """Implements `earlytom.testbed.architectures.Architecture`; a grid is one frame."""

    name = "llava_onevision"
    folder = CHECKPOINT_FOLDER
    frames_per_grid = 1
    opening = "<|im_start|>user"

    def build_processor(self) -> LlavaOnevisionProcessor:
        return build_processor()

    def build_model(self, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlavaOnevisionForConditionalGeneration:
        return build_model(tokenizer, seed)

    def build_encoder(self) -> SiglipVisionModel:
        return SiglipVisionModel(build_vision_config())

    def initialise_encoder(self, encoder: Any) -> None:
        initialise_positions(encoder)

    def unlabelled_parameters(self, encoder: Any) -> Iterable[nn.Parameter]:
        """Return the last norm, which comes after what LLaVA-OneVision takes."""
        parameters: Iterable[nn.Parameter] = encoder.post_layernorm.parameters()
        return parameters

    def encode(self, encoder: Any, frames: ByteArray, device: torch.device) -> torch.Tensor:
        """Return what LLaVA-OneVision takes from the tower: the last hidden state before the last norm."""
        output = encoder(pixels_from_frames(frames, device), output_hidden_states=True)
        hidden: torch.Tensor = output.hidden_states[-1]
        return hidden

    def encoder(self, model: Any) -> nn.Module:
        tower: nn.Module = model.model.vision_tower
        return tower

    def projector(self, model: Any) -> nn.Module:
        projector: nn.Module = model.model.multi_modal_projector
        return projector

    def lone_parameters(self, model: Any) -> list[nn.Parameter]:
        return [model.model.image_newline]

    def language_model(self, model: Any) -> Any:
        return model.model.language_model

    def clip_embeddings(self, model: Any, features: torch.Tensor) -> torch.Tensor:
        core = model.model
        pooled: torch.Tensor = core.apply_pooling(core.multi_modal_projector(features.flatten(0, 1)))
        return pooled.reshape(len(features), -1, pooled.shape[-1])

    def closing_embedding(self, model: Any) -> torch.Tensor:
        newline: torch.Tensor = model.model.image_newline
        return newline

    def prefix_positions(self, grids: int, generator: np.random.Generator, gaps: float) -> IntArray:
        """Return positions int64 [1, P].

        In a share ``gaps`` of the clips each video token moves on by one with a probability drawn for the clip, so that
        the meaning of a token cannot be read off its index, which changes as soon as tokens are dropped.
        """
        length = _OPENING_WORDS + grids * TOKENS_PER_FRAME + 1
        steps = np.ones(length, dtype=np.int64)
        steps[0] = 0
        if generator.random() < gaps:
            rate = generator.uniform(_LOWEST_RATE, 1.0)
            steps[_OPENING_WORDS : length - 1] = generator.random(length - 1 - _OPENING_WORDS) < rate
        return np.cumsum(steps)[None]
