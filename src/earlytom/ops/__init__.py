"""Pure tensor operations: no model, no method, no state.

A frame here is a row of the first dimension, as in the papers: what the vision encoder takes as one, a temporal grid.
"""

from earlytom.ops.anchors import AnchorPlan, merge_into_anchors
from earlytom.ops.attention import last_query_attention, received_attention
from earlytom.ops.bipartite import match_tokens, matched_means, merge_down, merge_schedule
from earlytom.ops.budget import (
    apportion,
    exact_counts,
    frame_floor,
    published_counts,
    rescaled_retention,
    token_budget,
    tokens_after_pruning,
)
from earlytom.ops.cells import best_cells
from earlytom.ops.clustering import cluster_sizes, density_peaks, join_nearest, squared_distances
from earlytom.ops.contextual import dominant_and_contextual
from earlytom.ops.fingerprints import fingerprint
from earlytom.ops.llm_merging import merge_dropped_tokens
from earlytom.ops.merging import plan_merging
from earlytom.ops.novelty import over_mean, relative_change, relative_contrast
from earlytom.ops.partition import best_partition, static_since, static_tokens, window_savings
from earlytom.ops.products import exact_product
from earlytom.ops.redundancy import center_similarity, frame_shares, novelty_in_time, select_distinct
from earlytom.ops.resizing import pool_bilinear
from earlytom.ops.segmentation import (
    Segment,
    adaptive_threshold,
    contiguous_windows,
    cut_at_changes,
    cut_at_weakest,
    segment_frames,
)
from earlytom.ops.selection import highest_scores, kept_indices, ranks_among, select_by_frame
from earlytom.ops.similarity import (
    frame_similarity,
    packed_frame_similarity,
    paired_cosines,
    similarity_rows,
    similarity_within,
    token_similarity,
    unit_rows,
)
from earlytom.ops.spacing import adaptive_bins, evenly_spaced, nearest_grid
from earlytom.ops.windows import (
    Blocks,
    cluster_dynamic,
    cluster_static,
    frame_windows,
    reduce_windows,
    select_dynamic,
    window_similarity,
)

__all__ = [
    "AnchorPlan",
    "Blocks",
    "Segment",
    "adaptive_bins",
    "adaptive_threshold",
    "apportion",
    "best_cells",
    "best_partition",
    "center_similarity",
    "cluster_dynamic",
    "cluster_sizes",
    "cluster_static",
    "contiguous_windows",
    "cut_at_changes",
    "cut_at_weakest",
    "density_peaks",
    "dominant_and_contextual",
    "evenly_spaced",
    "exact_counts",
    "exact_product",
    "fingerprint",
    "frame_floor",
    "frame_shares",
    "frame_similarity",
    "frame_windows",
    "highest_scores",
    "join_nearest",
    "kept_indices",
    "last_query_attention",
    "match_tokens",
    "matched_means",
    "merge_down",
    "merge_dropped_tokens",
    "merge_into_anchors",
    "merge_schedule",
    "nearest_grid",
    "novelty_in_time",
    "over_mean",
    "packed_frame_similarity",
    "paired_cosines",
    "plan_merging",
    "pool_bilinear",
    "published_counts",
    "ranks_among",
    "received_attention",
    "reduce_windows",
    "relative_change",
    "relative_contrast",
    "rescaled_retention",
    "segment_frames",
    "select_by_frame",
    "select_distinct",
    "select_dynamic",
    "similarity_rows",
    "similarity_within",
    "squared_distances",
    "static_since",
    "static_tokens",
    "token_budget",
    "token_similarity",
    "tokens_after_pruning",
    "unit_rows",
    "window_savings",
    "window_similarity",
]
