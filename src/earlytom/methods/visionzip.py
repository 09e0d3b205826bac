"""VisionZip: Longer is Better but Not Necessary in Vision Language Models (CVPR 2025, arXiv 2412.04467).

Every frame keeps the tokens that received the most attention in the last encoder layer ("dominant", 54 of 64) and a few
evenly spaced ones ("contextual") that gather all others by the similarity of the keys of that layer. This is the form
for SigLIP and video that all tables compare with: it acts on pooled tokens, every frame by itself; the original for
CLIP takes the attention of the CLS token in the penultimate layer, and SigLIP has no such token.

What differs from the published code (``compat="official"`` restores it): the budget is exact, shared out over the
frames as evenly as it goes; and the tokens of a frame go out in raster order, not the dominant ones first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from earlytom.errors import MethodError, shown
from earlytom.methods.base import Method, check_choice, check_count, check_layer, check_range
from earlytom.types import Decision, EncoderPlan, EncoderShape, Resource, Stage

if TYPE_CHECKING:
    from earlytom.types import VisualTokens

__all__ = ["VisionZip"]

# The tables' tokens for frames of 196: 16 + 4, 25 + 5, 33 + 7, 42 + 8. They follow no rounding of the ratio.
_PUBLISHED_COUNTS = {(196, 0.10): 20, (196, 0.15): 30, (196, 0.20): 40, (196, 0.25): 50}


@dataclass(frozen=True, kw_only=True)
class VisionZip(Method):
    """Dominant tokens by received attention, contextual tokens that gather the others.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1].
        dominant_share: share of a temporal grid's tokens that are dominant, in [0, 1); the number is rounded down.
        attention_layer: 0-based encoder layer whose attention and keys decide; ``None``: the last one.
        compat: ``"default"``; ``"official"``: the published number of tokens a temporal grid (20, 30, 40 and 50 of
            196 at retention 0.10 to 0.25, ``round(retention * tokens)`` otherwise), so that the total drifts from the
            budget, and in each grid the dominant tokens before the contextual ones.

    Raises:
        MethodError: a knob is out of range.
    """

    dominant_share: float = 54 / 64
    attention_layer: int | None = None
    compat: Literal["default", "official"] = "default"

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "visionzip"
    summary: ClassVar[str] = "most attended tokens, and a few that gather all others"
    paper: ClassVar[str] = "arXiv 2412.04467"
    stages: ClassVar[tuple[Stage, ...]] = ("tokens",)
    needs: ClassVar[frozenset[Resource]] = frozenset({"frame grid", "received attention", "keys"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("dominant_share", self.dominant_share, 0.0, 1.0)
        if self.dominant_share == 1.0:
            raise MethodError(f"dominant_share must be less than 1, got {shown(self.dominant_share)}")
        if self.attention_layer is not None:
            check_count("attention_layer", self.attention_layer, 0)
        check_choice("compat", self.compat, ("default", "official"))

    @property
    def exact_budget(self) -> bool:
        return self.compat != "official"

    @property
    def no_visual_tokens(self) -> str | None:
        return None if self.exact_budget else "compat='official' rounds frame by frame"

    def encoder_plan(self, encoder: EncoderShape) -> EncoderPlan:
        layer = encoder.last_global_layer if self.attention_layer is None else self.attention_layer
        check_layer("attention_layer", layer, encoder)
        return EncoderPlan(attention_layer=layer, keys=True)

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        from earlytom.ops import dominant_and_contextual

        if tokens.attention is None or tokens.keys is None:
            raise MethodError(
                "VisionZip needs received attention and keys of an encoder layer, but the encoder gave none"
            )
        counts = self._counts(tokens, budget)
        # At least one token of a frame must be there to gather what is not dominant.
        dominant = [min(int(count * self.dominant_share), max(0, count - 1)) for count in counts]
        contextual = [count - part for count, part in zip(counts, dominant, strict=True)]
        reduction = dominant_and_contextual(
            tokens.attention, tokens.keys, dominant, contextual, raster=self.compat == "default"
        )
        details = {"tokens_per_frame": counts, "dominant_tokens": dominant, "contextual_tokens": contextual}
        return Decision(reduction=reduction, details=details)

    def _counts(self, tokens: VisualTokens, budget: int) -> list[int]:
        """Tokens of each frame."""
        from earlytom.ops import exact_counts, rescaled_retention

        frames, left = tokens.features.shape[:2]
        if self.exact_budget:
            return exact_counts(budget, [True] * frames, left)
        per_frame = tokens.grid.tokens_per_frame
        retention = self.share(tokens.grid)
        if frames == tokens.grid.frames and (per_frame, retention) in _PUBLISHED_COUNTS:
            return [min(left, _PUBLISHED_COUNTS[per_frame, retention])] * frames
        # The published method knows no merged frames; they share what merging saved, as EarlyTom's do.
        rescaled = rescaled_retention(retention, tokens.grid.frames, frames)
        return [min(left, max(1, round(per_frame * rescaled)))] * frames
