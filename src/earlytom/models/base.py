"""What a model family is: a host (one model, opened), its tower at work, and a call. It never knows a method.

A host is opened once for a model, a call once for a prompt, a tower once for a size of temporal grids; nothing of them
is kept on the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from earlytom.errors import ModelError
from earlytom.models.language_model import LanguageModel

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.layouts.prompt import HostPrompt
    from earlytom.stages import FrameBatch, FrameVisitor
    from earlytom.types import EncoderPlan, EncoderShape, FrameGrid, KeptTokens, PrefillInputs

__all__ = ["Host", "Tower", "VideoCall"]


class Host(ABC):
    """One stock model, opened: checked, and asked once what it is.

    Args:
        model: a model of the family.

    Attributes:
        model: the stock model.
        config: its configuration.
        shape: its vision encoder as methods may know it.
        language: its language model.

    Raises:
        ModelError: this model of the family cannot be compressed, saying why.
    """

    sequential_positions: ClassVar[bool] = True
    """Whether a token's position is its number in the sequence, so that tokens that are left inside the language model
    can be renumbered."""
    videos_among_images: ClassVar[bool] = False
    """Whether frames of a video are handed over as images, so that only `open` tells whether a call has a video."""

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, model.config
        self.check()
        self.shape: EncoderShape = self.encoder_shape()
        self.language = LanguageModel(
            model.model.language_model, sequential=self.sequential_positions, earliest=self.earliest_reduction()
        )

    def check(self) -> None:  # noqa: B027  # most families have nothing to check
        """Raise `earlytom.ModelError` when this model of the family cannot be compressed, saying why."""

    @abstractmethod
    def encoder_shape(self) -> EncoderShape:
        """The vision encoder as methods may know it; ``depth`` counts the layers that run for the features in use."""

    def earliest_reduction(self) -> int:
        """The first layer of the language model before which tokens may be reduced."""
        return 1

    def check_plan(self, plan: EncoderPlan) -> None:  # noqa: B027  # most families have nothing to add
        """Raise `ModelError` when a plan that fits the encoder's shape asks for what this very model cannot give."""

    @abstractmethod
    def open(self, inputs: Mapping[str, Any]) -> VideoCall | None:
        """A call that is to be compressed, its prompt copied to the host; ``None`` when there is no video in it.

        Raises:
            CompressionError: the prompt promises videos that are not there, or holds what cannot go with them.
            ModelError: weights that are read here have been offloaded.
        """

    @abstractmethod
    def tower(self, grid: FrameGrid) -> Tower:
        """The vision encoder for temporal grids of the size of ``grid``; no prompt is needed."""


class Tower(ABC):
    """A vision encoder at work on temporal grids of one size.

    Args:
        host: of the model.
        grid: a clip of such grids.
    """

    def __init__(self, host: Host, grid: FrameGrid) -> None:
        self.model, self.config, self.grid, self.depth = host.model, host.config, grid, host.shape.depth

    @abstractmethod
    def embed(self, pixels: Tensor, grids_per_clip: tuple[int, ...]) -> FrameBatch:
        """What enters the first layer.

        Args:
            pixels: [F, ...] as `VideoCall.pixels` gives them.
            grids_per_clip: the temporal grids of each clip.

        Where ``EncoderShape.cells`` says that cells can go on alone the batch says where they lie (its
        ``cell_layout``). A batch of which only some ``cells`` are left then has their patches alone, in `run_layer`
        and in `project`, which gives [F, K, C].
        """

    @abstractmethod
    def run_layer(self, index: int, batch: FrameBatch, visitor: FrameVisitor) -> FrameBatch:
        """Run one of the tower's own blocks; tell the visitor what it wants to know of this layer.

        The visitor sees the tokens of all grids in one and the same order, whichever it is.
        """

    def run(self, batch: FrameBatch, layers: range, visitor: FrameVisitor) -> FrameBatch:
        """Run some layers, the visitor's changes after each included."""
        for index in layers:
            batch = visitor.after_layer(index, self.run_layer(index, batch, visitor))
        if layers.stop == self.depth and visitor.requests.pooling_head:
            visitor.receive_pooling(partial(self.pooling_head, batch))
        return batch

    @abstractmethod
    def project(self, batch: FrameBatch) -> Tensor:
        """Projector and pooling, as stock: what left the last layer to [F, P, C] in raster order.

        Where the language model gets features of earlier layers besides, these follow behind on the last dimension
        (``EncoderShape.feature_sets``): every selection and merge acts on all alike, methods see the final ones only.
        """

    @abstractmethod
    def pool_attention(self, attention: Tensor) -> Tensor:
        """Resize [F, L] attention in the same way as features are pooled: [F, P] in raster order."""

    def project_tokens(self, batch: FrameBatch) -> Tensor:
        """The projector alone, for merged tokens that are no grid any more: [F, K, C] of [F, K, D] hidden states.

        Only where ``EncoderShape.token_merging`` says that tokens can merge.
        """
        raise ModelError(
            f"the projector of {type(self.model).__name__} takes blocks of neighbouring patches, which merged tokens "
            "are not"
        )

    def pooling_head(self, batch: FrameBatch) -> tuple[Tensor, Tensor]:
        """[F, L] attention and [F, E] output of the pooling head, only where ``EncoderShape.pooling_head`` has one."""
        raise ModelError(f"the vision tower of {type(self.model).__name__} has no attention-pooling head")


class VideoCall(ABC):
    """A call with videos, its prompt read once.

    Args:
        host: of the model.
        inputs: of the call, by name; whoever opened it may replace what only travels on to stock.
        prompt: on the host.
    """

    def __init__(self, host: Host, inputs: Mapping[str, Any], prompt: HostPrompt) -> None:
        self.host, self.model, self.config = host, host.model, host.config
        self.inputs, self.prompt = inputs, prompt

    @cached_property
    def grids(self) -> list[FrameGrid]:
        """The uncompressed clips, from shapes alone. Raises `CompressionError`, see `read_grids`."""
        return self.read_grids()

    @property
    def repeats_one_clip(self) -> bool:
        """Whether all clips are one in memory, as ``pixels[:1].expand(n, ...)`` makes them; no value is read."""
        pixels = self.inputs.get("pixel_values_videos")
        if pixels is None or len(self.grids) < 2 or len(set(self.grids)) > 1:
            return False
        return bool(pixels.shape[0] == len(self.grids) and pixels.stride(0) == 0)

    @abstractmethod
    def read_grids(self) -> list[FrameGrid]:
        """The uncompressed clips, from shapes alone; called once.

        Raises:
            CompressionError: the prompt's placeholders do not match its videos.
        """

    @abstractmethod
    def pixels(self, clips: Sequence[int]) -> Tensor:
        """[F, ...] the grids of some clips, ascending numbers, behind one another; their grids have one size."""

    @abstractmethod
    def assemble(self, kept: Sequence[KeptTokens]) -> PrefillInputs:
        """Put the kept tokens of each clip into the prompt."""
