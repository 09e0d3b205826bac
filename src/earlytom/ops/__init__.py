"""Pure tensor operations: no model, no method, no state."""

from earlytom.ops.attention import last_query_attention, received_attention
from earlytom.ops.budget import exact_counts, frame_floor, published_counts, rescaled_retention, token_budget
from earlytom.ops.inner import merge_dropped_tokens
from earlytom.ops.merging import plan_merging
from earlytom.ops.resizing import pool_bilinear
from earlytom.ops.segmentation import Segment, adaptive_threshold, segment_frames
from earlytom.ops.selection import select_by_frame
from earlytom.ops.similarity import frame_similarity, unit_rows

__all__ = [
    "Segment",
    "adaptive_threshold",
    "exact_counts",
    "frame_floor",
    "frame_similarity",
    "last_query_attention",
    "merge_dropped_tokens",
    "plan_merging",
    "pool_bilinear",
    "published_counts",
    "received_attention",
    "rescaled_retention",
    "segment_frames",
    "select_by_frame",
    "token_budget",
    "unit_rows",
]
