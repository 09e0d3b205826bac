"""What a model family must answer, and what the encoder loop may ask back. A family never knows a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from earlytom.models.prompt import HostPrompt
    from earlytom.types import EncoderPlan, FrameGrid, PrefillInputs

__all__ = ["FrameVisitor", "ModelAdapter"]


class FrameVisitor(Protocol):
    """Called by an adapter's encoder loop; all clips of a call lie behind one another on the first dimension."""

    @property
    def plan(self) -> EncoderPlan:
        """Which layers to report."""

    def receive_attention(self, compute: Callable[[], Tensor]) -> None:
        """Take the [F, L] attention received in ``plan.attention_layer``, for the frames that entered it."""

    def after_layer(self, layer: int, hidden: Tensor, others: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Take [F, L, D] hidden states after ``layer``; return those of the frames that are left.

        ``others`` are earlier hidden states that the model will need besides; they are reduced in the same way.
        """


class ModelAdapter(Protocol):
    """One model family. Every method gets the stock model; nothing is stored on it."""

    def check(self, model: nn.Module) -> None:
        """Raise `earlytom.ModelError` when this model of the family cannot be compressed, saying why."""

    def encoder_depth(self, model: nn.Module) -> int:
        """Vision encoder layers that run for the features in use."""

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

    def encode(self, model: nn.Module, inputs: Mapping[str, Any], visitor: FrameVisitor) -> Tensor:
        """Run the tower's own blocks on the frames of all clips; [F, L, D] of the frames that are left."""

    def project(self, model: nn.Module, hidden: Tensor) -> Tensor:
        """Projector and pooling, as stock: [F, L, D] -> [F, P, C]."""

    def pool_attention(self, model: nn.Module, attention: Tensor) -> Tensor:
        """Resize [F, L] attention in the same way as features are pooled: [F, P]."""

    def assemble(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        prompt: HostPrompt,
        grids: Sequence[FrameGrid],
        kept: Sequence[Tensor],
    ) -> PrefillInputs:
        """Put the kept [K, C] tokens of each clip into the prompt; ``grids`` are the uncompressed clips."""

    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        """The language model's layers."""

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
