"""The test model as Qwen2.5-VL: pairs of frames, attention in windows, positions with three axes.

Its language model has the sizes and the rotary base of the first test model's, so that texts, whose three positions
agree, mean the same to both, and one can start from the other's. Rows and columns get low frequencies then, as in the
large models; where on the picture a token lies is in its features, since the encoder sees the picture's edges.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.vision_utils import get_vision_window_index

from earlytom.testbed.checkpoint import (
    CHECKPOINT_FOLDER,
    FRAME_LIMIT,
    FRAME_SIZE,
    PATCH_SIZE,
    build_tokenizer,
    chat_template,
    generation_config,
    language_sizes,
    pixels_from_frames,
)
from earlytom.testbed.labels import TOKEN_GRID, IntArray
from earlytom.testbed.scene_types import PATCH_GRID, ByteArray

TOKENS_PER_SECOND = 4
_START, _END, _IMAGE, _VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
_OPENING_WORDS = 3
_PAIR = 2
_MERGE = 2
_WINDOW_PIXELS = 48
# Without some room the square root in the stock resizing makes 80 or 112 pixels of 96 for some sizes of the video.
_PIXEL_LIMITS = {"shortest_edge": FRAME_SIZE**2 - 64, "longest_edge": FRAME_SIZE**2 + 64}
# The benchmark's clips have a quarter of a second between grids (a twelfth as bare frames), the samples three quarters.
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.08, 1.5
# Some versions of transformers cut seconds to whole ones, which puts all frames of a short clip at one time.
_TIMELESS_SHARE = 0.15


class Qwen25VLArchitecture:
    """Implements `earlytom.testbed.architectures.Architecture`; a grid is two frames."""

    name = "qwen2_5_vl"
    folder = CHECKPOINT_FOLDER.with_name("checkpoint_qwen2_5_vl")
    frames_per_grid = _PAIR
    opening = f"<|im_start|>user{_START}"

    def build_processor(self) -> Qwen2_5_VLProcessor:
        sizes = {"patch_size": PATCH_SIZE, "temporal_patch_size": _PAIR, "merge_size": _MERGE}
        return Qwen2_5_VLProcessor(
            image_processor=Qwen2VLImageProcessor(**sizes, size=dict(_PIXEL_LIMITS)),
            tokenizer=build_tokenizer((_START, _END, _IMAGE, _VIDEO)),
            video_processor=Qwen2VLVideoProcessor(
                **sizes, size=dict(_PIXEL_LIMITS), num_frames=FRAME_LIMIT, cap_pixels_per_frame=False
            ),
            chat_template=chat_template(f"{_START}{_IMAGE}{_END}", f"{_START}{_VIDEO}{_END}"),
        )

    def build_model(self, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(_build_config(tokenizer))
        model.generation_config = generation_config(tokenizer)
        return model

    def build_encoder(self) -> Qwen2_5_VisionTransformerPretrainedModel:
        return Qwen2_5_VisionTransformerPretrainedModel._from_config(
            Qwen2_5_VLConfig(vision_config=_vision_sizes()).vision_config
        )

    def initialise_encoder(self, encoder: Any) -> None:
        """Leave the encoder as stock draws it: its positions are not learnt."""

    def unlabelled_parameters(self, encoder: Any) -> Iterable[nn.Parameter]:
        """Return the merger, which comes after the patches' last hidden states."""
        parameters: Iterable[nn.Parameter] = encoder.merger.parameters()
        return parameters

    def encode(self, encoder: Any, frames: ByteArray, device: torch.device) -> torch.Tensor:
        """Return the patches' last hidden states before the merger, in raster order."""
        shape = torch.tensor([[len(frames) // _PAIR, PATCH_GRID, PATCH_GRID]])
        output = encoder(_patches(pixels_from_frames(frames, device)), grid_thw=shape.to(device))
        order, _ = get_vision_window_index(
            shape[:1], spatial_merge_size=_MERGE, window_size=_WINDOW_PIXELS, patch_size=PATCH_SIZE
        )
        blocks = output.last_hidden_state.unflatten(0, (-1, _MERGE**2))[torch.argsort(order).to(device)]
        return _raster_from_blocks(blocks.reshape(len(frames) // _PAIR, PATCH_GRID**2, -1))

    def encoder(self, model: Any) -> nn.Module:
        visual: nn.Module = model.model.visual
        return visual

    def projector(self, model: Any) -> nn.Module:
        merger: nn.Module = model.model.visual.merger
        return merger

    def lone_parameters(self, model: Any) -> list[nn.Parameter]:
        return []

    def language_model(self, model: Any) -> Any:
        return model.model.language_model

    def clip_embeddings(self, model: Any, features: torch.Tensor) -> torch.Tensor:
        blocks = _blocks_from_raster(features.flatten(0, 1)).flatten(0, 1)
        tokens: torch.Tensor = model.model.visual.merger(blocks)
        return tokens.reshape(len(features), -1, tokens.shape[-1])

    def closing_embedding(self, model: Any) -> torch.Tensor:
        embedding: torch.Tensor = model.get_input_embeddings().weight[model.config.vision_end_token_id]
        return embedding

    def prefix_positions(self, grids: int, generator: np.random.Generator, gaps: float) -> IntArray:
        """Return positions int64 [3, P]: time, row and column.

        Kept tokens keep their positions when others are dropped, so that no gaps are needed. Instead the seconds
        between grids vary, so that nothing is learnt for one spacing alone.
        """
        timeless = generator.random() < _TIMELESS_SHARE
        drawn = np.exp(generator.uniform(np.log(_SHORTEST_SECONDS), np.log(_LONGEST_SECONDS)))
        return positions_at(grids, 0.0 if timeless else float(drawn))


def positions_at(grids: int, seconds: float) -> IntArray:
    """Return the positions of opening, clip and closing with ``seconds`` between grids, int64 [3, P]."""
    times = (np.arange(grids, dtype=np.float32) * np.float32(TOKENS_PER_SECOND * seconds)).astype(np.int64)
    places = np.arange(TOKEN_GRID)
    clip = np.stack(np.meshgrid(times, places, places, indexing="ij")).reshape(3, -1)
    opening = np.tile(np.arange(_OPENING_WORDS), (3, 1))
    # Stock counts on behind rows and columns; how long the clip lasts does not matter.
    closing = np.full((3, 1), _OPENING_WORDS + TOKEN_GRID)
    return np.concatenate([opening, _OPENING_WORDS + clip, closing], axis=1)


def _vision_sizes() -> dict[str, Any]:
    """Return the sizes of the encoder: windows of a quarter of the frame, every second layer sees all of it."""
    return {
        "depth": 8,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "patch_size": PATCH_SIZE,
        "spatial_merge_size": _MERGE,
        "temporal_patch_size": _PAIR,
        "window_size": _WINDOW_PIXELS,
        "fullatt_block_indexes": [1, 3, 5, 7],
        "out_hidden_size": 192,
        "tokens_per_second": TOKENS_PER_SECOND,
    }


def _build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Return the configuration of the whole model for the words of ``tokenizer``."""
    ids = tokenizer.get_vocab()
    rotary = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 8, 8]}
    return Qwen2_5_VLConfig(
        vision_config=_vision_sizes(),
        text_config=language_sizes(tokenizer) | {"rope_parameters": rotary},
        image_token_id=ids[_IMAGE],
        video_token_id=ids[_VIDEO],
        vision_start_token_id=ids[_START],
        vision_end_token_id=ids[_END],
        tie_word_embeddings=True,
    )


def _patches(pixels: torch.Tensor) -> torch.Tensor:
    """Cut frames [T, 3, 96, 96] into patches as the processor does, [T / 2 * 144, 384], block of 2x2 by block."""
    size, half = PATCH_SIZE, TOKEN_GRID
    cut = pixels.reshape(-1, _PAIR, 3, half, _MERGE, size, half, _MERGE, size)
    return cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, 3 * _PAIR * size * size)


def _blocks_from_raster(patches: torch.Tensor) -> torch.Tensor:
    """Bring patches [N, 144, C] from raster order into blocks of 2x2 behind one another."""
    cut = patches.unflatten(1, (TOKEN_GRID, _MERGE, TOKEN_GRID, _MERGE))
    return cut.transpose(2, 3).flatten(1, 4)


def _raster_from_blocks(patches: torch.Tensor) -> torch.Tensor:
    """Undo `_blocks_from_raster`."""
    cut = patches.unflatten(1, (TOKEN_GRID, TOKEN_GRID, _MERGE, _MERGE))
    return cut.transpose(2, 3).flatten(1, 4)
