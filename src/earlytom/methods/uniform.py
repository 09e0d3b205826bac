"""Uniform subsampling: evenly spread tokens, or evenly spread frames (EarlyTom's Table 7 has it as a baseline).

The paper gives the result and no rule. Here k of S tokens are those at ``floor((i + 0.5) * S / k)``, the middles of k
equal stretches, and frames likewise. With tokens the budget is exact: the frames share it as evenly as it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from earlytom.methods.base import Method, check_switches
from earlytom.types import Decision, Resource, Stage

if TYPE_CHECKING:
    from earlytom.types import FrameGrid, VisualTokens

__all__ = ["UniformSubsampling"]


@dataclass(frozen=True, kw_only=True)
class UniformSubsampling(Method):
    """Keep tokens at even distances, in every temporal grid or by whole grids, whatever they show.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1].
        frames: keep whole temporal grids instead, ``round(retention * grids)`` of them but at least one. The budget is
            then that many whole grids, so that the retention which is reached differs from the one asked for by up to
            half a grid (more where less than half a grid was asked for).

    Raises:
        MethodError: a knob is out of range.
    """

    frames: bool = False

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "uniform"
    summary: ClassVar[str] = "tokens or whole frames at even distances (a baseline of the paper)"
    stages: ClassVar[tuple[Stage, ...]] = ("tokens",)
    needs: ClassVar[frozenset[Resource]] = frozenset({"frame grid"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_switches(self, "frames")

    @property
    def no_visual_tokens(self) -> str | None:
        return "frames=True keeps whole frames" if self.frames else None

    def budget(self, grid: FrameGrid) -> int:
        if not self.frames:
            return super().budget(grid)
        return max(1, round(self.share(grid) * grid.frames)) * grid.tokens_per_frame

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        import torch

        from earlytom.ops import evenly_spaced, exact_counts
        from earlytom.reduction import Reduction

        frames, per_frame = tokens.features.shape[:2]
        if self.frames:
            whole = evenly_spaced([budget // per_frame], frames)
            kept = (whole[:, None] * per_frame + torch.arange(per_frame)).flatten()
            counts = torch.bincount(whole, minlength=frames).mul(per_frame).tolist()
        else:
            counts = exact_counts(budget, [True] * frames, per_frame)
            kept = evenly_spaced(counts, per_frame)
        return Decision(reduction=Reduction.keep(kept, frames * per_frame), details={"tokens_per_frame": counts})
