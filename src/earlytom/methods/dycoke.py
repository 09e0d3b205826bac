"""DyCoke: Dynamic Compression of Tokens for Fast Video Large Language Models (CVPR 2025, arXiv 2411.15024).

Its temporal token merging, before the language model: of four frames the first stays whole; of the second and third,
compared with the first, and of the fourth, compared with the third, those tokens stay that are least similar to the
token at the same place. Nothing is averaged, the others are dropped. One frame in four stays whole, so a quarter of the
tokens is the least that the method can keep, and the most that the paper's tables prune.

What differs from the authors' code (``compat="official"`` restores it): the budget is shared out exactly, kept tokens
stand in raster order (theirs: by similarity), the last group is pruned like the others (theirs keeps its third frame
whole), an odd last frame is not lost, and clips of four frames or fewer are compressed (theirs fails). Where the number
of frames is not a multiple of four, the frames that stay whole may alone be more than the retention asked for; the
budget then says so beforehand.

The paper's second part, which chooses anew at every decoding step which visual tokens in the cache the later layers
attend to, is not offered. It acts on no token before the second one, its cache does not shrink, and the interface asks
a method once, at prefill, not at every step. The published accuracies of multiple-choice questions and every time to
first token rest on the part that is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from earlytom.errors import MethodError
from earlytom.methods.base import Method, check_choice
from earlytom.types import Decision, Resource, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.types import FrameGrid, VisualTokens

__all__ = ["DyCoke"]

_GROUP = 4
_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class DyCoke(Method):
    """Keep one frame in four, and of the others what changed most.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in [0.25, 1]. The paper's
            pruning rate is ``(4 - 4 * retention) / 3``.
        compat: ``"default"``; ``"official"``: the authors' code, edges, rounding and order included.

    Raises:
        MethodError: a knob is out of range.
    """

    retention: float = 0.25
    compat: Literal["default", "official"] = "default"

    name: ClassVar[str] = "dycoke"
    summary: ClassVar[str] = "one frame in four whole, of the others the tokens that changed most"
    paper: ClassVar[str] = "arXiv 2411.15024"
    stages: ClassVar[tuple[Stage, ...]] = ("tokens",)
    needs: ClassVar[frozenset[Resource]] = frozenset({"frame grid", "whole grid"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retention < 1 / _GROUP:
            raise MethodError(
                f"method {self.name!r} keeps one frame in four whole, so retention must be at least 0.25, got "
                f"{self.retention!r}"
            )
        check_choice("compat", self.compat, ("default", "official"))

    @property
    def exact_budget(self) -> bool:
        return self.compat == "default"

    @property
    def no_visual_tokens(self) -> str | None:
        return f"it keeps one frame in {_GROUP} whole, however many tokens that are"

    def steps_aside(self, grid: FrameGrid) -> str | None:
        if self.compat == "official" and grid.frames <= _GROUP:
            return f"the authors' code fails for clips of {_GROUP} frames or fewer, or as many temporal grids"
        return None

    def budget(self, grid: FrameGrid) -> int:
        if self.steps_aside(grid):
            return grid.tokens
        if self.compat == "official":
            return sum(self._official_counts(grid.frames, grid.tokens_per_frame))
        return max(super().budget(grid), -(-grid.frames // _GROUP) * grid.tokens_per_frame)

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        from earlytom.ops import select_by_frame
        from earlytom.reduction import Reduction

        frames, per_frame = tokens.features.shape[:2]
        novelty = -_similarity_to_reference(tokens.features.detach())
        if self.compat == "official":
            counts = self._official_counts(frames, per_frame)
            kept = _by_novelty(novelty, counts)
        else:
            counts = _exact_counts(frames, per_frame, budget)
            kept = select_by_frame(novelty, counts, [False] * frames)
        groups = [(first, min(first + _GROUP, frames) - 1) for first in range(0, frames, _GROUP)]
        details = {"segments": groups, "tokens_per_frame": counts}
        return Decision(reduction=Reduction.keep(kept, frames * per_frame), details=details)

    def _official_counts(self, frames: int, per_frame: int) -> list[int]:
        """Tokens of each frame in the authors' code, ``int((1 - k) * P)`` in the frames that are pruned."""
        # Their knob is k: 0.7 for a retention of 0.475, not the 0.7000000000000001 that the division gives.
        rate = round((4 - 4 * self.retention) / 3, _DIGITS)
        pruned = min(per_frame, int((1 - rate) * per_frame))
        compared = {*range(1, frames, 2), *range(2, frames - 2, _GROUP)}
        counts = [pruned if frame in compared else per_frame for frame in range(frames)]
        return [*counts[:-1], 0] if frames % 2 else counts


def _exact_counts(frames: int, per_frame: int, budget: int) -> list[int]:
    """One frame in four whole; the others share the rest of the budget."""
    from earlytom.ops import exact_counts

    whole = -(-frames // _GROUP)
    shared = iter(
        exact_counts(budget - whole * per_frame, [True] * (frames - whole), per_frame) if frames > whole else []
    )
    return [next(shared) if frame % _GROUP else per_frame for frame in range(frames)]


def _similarity_to_reference(features: Tensor) -> Tensor:
    """[N, P] float32: cosine with the token at the same place of the frame that each frame is compared with."""
    import torch

    from earlytom.ops import paired_cosines

    cosines = torch.zeros(features.shape[:2], dtype=torch.float32, device=features.device)
    for step, first in ((2, 1), (_GROUP, 2)):
        compared = features[first::step]
        cosines[first::step] = paired_cosines(features[::step][: len(compared)], compared)
    return cosines


def _by_novelty(novelty: Tensor, counts: list[int]) -> Tensor:
    """Indices into the flattened tokens: frame by frame, in whole frames raster order, in others the newest first."""
    import torch

    from earlytom.ops import kept_indices

    frames, per_frame = novelty.shape
    order = torch.sort(novelty, dim=1, descending=True, stable=True).indices
    limits = torch.tensor(counts).to(novelty.device, non_blocking=True)[:, None]
    place = torch.arange(per_frame, device=novelty.device)
    order = torch.where(limits == per_frame, place, order)
    index = order + per_frame * torch.arange(frames, device=novelty.device)[:, None]
    return index.flatten()[kept_indices(place < limits, sum(counts))]
