"""HoliTom: Holistic Token Merging for Fast Video Large Language Models (NeurIPS 2025, arXiv 2505.21334).

The clip is cut into the windows whose static tokens save most when they are merged along time (an optimum, by dynamic
programming); each window keeps its static tokens once, as the mean over its frames. What the merging saved is given
back: a share ``min(1, r / share left)`` of the static tokens stays as cluster centres (DPC-KNN) with the others merged
into them, and the same share of the dynamic tokens of each frame stays by received attention of the encoder's last
layer. The order is the published one: for each window its static block, then its frames, each in raster order; static
tokens are anchored in the window's first frame. This is the paper's "w/o M"; with its merging inside the language model
it is ``holitom+inner-merging``.

What differs from the authors' code (``compat="official"`` restores it): the tokens are shared out over the blocks so
that their total is the budget, where theirs round every block by itself. Either way a clip whose merging along time
alone leaves fewer tokens than the budget keeps just those. Their noise on the densities is left out, so runs repeat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from earlytom.errors import MethodError
from earlytom.methods.base import Method, check_choice, check_count, check_range
from earlytom.types import Decision, EncoderPlan, EncoderShape, Resource, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earlytom.ops import Segment
    from earlytom.types import FrameGrid, VisualTokens

__all__ = ["HoliTom"]

# The authors' threshold for LLaVA-OneVision-7B: the first up to a retention of 10%, the second above.
_LOW_RETENTION, _LOW_TAU, _TAU = 0.10, 0.65, 0.80


@dataclass(frozen=True, kw_only=True)
class HoliTom(Method):
    """Merge what stays the same along time, then select and cluster in space.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1]. Clips with much
            to merge along time may keep fewer.
        visual_tokens: instead of ``retention``, the number of tokens that is kept of every clip, of one with much to
            merge along time perhaps fewer.
        tau: cosine above which a token and its successor are the same, in [-1, 1]; ``None``: the authors' values, 0.65
            up to a retention of 0.1 and 0.8 above.
        max_window: most temporal grids of a window.
        neighbours: k of the clustering of static tokens, no more than the block's centres.
        centre_weight: weight of a centre in what is merged into it, the others share the rest, in (0, 1]; ``None``:
            the plain mean.
        compat: ``"default"``: the budget is met wherever the clip still has that many tokens; ``"official"``: rounded
            block by block as in the authors' code.

    Raises:
        MethodError: a knob is out of range.
    """

    tau: float | None = None
    max_window: int = 1024
    neighbours: int = 7
    centre_weight: float | None = 0.6
    compat: Literal["default", "official"] = "default"

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "holitom"
    summary: ClassVar[str] = "static tokens merged along time over optimal windows, then clustering and selection"
    paper: ClassVar[str] = "arXiv 2505.21334"
    stages: ClassVar[tuple[Stage, ...]] = ("tokens",)
    needs: ClassVar[frozenset[Resource]] = frozenset({"frame grid", "whole grid", "received attention"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau is not None:
            check_range("tau", self.tau, -1.0, 1.0)
        check_count("max_window", self.max_window, 1)
        check_count("neighbours", self.neighbours, 1)
        if self.centre_weight is not None:
            check_range("centre_weight", self.centre_weight, 0.0, 1.0, low_open=True)
        check_choice("compat", self.compat, ("default", "official"))

    @property
    def exact_budget(self) -> bool:
        return False

    @property
    def no_visual_tokens(self) -> str | None:
        return None if self.compat == "default" else "compat='official' rounds block by block"

    def encoder_plan(self, encoder: EncoderShape) -> EncoderPlan:
        return EncoderPlan(attention_layer=encoder.last_global_layer)

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        from earlytom.ops import (
            best_partition,
            cluster_static,
            frame_windows,
            paired_cosines,
            reduce_windows,
            select_dynamic,
            static_since,
            static_tokens,
            window_savings,
        )

        if tokens.attention is None:
            raise MethodError("HoliTom selects tokens by received attention, but the encoder gave none")
        frames, per_frame = tokens.attention.shape
        if self.compat == "default" and budget >= frames * per_frame:
            return Decision()
        features = tokens.features.detach()  # what is kept does not depend on gradients, its values do
        since = static_since(paired_cosines(features[:-1], features[1:]) > self._threshold(self.share(tokens.grid)))
        savings: list[list[int]] = window_savings(since).tolist()
        segments = best_partition(savings, self.max_window)
        static = [savings[last][first] // max(1, last - first) for first, last in segments]
        kept_static, kept_dynamic = self._counts(budget, tokens.grid, segments, static)
        is_static = static_tokens(since, segments)
        neighbours = [max(1, min(self.neighbours, count)) for count in kept_static]
        blocks = cluster_static(features, segments, is_static, static, kept_static, neighbours, self.centre_weight)
        is_dynamic = ~is_static[frame_windows(segments, is_static.device)]
        chosen = select_dynamic(tokens.attention, is_dynamic, kept_dynamic)
        details = {
            "segments": segments,
            "static_tokens": static,
            "tokens_per_window": kept_static,
            "tokens_per_frame": kept_dynamic,
        }
        return Decision(reduction=reduce_windows(segments, is_static, blocks, chosen), details=details)

    def _threshold(self, retention: float) -> float:
        if self.tau is not None:
            return self.tau
        return _LOW_TAU if retention <= _LOW_RETENTION else _TAU

    def _counts(
        self, budget: int, grid: FrameGrid, segments: Sequence[Segment], static: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Tokens that each window keeps of its static ones, and each frame of its dynamic ones."""
        from earlytom.ops import apportion

        dynamic = [
            grid.tokens_per_frame - count
            for (first, last), count in zip(segments, static, strict=True)
            for _ in range(first, last + 1)
        ]
        left = sum(static) + sum(dynamic)
        if self.compat == "default":
            shares = apportion(min(budget, left), [*static, *dynamic])
            return shares[: len(static)], shares[len(static) :]
        rescaled = min(self.share(grid) / (left / grid.tokens), 1.0)
        kept_static = [round(count * rescaled) for count in static]
        kept_dynamic = [min(count, math.ceil(count * rescaled)) for count in dynamic]
        if not any(kept_static) and not any(kept_dynamic):
            kept_static[static.index(max(static))] = 1  # otherwise nothing at all would be left of a static clip
        return kept_static, kept_dynamic
