"""What a loop over the layers of a vision encoder tells, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.stages.frame_batch import FrameBatch
    from earlytom.types import EncoderPlan

__all__ = ["FrameVisitor", "LayerRequests", "PassiveVisitor"]


@dataclass(frozen=True, kw_only=True)
class LayerRequests:
    """What a visitor wants to be told, and where it may change what goes on; see `earlytom.types.EncoderPlan`.

    Attributes:
        merge_layers: the layers after which temporal grids may merge.
        similarity_layers: the layers after which grids are compared for the selection.
        attention_layers: the layers whose received attention is wanted.
        key_layers: the layers whose keys are wanted.
        token_layers: the layers inside which tokens may merge.
        cell_layers: the layers after which some cells of each grid go on alone.
        proportional_attention: whether merged tokens draw as much attention as what went into them.
        pooling_head: whether the attention and the output of the pooling head are wanted.
        fingerprint: whether the pixels are.
    """

    merge_layers: frozenset[int] = frozenset()
    similarity_layers: frozenset[int] = frozenset()
    attention_layers: frozenset[int] = frozenset()
    key_layers: frozenset[int] = frozenset()
    token_layers: frozenset[int] = frozenset()
    cell_layers: frozenset[int] = frozenset()
    proportional_attention: bool = False
    pooling_head: bool = False
    fingerprint: bool = False

    @property
    def barriers(self) -> list[int]:
        """The layers after which all grids of a clip must be there, ascending; others they may pass in parts."""
        return sorted(self.merge_layers | self.similarity_layers | self.cell_layers)

    @classmethod
    def of(cls, plans: Iterable[EncoderPlan]) -> LayerRequests:
        """Everything that some plans want together."""
        plans = list(plans)
        ranked = {plan.cell_layer for plan in plans if plan.cell_layer is not None and plan.cell_attention}
        scored = [(plan.attention_layer, plan.keys) for plan in plans if plan.attention_layer is not None]
        return cls(
            merge_layers=frozenset(layer for plan in plans for layer in plan.merge_layers),
            similarity_layers=frozenset(plan.similarity_layer for plan in plans if plan.similarity_layer is not None),
            attention_layers=frozenset(ranked.union(layer for layer, _ in scored)),
            key_layers=frozenset(layer for layer, keys in scored if keys),
            token_layers=frozenset(layer for plan in plans for layer in plan.token_layers),
            cell_layers=frozenset(plan.cell_layer for plan in plans if plan.cell_layer is not None),
            proportional_attention=any(plan.proportional_attention for plan in plans),
            pooling_head=any(plan.pooling_head for plan in plans),
            fingerprint=any(plan.fingerprint for plan in plans),
        )


class FrameVisitor(Protocol):
    """Called by a loop over an encoder's layers; all clips of a batch lie behind one another on the first dimension."""

    @property
    def requests(self) -> LayerRequests:
        """What to report."""

    def receive_pixels(self, pixels: Tensor) -> None:
        """Take the [F, ...] pixels of all grids, before the first layer; only where ``requests.fingerprint`` asks."""

    def receive_attention(self, layer: int, compute: Callable[[], Tensor]) -> None:
        """Take the [F, L] attention received in one of ``requests.attention_layers``, of the grids that entered it."""

    def receive_keys(self, layer: int, compute: Callable[[], Tensor]) -> None:
        """Take the [F, L, E] keys, mean over the heads, of one of ``requests.key_layers``."""

    def receive_pooling(self, compute: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """Take the [F, L] attention and the [F, E] output of the pooling head, for the grids that are left.

        Called behind the last layer, only where ``requests.pooling_head`` asks.
        """

    @property
    def token_sizes(self) -> Tensor | None:
        """[F, L] float32, the patches that each token stands for; ``None`` as long as none have merged."""

    def merge_tokens(self, layer: int, batch: FrameBatch, keys: Tensor) -> FrameBatch:
        """Take hidden states between attention and MLP of one of ``requests.token_layers``.

        Args:
            layer: the layer.
            batch: hidden states.
            keys: [F, L, E] the layer's keys, mean over its heads, float32.

        Returns:
            What is left, equally many tokens of each grid.
        """

    def after_layer(self, layer: int, batch: FrameBatch) -> FrameBatch:
        """Take the hidden states after ``layer``; return those of the grids, and of their cells, that are left.

        A loop calls it after every layer, or at least after those in ``requests.barriers`` and the last one: nothing
        changes behind the others.
        """


class PassiveVisitor:
    """A `FrameVisitor` that changes nothing and keeps nothing, for those who only look on."""

    token_sizes: Tensor | None = None

    def __init__(self, requests: LayerRequests | None = None) -> None:
        self.requests = requests or LayerRequests()

    def receive_pixels(self, pixels: Tensor) -> None:
        """Not kept."""

    def receive_attention(self, layer: int, compute: Callable[[], Tensor]) -> None:
        """Not computed."""

    def receive_keys(self, layer: int, compute: Callable[[], Tensor]) -> None:
        """Not computed."""

    def receive_pooling(self, compute: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """Not computed."""

    def merge_tokens(self, layer: int, batch: FrameBatch, keys: Tensor) -> FrameBatch:
        """None merge."""
        return batch

    def after_layer(self, layer: int, batch: FrameBatch) -> FrameBatch:
        """All are left."""
        return batch
