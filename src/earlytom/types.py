"""The values that travel between methods, model adapters and the runtime. Nothing here knows a model or a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.reduction import Reduction

__all__ = [
    "Decision",
    "EncoderPlan",
    "FrameGrid",
    "FrameStates",
    "LanguagePlan",
    "PrefillInputs",
    "Variant",
    "VisualTokens",
]

Variant = Literal["default", "official", "paper"]
"""The published readings of EarlyTom's frame merging, see `earlytom.ops.merging`."""


@dataclass(frozen=True, kw_only=True)
class FrameGrid:
    """The visual tokens of one uncompressed clip: ``frames`` frames of ``rows`` x ``columns`` pooled tokens."""

    frames: int
    rows: int
    columns: int

    @property
    def tokens_per_frame(self) -> int:
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        return self.frames * self.tokens_per_frame


@dataclass(frozen=True, kw_only=True)
class EncoderPlan:
    """What a method wants from the vision encoder.

    Attributes:
        merge_layers: 0-based encoder layers after which ``merge_frames`` is called, ascending.
        attention_layer: the layer whose received attention is wanted, or ``None``.
        frame_similarity: whether ``VisualTokens.frame_similarity`` is wanted (taken after the last merge layer).
    """

    merge_layers: tuple[int, ...] = ()
    attention_layer: int | None = None
    frame_similarity: bool = False


@dataclass(frozen=True, kw_only=True)
class LanguagePlan:
    """What a method wants from the language model: the 0-based layers before which ``reduce_in_llm`` is called."""

    reduce_before: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FrameStates:
    """The frames of one clip inside the vision encoder.

    Attributes:
        features: [N, L, D] hidden states of the N frames that are left, model dtype.
        attention: [N, L] attention received by each token, float32, or ``None``.
        origin: how the N frames came from the B input frames.
    """

    features: Tensor
    attention: Tensor | None
    origin: Reduction


@dataclass(frozen=True, kw_only=True)
class VisualTokens:
    """The visual tokens of one clip after projection and pooling, as the language model would get them.

    Attributes:
        features: [N, P, D] features, model dtype.
        attention: [N, P] attention received, resized in the same way as the features, float32, or ``None``.
        grid: shape of the *uncompressed* clip (``grid.frames`` is B, not N).
        origin: how the N frames came from the B input frames.
        frame_similarity: [N, N] similarity of the frames that are left, float32 on the host, or ``None``.
    """

    features: Tensor
    attention: Tensor | None
    grid: FrameGrid
    origin: Reduction
    frame_similarity: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a method decided at one place: a reduction (``None``: leave everything) and what the trace should show."""

    reduction: Reduction | None = None
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PrefillInputs:
    """What stock ``generate()`` receives instead of the processor's output.

    ``arguments`` holds the *original* ``input_ids`` (so that returned ids, lengths, penalties and streamers see the
    prompt that the user wrote) beside the shortened ``inputs_embeds`` and ``attention_mask``, and everything else the
    caller passed, without the pixels.

    Attributes:
        arguments: keyword arguments for ``model.generate``.
        visual_positions: for each sample the positions of its video tokens in the shortened sequence, ascending.
        dropped: for each sample the number of prompt tokens that were removed.
    """

    arguments: dict[str, Any]
    visual_positions: tuple[tuple[int, ...], ...]
    dropped: tuple[int, ...]
