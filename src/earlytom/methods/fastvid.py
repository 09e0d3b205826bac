"""FastVID: Dynamic Density Pruning for Fast Video Large Language Models (NeurIPS 2025, arXiv 2503.11187).

Before the language model. Dynamic segmentation: the clip is cut between the neighbouring frames that differ most, and
wherever their similarity falls below ``tau``. Attention selection: part of each frame's budget goes to the tokens that
the vision encoder attends to most. Density-based merging: the rest becomes anchors on every ``stride``-th frame of a
segment, its density peaks (DPC-KNN), into which the segment's other tokens merge.

What makes a token salient, and what describes a frame, comes from SigLIP's attention-pooling head. LLaVA checkpoints do
not contain it; with ``scores="pooling_head"`` (the published way) such a model is refused. To have it, take the head of
the original SigLIP checkpoint: ``model.model.vision_tower.head = siglip.vision_model.head``. ``scores="received"`` is
the stated substitute: attention received in the encoder's last layer, and the mean of a frame's tokens, much as the
authors do for Qwen2.5-VL, which has no such head.

What differs from the authors' LLaVA-OneVision code (``compat="official"`` restores it): the budget is exact, shared out
over frames and anchors without loss, and the anchors of a frame do not join one another, both as in the authors' later
code for other models; their noise on the densities is left out. In either, kept tokens get consecutive positions, where
theirs keep those of the uncompressed prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from earlytom.errors import MethodError
from earlytom.methods.base import Method, check_choice, check_count, check_range
from earlytom.types import Decision, EncoderPlan, EncoderShape, Resource, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from earlytom.ops import AnchorPlan, Segment
    from earlytom.types import VisualTokens

__all__ = ["FastVID"]

# The authors' thresholds: for descriptions by the pooling head (LLaVA), and by means of tokens (Qwen2.5-VL).
_TAU_HEAD, _TAU_MEAN = 0.90, 0.84


@dataclass(frozen=True, kw_only=True)
class FastVID(Method):
    """Salient tokens of every frame, and density peaks that gather the rest of their segment.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1].
        scores: ``"pooling_head"``: attention and descriptions of temporal grids from the vision encoder's
            attention-pooling head, refused where there is none; ``"received"``: attention received in the last layer
            and means of tokens.
        tau: similarity of neighbouring temporal grids below which they are cut apart, in [-1, 1]; ``None``: the
            authors' 0.9 with the pooling head and 0.84 without.
        segments: least number of segments.
        stride: distance of the temporal grids that carry anchors.
        context_share: share of the budget that goes to anchors, in [0, 1].
        anchor_weight: least weight of an anchor in what is merged into it, in [0, 1].
        neighbours: k of the density peaks.
        compat: ``"default"``: an exact budget; ``"official"``: rounded as in the authors' code for LLaVA-OneVision.

    Raises:
        MethodError: a knob is out of range.
    """

    scores: Literal["pooling_head", "received"] = "pooling_head"
    tau: float | None = None
    segments: int = 8
    stride: int = 4
    context_share: float = 0.4
    anchor_weight: float = 0.6
    neighbours: int = 4
    compat: Literal["default", "official"] = "default"

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "fastvid"
    summary: ClassVar[str] = "salient tokens of every frame, and density peaks that gather the rest of their segment"
    paper: ClassVar[str] = "arXiv 2503.11187"
    stages: ClassVar[tuple[Stage, ...]] = ("tokens",)
    needs: ClassVar[frozenset[Resource]] = frozenset({"frame grid", "whole grid", "received attention"})
    stand_ins: ClassVar[tuple[str, ...]] = ("scores=received",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("scores", self.scores, ("pooling_head", "received"))
        if self.tau is not None:
            check_range("tau", self.tau, -1.0, 1.0)
        check_count("segments", self.segments, 1)
        check_count("stride", self.stride, 1)
        check_range("context_share", self.context_share, 0.0, 1.0)
        check_range("anchor_weight", self.anchor_weight, 0.0, 1.0)
        check_count("neighbours", self.neighbours, 1)
        check_choice("compat", self.compat, ("default", "official"))

    @property
    def exact_budget(self) -> bool:
        return self.compat == "default"

    @property
    def no_visual_tokens(self) -> str | None:
        return None if self.exact_budget else "compat='official' rounds frame by frame"

    def encoder_plan(self, encoder: EncoderShape) -> EncoderPlan:
        if self.scores == "pooling_head":
            return EncoderPlan(pooling_head=True)
        return EncoderPlan(attention_layer=encoder.last_global_layer)

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        from earlytom.ops import cut_at_changes, merge_into_anchors, paired_cosines, rescaled_retention

        if tokens.attention is None:
            raise MethodError("FastVID selects tokens by attention, but the encoder gave none")
        frames, per_frame = tokens.attention.shape
        if self.compat == "default" and budget >= frames * per_frame:
            return Decision()
        described = self._descriptions(tokens)
        similarity: list[float] = paired_cosines(described[:-1], described[1:]).flatten().tolist()
        segments = cut_at_changes(similarity, segments=self.segments, threshold=self._threshold)
        if self.compat == "default":
            plan = self._exact_plan(segments, budget, per_frame)
        else:
            rescaled = rescaled_retention(self.share(tokens.grid), tokens.grid.frames, frames)
            plan = self._official_plan(segments, rescaled, per_frame)
        reduction = merge_into_anchors(
            tokens.features.detach(),  # what is kept does not depend on gradients, its values do
            tokens.attention,
            plan,
            neighbours=self.neighbours,
            anchor_weight=self.anchor_weight,
            joins_itself=self.compat == "official",
        )
        counts = [salient + anchors for salient, anchors in zip(plan.salient, plan.anchors, strict=True)]
        details = {"segments": segments, "anchors": list(plan.anchors), "tokens_per_frame": counts}
        return Decision(reduction=reduction, details=details)

    @property
    def _threshold(self) -> float:
        if self.tau is not None:
            return self.tau
        return _TAU_HEAD if self.scores == "pooling_head" else _TAU_MEAN

    def _descriptions(self, tokens: VisualTokens) -> Tensor:
        """[N, 1, E]: one vector for each frame."""
        import torch

        if self.scores == "received":
            return tokens.features.mean(dim=1, keepdim=True, dtype=torch.float32)
        if tokens.descriptions is None:
            raise MethodError("FastVID compares frames by the pooling head's output, but the encoder gave none")
        return tokens.descriptions[:, None]

    def _carriers(self, segment: Segment) -> list[int]:
        """The frames of a segment that carry anchors, the last one first."""
        first, last = segment
        return list(range(last, first - 1, -self.stride))

    def _exact_plan(self, segments: Sequence[Segment], budget: int, per_frame: int) -> AnchorPlan:
        """Each segment gets its part of the budget; what does not divide goes to its first frames, its last anchors."""
        from earlytom.ops import AnchorPlan, apportion

        salient: list[int] = []
        anchors: list[int] = []
        lengths = [last - first + 1 for first, last in segments]
        parts = apportion(budget, [length * per_frame for length in lengths])
        for segment, length, part in zip(segments, lengths, parts, strict=True):
            carriers = self._carriers(segment)
            context = self._context(part, length, len(carriers), per_frame)
            salient += _spread(part - context, length)
            shares = dict(zip(carriers, _spread(context, len(carriers)), strict=True))
            anchors += [shares.get(frame, 0) for frame in range(segment[0], segment[1] + 1)]
        return AnchorPlan(segments=segments, salient=salient, anchors=anchors)

    def _context(self, part: int, length: int, carriers: int, per_frame: int) -> int:
        """Tokens of a segment that become anchors: their share, or as many as their frames have room for."""
        context = int(part * self.context_share)
        room = -(-context // carriers)
        while -(-(part - min(context, room * carriers)) // length) + room > per_frame:
            room -= 1
        return min(context, room * carriers)

    def _official_plan(self, segments: Sequence[Segment], retention: float, per_frame: int) -> AnchorPlan:
        """The counts of the authors' code for LLaVA-OneVision; what does not divide is lost."""
        from earlytom.ops import AnchorPlan

        whole = min(per_frame, max(1, int(per_frame * retention)))
        context = int(whole * self.context_share)
        anchors: list[int] = []
        for segment in segments:
            carriers = self._carriers(segment)
            each = context * (segment[1] - segment[0] + 1) // len(carriers)
            each = min(each, per_frame - (whole - context))
            anchors += [each if frame in carriers else 0 for frame in range(segment[0], segment[1] + 1)]
        return AnchorPlan(segments=segments, salient=[whole - context] * len(anchors), anchors=anchors)


def _spread(total: int, places: int) -> list[int]:
    """``total`` over ``places`` as evenly as it goes, the first ones get one more."""
    share, rest = divmod(total, places)
    return [share + (place < rest) for place in range(places)]
