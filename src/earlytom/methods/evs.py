"""EVS: Efficient Video Sampling: Pruning Temporally Redundant Tokens for Faster VLM Inference (arXiv 2510.14624).

Before the language model, as vLLM ships it: all tokens of the first frame stay, then of the whole clip those that are
least similar to the token of the same place one frame before. What does not change is not seen twice; how many tokens a
frame keeps is up to the clip.

What differs from vLLM's code (``compat="official"`` restores it): the budget is exact, where theirs cuts off in floats
and never goes below the tokens of one frame. Where the budget is less than a frame the rule says nothing: here it is
then spread evenly over the first one, and the others give nothing. Either compares in float32, where vLLM does it in
the model's dtype, and takes tokens that are not finite for ones without any likeness, as those of zeros are; vLLM keeps
them before all others. Of equals the earlier one stays, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from earlytom.methods.base import Method, check_choice
from earlytom.types import Decision, Resource, Stage

if TYPE_CHECKING:
    from earlytom.types import FrameGrid, VisualTokens

__all__ = ["EVS"]


@dataclass(frozen=True, kw_only=True)
class EVS(Method):
    """Keep the first temporal grid, and of the others what changed most since the one before.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1]. vLLM's pruning
            rate is ``1 - retention``.
        compat: ``"default"``: an exact budget; ``"official"``: ``max(L, int(T * L * (1 - q)))`` as in vLLM, for T grids
            of L tokens and the pruning rate q.

    Raises:
        MethodError: a knob is out of range.
    """

    compat: Literal["default", "official"] = "default"

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "evs"
    summary: ClassVar[str] = "the first frame, and of the others what changed most since the one before (in vLLM)"
    paper: ClassVar[str] = "arXiv 2510.14624"
    stages: ClassVar[tuple[Stage, ...]] = ("tokens",)
    needs: ClassVar[frozenset[Resource]] = frozenset({"frame grid"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("compat", self.compat, ("default", "official"))

    @property
    def no_visual_tokens(self) -> str | None:
        return None if self.compat == "default" else "compat='official' counts by a pruning rate"

    def budget(self, grid: FrameGrid) -> int:
        from earlytom.ops import tokens_after_pruning

        if self.compat == "default":
            return super().budget(grid)
        return max(grid.tokens_per_frame, tokens_after_pruning(self.share(grid), grid.tokens))

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        from earlytom.ops import evenly_spaced, highest_scores, novelty_in_time
        from earlytom.reduction import Reduction

        frames, per_frame = tokens.features.shape[:2]
        if budget < per_frame:
            kept = evenly_spaced([budget], per_frame)
        else:
            novelty = novelty_in_time(tokens.features.detach())
            kept = highest_scores(novelty.flatten(), budget)
        return Decision(reduction=Reduction.keep(kept, frames * per_frame))
