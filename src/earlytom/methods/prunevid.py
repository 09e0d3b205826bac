"""PruneVid: Visual Token Pruning for Efficient Video Large Language Models (ACL 2025, arXiv 2412.16117).

Its first stage, before the language model: frames are clustered by their mean tokens (DPC-KNN) and the clusters made
contiguous windows. A place of the frame is static in a window when its tokens resemble one another in all pairs of
frames. Static tokens become their mean over the window, dynamic ones stay frame by frame; then the static tokens of
each window and the dynamic ones of each frame are clustered, and every cluster becomes its plain mean. Static tokens
are anchored in the window's first frame.

Written from the description of the method alone; the authors released it for PLLaVA only, where every block shrinks to
half whatever the clip. For other models nobody says how a retention becomes numbers of clusters. Here all blocks are
shared the same part of the budget, one cluster at least where it is enough for that, so that the budget is met exactly;
a clip whose merging along time alone leaves fewer tokens keeps just those. Inside a block clusters stand in raster
order (theirs in the order of their scores), windows of one frame have no static tokens (theirs: rounding decides), and
there is no noise on the densities.

The second stage of the paper, which ranks tokens inside the language model by the attention of the whole question and
prunes what earlier layers have cached, is not offered: a method is given the attention of the last prompt token, and
what is cached stays. ``prunevid+fastv`` drops tokens inside the language model by that attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from earlytom.methods.base import Method, check_count, check_range
from earlytom.types import Decision, Resource, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from earlytom.ops import Segment
    from earlytom.types import VisualTokens

__all__ = ["PruneVid"]


@dataclass(frozen=True, kw_only=True)
class PruneVid(Method):
    """Merge what stays the same in a window along time, then cluster in space.

    Attributes:
        retention: visual tokens that the language model gets, over those it would have got, in (0, 1]. Clips with much
            to merge along time may keep fewer.
        visual_tokens: instead of ``retention``, the number of tokens that is kept of every clip, of one with much to
            merge along time perhaps fewer.
        tau: mean cosine over a window above which a place is static, in [-1, 1].
        segment_ratio: clusters of temporal grids, over their number, in (0, 1].
        neighbours: k of all clusterings.

    Raises:
        MethodError: a knob is out of range.
    """

    tau: float = 0.8
    segment_ratio: float = 0.25
    neighbours: int = 7

    default_retention: ClassVar[float] = 0.25
    name: ClassVar[str] = "prunevid"
    summary: ClassVar[str] = "static tokens merged along time over clustered frames, then clustering in space"
    paper: ClassVar[str] = "arXiv 2412.16117"
    stages: ClassVar[tuple[Stage, ...]] = ("tokens",)
    needs: ClassVar[frozenset[Resource]] = frozenset({"frame grid", "whole grid"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("tau", self.tau, -1.0, 1.0)
        check_range("segment_ratio", self.segment_ratio, 0.0, 1.0, low_open=True)
        check_count("neighbours", self.neighbours, 1)

    @property
    def exact_budget(self) -> bool:
        return False

    @property
    def no_visual_tokens(self) -> str | None:
        return None

    def select_tokens(self, tokens: VisualTokens, budget: int) -> Decision:
        from earlytom.ops import (
            apportion,
            cluster_dynamic,
            cluster_static,
            frame_windows,
            reduce_windows,
            window_similarity,
        )

        features = tokens.features.detach()  # what is kept does not depend on gradients, its values do
        frames, per_frame = features.shape[:2]
        if budget >= frames * per_frame:
            return Decision()
        segments = self._segments(features)
        is_static = window_similarity(features, segments) > self.tau
        static: list[int] = is_static.sum(dim=1).tolist()
        dynamic = [
            per_frame - count
            for (first, last), count in zip(segments, static, strict=True)
            for _ in range(first, last + 1)
        ]
        shares = apportion(min(budget, sum(static) + sum(dynamic)), [*static, *dynamic], at_least_one=True)
        kept_static, kept_dynamic = shares[: len(static)], shares[len(static) :]
        is_dynamic = ~is_static[frame_windows(segments, is_static.device)]
        merged = cluster_static(features, segments, is_static, static, kept_static, [self.neighbours] * len(static))
        others = cluster_dynamic(features, is_dynamic, dynamic, kept_dynamic, [self.neighbours] * frames)
        details = {
            "segments": segments,
            "static_tokens": static,
            "tokens_per_window": kept_static,
            "tokens_per_frame": kept_dynamic,
        }
        return Decision(reduction=reduce_windows(segments, is_static, merged, others), details=details)

    def _segments(self, features: Tensor) -> list[Segment]:
        import torch

        from earlytom.ops import contiguous_windows, density_peaks, join_nearest, squared_distances

        frames = features.shape[0]
        squared = squared_distances(features.mean(dim=1, dtype=torch.float32)[None])
        everyone = torch.ones(1, frames, dtype=torch.bool, device=features.device)
        clusters = max(1, int(frames * self.segment_ratio))
        centres = density_peaks(squared, everyone, [clusters], [self.neighbours])
        return contiguous_windows(join_nearest(squared, everyone, centres)[0].tolist())
