"""Random selection: the control that every selection by content must beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from earlytom.methods.base import Method, check_count
from earlytom.types import Decision, EncoderPlan, EncoderShape, Resource, Stage

if TYPE_CHECKING:
    from earlytom.types import VisualTokens

__all__ = ["RandomSelection"]


@dataclass(frozen=True, kw_only=True)
class RandomSelection(Method):
    """Keep tokens drawn uniformly from every frame, as many from each as from the others; the budget is exact.

    The draw is made on the host by a generator of its own. It depends on ``seed``, on the clip's pixels
    (`earlytom.ops.fingerprint`) and on its shape (frames that are left, tokens a frame): a clip keeps the same places
    in every run, on every device, in float32 and bfloat16, alone and beside others; another clip keeps others.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1].
        seed: seed of the draw, at least 0.

    Raises:
        MethodError: a knob is out of range.
    """

    seed: int = 0

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "tokens drawn at random from every frame (a control)"
    stages: ClassVar[tuple[Stage, ...]] = ("tokens",)
    needs: ClassVar[frozenset[Resource]] = frozenset({"frame grid"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("seed", self.seed, 0)

    def encoder_plan(self, encoder: EncoderShape) -> EncoderPlan:
        return EncoderPlan(fingerprint=True)

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        import torch

        from earlytom.ops import exact_counts, select_by_frame
        from earlytom.reduction import Reduction

        frames, per_frame = tokens.features.shape[:2]
        counts = exact_counts(budget, [True] * frames, per_frame)
        # The generator starts from 32 bits only: all of what the draw depends on must be in them.
        mixed = zlib.crc32(f"{self.seed} {tokens.fingerprint}".encode())
        generator = torch.Generator().manual_seed(mixed)
        scores = torch.rand(frames, per_frame, generator=generator, dtype=torch.float64)
        kept = select_by_frame(scores, counts, [False] * frames)
        return Decision(reduction=Reduction.keep(kept, frames * per_frame), details={"tokens_per_frame": counts})
