"""VidCom2: Video Compression Commander (EMNLP 2025, arXiv 2505.14454).

Before the language model, as vLLM ships it. A token is distinct when it is far from the mean of its clip and from the
mean of its frame, by gaussian kernels over the half of the channels that vary least. A frame whose tokens are unlike
the clip may keep more of them than the others, and each keeps its most distinct ones. What the frames' rounded numbers
come to is then fitted to the budget by distinctness over the whole clip; the authors' code has all but this.

What differs from vLLM's code (``compat="official"`` restores it): the budget is exact, where theirs cuts off in floats
and never goes below one token a frame. Either compares in float32, where vLLM does it in the model's dtype, keeps the
earlier one of equals, which vLLM leaves open, and takes values that are not finite for 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from earlytom.methods.base import Method, check_choice
from earlytom.types import Decision, Resource, Stage

if TYPE_CHECKING:
    from earlytom.types import FrameGrid, VisualTokens

__all__ = ["VidCom2"]


@dataclass(frozen=True, kw_only=True)
class VidCom2(Method):
    """Keep the tokens that are unlike their clip and their temporal grid, more of grids that are unlike the clip.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1]. vLLM's pruning
            rate is ``1 - retention``.
        compat: ``"default"``: an exact budget; ``"official"``: ``max(T, int(T * L * (1 - q)))`` as in vLLM, for T grids
            of L tokens and the pruning rate q.

    Raises:
        MethodError: a knob is out of range.
    """

    compat: Literal["default", "official"] = "default"

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "vidcom2"
    summary: ClassVar[str] = "tokens unlike their clip and their frame, more of frames unlike the clip (in vLLM)"
    paper: ClassVar[str] = "arXiv 2505.14454"
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
        return max(grid.frames, tokens_after_pruning(self.share(grid), grid.tokens))

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        from earlytom.ops import center_similarity, frame_shares, rescaled_retention, select_distinct
        from earlytom.reduction import Reduction

        frames, per_frame = tokens.features.shape[:2]
        to_clip, to_frame = center_similarity(tokens.features.detach())
        share = rescaled_retention(self.share(tokens.grid), tokens.grid.frames, frames)
        share = min(1.0, share * tokens.grid.tokens_per_frame / per_frame)  # of the cells that are left
        kept = select_distinct(to_clip + to_frame, frame_shares(to_clip, share), budget)
        return Decision(reduction=Reduction.keep(kept, frames * per_frame))
