"""A method that lets some cells of each temporal grid go on alone, for the tests of what carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from earlytom import Method, Reduction
from earlytom.ops import best_cells
from earlytom.types import CellStates, Decision, EncoderPlan, EncoderShape, FrameGrid, FrameStates, VisualTokens

__all__ = ["SomeCells"]


@dataclass(frozen=True, kw_only=True)
class SomeCells(Method):
    """Keep the cells with the largest hidden states, then of these the tokens that receive the most attention.

    Attributes:
        share: of a grid's cells that go on behind ``layer``.
        layer: see above; the layers that see the whole grid in all tiny models are odd.
        merging: after layers 1 and ``layer`` each two neighbouring grids merge, as far as the budget allows.
        attention: whether attention received in ``layer`` is asked for and added.
        similarity: whether grids are compared.
        scores: the layer whose attention selects tokens; ``None``: the last one that sees the whole grid.
    """

    name: ClassVar[str] = "some-cells"
    stages: ClassVar = ("encoder", "tokens")
    needs: ClassVar = frozenset({"received attention"})

    share: float = 0.5
    layer: int = 3
    merging: bool = False
    attention: bool = False
    similarity: bool = False
    scores: int | None = None

    def encoder_plan(self, encoder: EncoderShape) -> EncoderPlan:
        return EncoderPlan(
            merge_layers=tuple(sorted({1, self.layer})) if self.merging else (),
            attention_layer=encoder.last_global_layer if self.scores is None else self.scores,
            frame_similarity=self.similarity,
            cell_layer=self.layer,
            cell_attention=self.attention,
            cell_similarity=self.similarity,
        )

    def cells_kept(self, grid: FrameGrid) -> int | None:
        return max(1, round(self.share * grid.tokens_per_frame))

    def merge_frames(self, states: FrameStates, layer: int, floor: int) -> Decision:
        grids = states.features.shape[0]
        left = -(-grids // 2)
        if left < floor or left == grids:
            return Decision()
        joined = torch.arange(grids) // 2
        weight = 1.0 / torch.bincount(joined)[joined]
        return Decision(reduction=Reduction.groups(joined, weight, torch.arange(left) * 2))

    def select_cells(self, states: CellStates, budget: int) -> Decision:
        scores = states.features.float().norm(dim=-1)
        if self.attention:
            assert states.attention is not None
            scores = scores + scores.mean() * states.attention / states.attention.mean()
        rows = best_cells(scores, states.kept, states.windows)
        details = {} if states.similarity is None else {"similarity": states.similarity.tolist()}
        return Decision(reduction=Reduction.keep(rows, scores.numel()), details=details)

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        order = torch.argsort(tokens.attention.flatten(), descending=True, stable=True)
        return Decision(reduction=Reduction.keep(order[:budget].sort().values, order.numel()))
