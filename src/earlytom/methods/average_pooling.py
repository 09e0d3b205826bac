"""Average pooling: neighbouring tokens of a frame become their mean (EarlyTom's Table 7 has it as a baseline).

The paper gives the result and no rule. Here k of the S tokens of a frame are the means of adaptive bins, bin i being
``[floor(i * S / k), ceil((i + 1) * S / k))`` in raster order; where k does not divide S neighbouring bins share a
token. The frames share the budget as evenly as it goes, so that it is exact. A pooled token stands in the middle of its
bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from earlytom.methods.base import Method, check_choice
from earlytom.types import Decision, Resource, Stage

if TYPE_CHECKING:
    from earlytom.types import VisualTokens

__all__ = ["AveragePooling"]


@dataclass(frozen=True, kw_only=True)
class AveragePooling(Method):
    """Replace the tokens of every temporal grid by the means of equal stretches, or of equal rectangles.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1].
        axis: ``"raster"``: stretches of the raster sequence, an exact budget; ``"space"``: each temporal grid
            is pooled to the rows and columns nearest to its share of the budget, with about the sides' own proportion.
            Few numbers of tokens are rows times columns, so that budget is only approached.

    Raises:
        MethodError: a knob is out of range.
    """

    axis: Literal["raster", "space"] = "raster"

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "average-pooling"
    summary: ClassVar[str] = "means of neighbouring tokens (a baseline of the paper)"
    stages: ClassVar[tuple[Stage, ...]] = ("tokens",)
    needs: ClassVar[frozenset[Resource]] = frozenset({"frame grid", "whole grid"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("axis", self.axis, ("raster", "space"))

    @property
    def exact_budget(self) -> bool:
        return self.axis == "raster"

    @property
    def no_visual_tokens(self) -> str | None:
        return None if self.exact_budget else "axis='space' pools to grids, and few numbers of tokens are grids"

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        from earlytom.ops import adaptive_bins, exact_counts, nearest_grid

        frames, per_frame = tokens.features.shape[:2]
        if self.axis == "raster":
            sides = (1, per_frame)
            pooled = [(1, count) for count in exact_counts(budget, [True] * frames, per_frame)]
        else:
            sides = (tokens.grid.rows, tokens.grid.columns)
            pooled = [nearest_grid(budget / frames, sides)] * frames
        counts = [rows * columns for rows, columns in pooled]
        return Decision(reduction=adaptive_bins(pooled, sides), details={"tokens_per_frame": counts, "pooled": pooled})
