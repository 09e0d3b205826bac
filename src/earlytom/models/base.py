"""What a model family must answer, and what the encoder loop may ask back. A family never knows a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from earlytom.models.prompt import HostPrompt
    from earlytom.types import EncoderPlan, EncoderShape, FrameGrid, KeptTokens, PrefillInputs

__all__ = ["FrameVisitor", "ModelAdapter"]


class FrameVisitor(Protocol):
    """Called by an adapter's encoder loop; all clips of a call lie behind one another on the first dimension."""

    @property
    def plan(self) -> EncoderPlan:
        """Which layers to report."""

    def receive_pixels(self, pixels: Tensor) -> None:
        """Take the [F, ...] pixels of all frames, before the first layer; only where ``plan.fingerprint`` asks."""

    def receive_attention(self, compute: Callable[[], Tensor]) -> None:
        """Take the [F, L] attention received in ``plan.attention_layer``, for the frames that entered it."""

    def receive_keys(self, compute: Callable[[], Tensor]) -> None:
        """Take the [F, L, E] head-mean keys of ``plan.attention_layer``; called only where ``plan.keys`` asks."""

    def receive_pooling(self, compute: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """Take the [F, L] attention and the [F, E] output of the pooling head, for the frames that are left.

        Called behind the last layer, only where ``plan.pooling_head`` asks.
        """

    @property
    def token_sizes(self) -> Tensor | None:
        """[F, L] float32, the patches that each token stands for; ``None`` as long as none have merged."""

    def merge_tokens(
        self, layer: int, hidden: Tensor, keys: Tensor, others: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Take [F, L, D] hidden states between attention and MLP of a layer in ``plan.token_layers``.

        Args:
            layer: the layer.
            hidden: hidden states.
            keys: [F, L, E] the layer's keys, mean over its heads, float32.
            others: earlier hidden states that the model will need besides; they are merged in the same way.

        Returns:
            Hidden states of the tokens that are left, equally many of each frame, and the others.
        """

    def after_layer(self, layer: int, hidden: Tensor, others: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Take [F, L, D] hidden states after ``layer``; return those of the frames that are left.

        ``others`` are earlier hidden states that the model will need besides; they are reduced in the same way.
        """


class ModelAdapter(Protocol):
    """One model family. Every method gets the stock model; nothing is stored on it.

    Attributes:
        clip_arguments: the tensors of a call whose first dimension is the clip.
        sequential_positions: whether a token's position is its number in the sequence, so that tokens that are left
            inside the language model can be renumbered.
    """

    clip_arguments: tuple[str, ...]
    sequential_positions: bool

    def check(self, model: nn.Module) -> None:
        """Raise `earlytom.ModelError` when this model of the family cannot be compressed, saying why."""

    def encoder(self, model: nn.Module) -> EncoderShape:
        """The vision encoder as methods may know it; ``depth`` counts the layers that run for the features in use."""

    def prompt(self, model: nn.Module, inputs: Mapping[str, Any]) -> HostPrompt | None:
        """The prompt of a call that is to be compressed, on the host; ``None`` when there is no video in it.

        Raises:
            CompressionError: the prompt promises videos that are not there, or holds what cannot go with them.
        """

    def grids(self, model: nn.Module, inputs: Mapping[str, Any], prompt: HostPrompt) -> list[FrameGrid]:
        """The uncompressed clips of a call, from shapes alone.

        Raises:
            CompressionError: the prompt's placeholders do not match its videos.
        """

    def encode(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        grids: Sequence[FrameGrid],
        clips: Sequence[int],
        visitor: FrameVisitor,
    ) -> Tensor:
        """Run the tower's own blocks on the frames of some clips; [F, L, D] of the frames that are left.

        Args:
            model: the model.
            inputs: of the call.
            grids: all uncompressed clips of the call.
            clips: the numbers of those to encode, ascending; their frames have one size.
            visitor: who merges; it sees the tokens of all frames in one and the same order, whichever it is.
        """

    def project(self, model: nn.Module, hidden: Tensor, grid: FrameGrid) -> Tensor:
        """Projector and pooling, as stock: what `encode` gave, [F, L, D], to [F, P, C] in raster order.

        Where the language model gets features of earlier layers besides, these follow behind on the last dimension
        (``EncoderShape.feature_sets``): every selection and merge acts on all alike, methods see the final ones only.
        """

    def project_tokens(self, model: nn.Module, hidden: Tensor) -> Tensor:
        """The projector alone, for merged tokens that are no grid any more: [F, K, D] -> [F, K, C]."""

    def pool_attention(self, model: nn.Module, attention: Tensor, grid: FrameGrid) -> Tensor:
        """Resize [F, L] attention in the same way as features are pooled: [F, P] in raster order."""

    def assemble(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        prompt: HostPrompt,
        grids: Sequence[FrameGrid],
        kept: Sequence[KeptTokens],
    ) -> PrefillInputs:
        """Put the kept tokens of each clip into the prompt; ``grids`` are the uncompressed clips."""

    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        """The language model's layers."""

    def earliest_reduction(self, model: nn.Module) -> int:
        """The first layer of the language model before which tokens may be reduced."""

    def query_and_keys(
        self, layer: nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        """Query of one position of each sample, and all keys, of a decoder layer about to run.

        Args:
            layer: decoder layer.
            hidden: [B, S, D] hidden states that enter it.
            cos: [1 or B, S, E] rotary embedding; ``sin`` likewise.
            last: [B] int64, the position of the query.

        Returns:
            [B, H, E] queries, [B, G, S, E] keys (both rotated), and the logits' scale.
        """

    def rotary_embedding(self, model: nn.Module, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the language model's rotary embedding.

        Args:
            model: the model.
            positions: [B, S] int64.
            like: a tensor whose dtype and device they get.

        Returns:
            [B, S, E] each.
        """
