"""The best partition of a clip into windows whose static tokens can be merged along time (HoliTom, section 3.2).

A token is static in a window when it resembles its successor at the same place in every pair of neighbouring frames;
a window of g frames saves ``g - 1`` copies of each of its static tokens. The table of what each window saves is made on
the device in one go, the dynamic programming over it runs on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add

import torch
from torch import Tensor

from earlytom.ops.segmentation import Segment

__all__ = ["best_partition", "static_since", "static_tokens", "window_savings"]


def static_since(similar: Tensor) -> Tensor:
    """The first frame from which on each token has not changed.

    Args:
        similar: [N - 1, P] bool, whether a token resembles its successor.

    Returns:
        [N, P] int64; token j is static in the window (s, e), s < e, exactly when ``static_since[e, j] <= s``.
    """
    following = torch.arange(1, similar.shape[0] + 1, device=similar.device)[:, None]
    changes = torch.where(similar, 0, following)
    return torch.cat([changes.new_zeros(1, similar.shape[1]), changes]).cummax(dim=0).values


def window_savings(since: Tensor) -> Tensor:
    """What every window saves: its static tokens times its frames but one.

    Args:
        since: [N, P] int64, see `static_since`.

    Returns:
        [N, N] int64; row e, column s holds the window of frames s to e, 0 where s >= e.
    """
    frames = since.shape[0]
    starts = torch.zeros(frames, frames, dtype=torch.int64, device=since.device)
    starts.scatter_add_(1, since, torch.ones_like(since))
    index = torch.arange(frames, device=since.device)
    return starts.cumsum(dim=1) * (index[:, None] - index).clamp_min(0)


def best_partition(savings: Sequence[Sequence[int]], max_window: int) -> list[Segment]:
    """Cut a clip into windows that save the most together.

    Args:
        savings: [N][N], row e, column s: what the window of frames s to e saves (host data).
        max_window: most frames of a window.

    Returns:
        The windows in order, inclusive; among equals the shorter last window wins.
    """
    frames = len(savings)
    best, starts = [0], []
    for last in range(frames):
        low = max(0, last + 1 - max_window)
        totals = list(map(add, best[low:], savings[last][low : last + 1]))
        totals.reverse()
        most = max(totals)
        starts.append(last - totals.index(most))
        best.append(most)
    windows: list[Segment] = []
    while frames:
        windows.append((starts[frames - 1], frames - 1))
        frames = starts[frames - 1]
    windows.reverse()
    return windows


def static_tokens(since: Tensor, segments: Sequence[Segment]) -> Tensor:
    """The static tokens of each window, [W, P] bool; a window of one frame has none.

    Args:
        since: [N, P] int64, see `static_since`.
        segments: inclusive windows (host data).
    """
    edges = torch.tensor(segments, dtype=torch.int64).to(since.device, non_blocking=True)
    first, last = edges[:, :1], edges[:, 1:]
    return (since[edges[:, 1]] <= first) & (first < last)
