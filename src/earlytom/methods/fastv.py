"""FastV: An Image is Worth 1/2 Tokens After Layer 2 (ECCV 2024, arXiv 2403.06764).

All visual tokens enter the language model. Before layer K (0-based) they are ranked by the attention that the last
prompt token pays them in layer K - 1, mean over the heads; ``round(n * (1 - R))`` of the n tokens stay, in their order
and at their positions, for the later layers and for all of decoding. Text is never dropped.

``retention`` is what the language model works on, as everywhere; here that is the mean over its L layers of the visual
tokens that they get. The first K layers get all of them, so that retention r takes the share
``1 - R = (r * L - K) / (L - K)`` behind them, which exists for r > K / L only. After a method that drops tokens
before the language model (``earlytom+fastv``) it is the same share of the tokens that come in.

What differs from the authors' code: one row of attention is computed by itself, so that every attention implementation
works, and layer K - 1 neither runs twice nor loses its causal mask. Their paper speaks of the attention received from
all tokens; their code takes the last one's, and so does this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from earlytom.errors import MethodError, shown
from earlytom.methods.base import Method, check_count, check_range
from earlytom.types import LanguagePlan, Stage

if TYPE_CHECKING:
    from earlytom.reduction import Reduction
    from earlytom.types import FrameGrid, LanguageStates

__all__ = ["FastV"]

_PUBLISHED_LAYER = 2


@dataclass(frozen=True, kw_only=True)
class FastV(Method):
    """Drop the visual tokens that the last prompt token attends to least, early in the language model.

    Attributes:
        retention: visual tokens that a layer of the language model gets, over those it would have got, mean over the
            layers, in (0, 1]. Without effect where ``ratio`` is given.
        layer: K, the 0-based layer before which tokens are dropped; ``None``: 2 as published, or 1 in a language model
            too shallow to come down to ``retention`` from there.
        ratio: R, the share of the visual tokens that is dropped, in [0, 1); ``None``: what ``retention`` takes.
            Published are 0.5 (the paper), 0.75 (the authors' configuration) and 0.8 (later papers' tables).

    Raises:
        MethodError: a knob is out of range, or ``ratio`` and ``retention`` are both given.
    """

    retention: float = 0.25
    layer: int | None = None
    ratio: float | None = None

    name: ClassVar[str] = "fastv"
    summary: ClassVar[str] = "pruning by the last query's attention, early in the language model"
    paper: ClassVar[str] = "arXiv 2403.06764"
    stages: ClassVar[tuple[Stage, ...]] = ("llm",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer is not None:
            check_count("layer", self.layer, 1)
        if self.ratio is None:
            return
        check_range("ratio", self.ratio, 0.0, 1.0)
        if self.ratio == 1.0:
            raise MethodError(f"ratio must be less than 1, got {shown(self.ratio)}")
        if self.retention != self.default_retention:
            raise MethodError(
                f"ratio ({self.ratio!r}) and retention ({shown(self.retention)}) both say how much FastV keeps; "
                "give one"
            )

    @property
    def retention_counts(self) -> bool:
        return self.ratio is None

    def budget(self, grid: FrameGrid) -> int:
        return grid.tokens

    def llm_plan(self, depth: int) -> LanguagePlan:
        if self.ratio == 0.0 or (self.ratio is None and self.retention == 1.0):
            return LanguagePlan()
        layer = self._layer(depth)
        if layer >= depth:
            raise MethodError(
                f"layer {layer} does not fit a language model of {depth} layers: allowed are 1 to {depth - 1}"
            )
        if self.ratio is None and self.retention * depth <= layer:
            raise MethodError(
                f"retention {self.retention!r} cannot be reached by dropping tokens before layer {layer} of {depth}: "
                f"the layers before it get every token, so retention must be above {layer / depth:.3f}; ask for more, "
                "or give ratio, the share that is dropped there"
            )
        return LanguagePlan(reduce_before=(layer,))

    def reduce_in_llm(self, states: LanguageStates, layer: int) -> Reduction | None:
        from earlytom.ops import highest_scores
        from earlytom.reduction import Reduction

        tokens, depth = states.attention.shape[0], states.depth
        share = (self.retention * depth - layer) / (depth - layer) if self.ratio is None else 1 - self.ratio
        return Reduction.keep(highest_scores(states.attention, max(1, round(tokens * share))), tokens)

    def _layer(self, depth: int) -> int:
        if self.layer is not None:
            return self.layer
        reachable = self.ratio is not None or self.retention * depth > _PUBLISHED_LAYER
        return _PUBLISHED_LAYER if reachable and depth > _PUBLISHED_LAYER else 1
