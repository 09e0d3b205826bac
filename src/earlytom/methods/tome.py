"""ToMe: Token Merging: Your ViT But Faster (ICLR 2023, arXiv 2210.09461), inside the vision encoder of a video model.

In every encoder layer, between attention and MLP, the most similar tokens of each frame merge by bipartite soft
matching of their keys (mean over the heads): tokens at even positions choose among those at odd ones, and the best
choices merge into their mean by size. From then on the frame has fewer tokens. Proportional attention adds the
logarithm of a token's size to the logits of its key, as if all that went into it were still there.

A video model pools its encoder's output on a square grid, and merged tokens lie on none. Two readings:

- ``unmerge=True``: the encoder is left with ``round(retention * patches)`` tokens of a frame. Behind its last layer
  every patch gets the token that it went into; projector and pooling are stock. Then the pooled tokens are matched
  again, on their own features, until the budget is reached: the copies of one token, being most similar, find each
  other. The budget is exact, but for one token of each frame at least.
- ``unmerge=False``: the encoder is left with as many tokens as the language model is to get, and they go through the
  projector and into it as they are, without any pooling. Fewest tokens in the encoder, but nothing else can select
  from them, and all frames have the same share, ``round(retention * P)`` tokens where P would be pooled ones: over a
  clip that can be off by half a token a frame.

With retention 1 nothing merges in either.

What differs from the authors' code: tokens that are left stand in the order of their first patch, where theirs stand in
the order of their scores (a language model reads them in order); of a number of merges that the later layers are too
short for, earlier ones take over. The schedule falls from 1.5 to 0.5 of its mean, as where the paper of EarlyTom ported
it to this encoder; that port protects patch 0, has no proportional attention, and reshapes what is left (121 tokens) to
a grid in spite of its order, which is not reproduced here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from earlytom.errors import MethodError
from earlytom.methods.base import Method, check_range, check_switches
from earlytom.types import Decision, EncoderPlan, EncoderShape, Resource, Stage

if TYPE_CHECKING:
    from earlytom.reduction import Reduction
    from earlytom.types import FrameGrid, TokenStates, VisualTokens

__all__ = ["ToMe"]


@dataclass(frozen=True, kw_only=True)
class ToMe(Method):
    """Merge similar tokens of each temporal grid in every layer of the vision encoder.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1]; with ``unmerge``
            also the share of a temporal grid's tokens that the encoder is left with.
        visual_tokens: instead of ``retention``, the number of tokens that is kept of every clip; a clip of more
            temporal grids is refused, since a token of each is left.
        proportional_attention: a merged token draws as much attention as what went into it. The vision encoder then
            needs the attention implementation sdpa or eager.
        unmerge: patches take their places again behind the encoder, for its stock pooling, and pooled tokens merge
            again; ``False``: merged tokens go into the language model unpooled.
        inflection: how merging spreads over the layers, in [-1, 1]: from ``1 - inflection`` of its mean in the first to
            ``1 + inflection`` in the last; -1 merges early, 0 alike everywhere.

    Raises:
        MethodError: a knob is out of range.
    """

    proportional_attention: bool = True
    unmerge: bool = True
    inflection: float = -0.5

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "tome"
    summary: ClassVar[str] = "merging of similar tokens in every layer of the vision encoder"
    paper: ClassVar[str] = "arXiv 2210.09461"
    stages: ClassVar[tuple[Stage, ...]] = ("encoder", "tokens")
    breaks: ClassVar[frozenset[Resource]] = frozenset({"frame similarity"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_switches(self, "proportional_attention", "unmerge")
        check_range("inflection", self.inflection, -1.0, 1.0)

    @property
    def no_visual_tokens(self) -> str | None:
        return None if self.unmerge else "unmerge=False leaves equally many tokens of every frame"

    def budget(self, grid: FrameGrid) -> int:
        if not self.unmerge:
            return grid.frames * self._left(grid, grid.tokens_per_frame)
        budget = super().budget(grid)
        if self.visual_tokens is not None and budget < grid.frames:
            raise MethodError(
                f"visual_tokens ({self.visual_tokens}) must be at least the {grid.frames} frames of the clip: method "
                f"{self.name!r} leaves a token of each"
            )
        return max(grid.frames, budget)

    def encoder_plan(self, encoder: EncoderShape) -> EncoderPlan:
        if self.retention == 1.0:
            return EncoderPlan()
        return EncoderPlan(
            token_layers=tuple(range(encoder.depth)),
            proportional_attention=self.proportional_attention,
            unmerge=self.unmerge,
        )

    def merge_tokens(self, states: TokenStates, layer: int) -> Reduction | None:
        from earlytom.ops import match_tokens, matched_means, merge_schedule

        left = self._left(states.grid, states.patches if self.unmerge else states.grid.tokens_per_frame)
        try:
            schedule = merge_schedule(states.patches - left, states.patches, states.depth, self.inflection)
        except ValueError as error:
            raise MethodError(
                f"retention {self.share(states.grid):.4g} asks for {left} of the {states.patches} tokens of a frame: "
                f"{error}; ask for more"
            ) from error
        count = schedule[layer]
        if not count:
            return None
        return matched_means(match_tokens(states.keys, count), states.sizes, states.keys.shape[1] - count)

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        from earlytom.ops import exact_counts, merge_down

        frames, per_frame = tokens.features.shape[:2]
        counts = exact_counts(budget, [True] * frames, per_frame)
        if budget == frames * per_frame:
            return Decision(details={"tokens_per_frame": counts})
        return Decision(reduction=merge_down(tokens.features, counts), details={"tokens_per_frame": counts})

    def _left(self, grid: FrameGrid, tokens: int) -> int:
        """How many of a temporal grid's ``tokens`` are left."""
        from earlytom.ops import token_budget

        return token_budget(self.share(grid), tokens)
