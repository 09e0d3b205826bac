"""What training has to know of a model's architecture, and the architectures there are."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from earlytom.errors import EarlyTomError
from earlytom.testbed.architecture_llava_onevision import LlavaOnevisionArchitecture
from earlytom.testbed.architecture_qwen2_5_vl import Qwen25VLArchitecture
from earlytom.testbed.checkpoint import CHECKPOINT_FOLDER
from earlytom.testbed.labels import IntArray
from earlytom.testbed.scene_types import ByteArray


class Architecture(Protocol):
    """One architecture of the test model. A *grid* is what its encoder makes of one frame or of a few together.

    Frames are 96 by 96 pixels; a grid has 144 patches of 128 channels and 36 tokens of 192 in the language model. A
    prompt begins with the opening, the clip's tokens and a closing token; the questions follow.

    Attributes:
        name: As ``model_type`` in the configuration.
        folder: Where the checkpoint inside this package lies.
        frames_per_grid: Frames in a grid; 16 is a multiple of it.
        opening: The text before the clip's tokens.
    """

    name: str
    folder: Path
    frames_per_grid: int
    opening: str

    def build_processor(self) -> ProcessorMixin:
        """Return the stock processor."""

    def build_model(self, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> PreTrainedModel:
        """Return the untrained model in float32 for the words of ``tokenizer``, its weights drawn from ``seed``."""

    def build_encoder(self) -> PreTrainedModel:
        """Return the untrained encoder alone, its weights drawn from the global state of chance."""

    def initialise_encoder(self, encoder: Any) -> None:
        """Change fresh weights of the encoder in place where training from nothing needs it."""

    def unlabelled_parameters(self, encoder: Any) -> Iterable[nn.Parameter]:
        """Return the encoder's parameters behind the hidden states of ``encode``, which dense labels do not reach."""

    def encode(self, encoder: Any, frames: ByteArray, device: torch.device) -> torch.Tensor:
        """Encode frames, uint8 [T, 96, 96, 3].

        Returns:
            The patches before the projector, in raster order, float32 [T / frames_per_grid, 144, 128].
        """

    def encoder(self, model: Any) -> nn.Module:
        """Return the encoder of the model; it may hold the projector."""

    def projector(self, model: Any) -> nn.Module:
        """Return the projector of the model."""

    def lone_parameters(self, model: Any) -> list[nn.Parameter]:
        """Return the parameters that neither encoder, projector nor language model holds."""

    def language_model(self, model: Any) -> Any:
        """Return the language model without its head."""

    def clip_embeddings(self, model: Any, features: torch.Tensor) -> torch.Tensor:
        """Project encoded clips, float32 [B, G, 144, 128], to the language model's tokens [B, G * 36, 192]."""

    def closing_embedding(self, model: Any) -> torch.Tensor:
        """Return the embedding [192] of the token behind the clip's."""

    def prefix_positions(self, grids: int, generator: np.random.Generator, gaps: float) -> IntArray:
        """Return positions of opening, clip and closing, int64 [A, P] with A axes, as they may vary from clip to clip.

        Args:
            grids: Grids of the clip.
            generator: Where chance comes from.
            gaps: Share of the clips that get position gaps, in architectures that number tokens through.
        """


ARCHITECTURES: dict[str, Architecture] = {
    known.name: known for known in (LlavaOnevisionArchitecture(), Qwen25VLArchitecture())
}
DEFAULT_ARCHITECTURE = LlavaOnevisionArchitecture.name


def output_file(kind: str, name: str) -> Path:
    """Return where in this package measurements of a kind are kept, for the architecture of that name."""
    suffix = "" if name == DEFAULT_ARCHITECTURE else f"_{name}"
    return CHECKPOINT_FOLDER.with_name(f"{kind}{suffix}.json")


def find_architecture(name: str) -> Architecture:
    """Return an architecture by its name, the ``model_type`` of a configuration.

    Raises:
        EarlyTomError: there is none of this name.
    """
    if name not in ARCHITECTURES:
        raise EarlyTomError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {name!r}")
    return ARCHITECTURES[name]
