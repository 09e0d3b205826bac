"""Windows with static and dynamic tokens, as HoliTom and PruneVid make them, one token at a time in float64."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from reference.clustering import cluster_naively
from reference.selection import best_first
from reference.similarity import cosine_naively

Segment = tuple[int, int]
Outputs = list[tuple[int, Tensor]]
"""For each token that comes out its place in the flattened clip, and its value."""


def apportion_naively(total: int, sizes: Sequence[int], at_least_one: bool = False) -> list[int]:
    """The largest remainders, in fractions."""
    given = [0] * len(sizes)
    if at_least_one and sum(size > 0 for size in sizes) <= total:
        given = [min(size, 1) for size in sizes]
    rest, room = total - sum(given), [size - one for size, one in zip(sizes, given, strict=True)]
    ideal = [Fraction(rest * size, max(1, sum(room))) for size in room]
    shares = [int(share) for share in ideal]
    order = sorted(range(len(sizes)), key=lambda i: (-(ideal[i] - shares[i]), i))
    for i in order[: rest - sum(shares)]:
        shares[i] += 1
    return [share + one for share, one in zip(shares, given, strict=True)]


def static_naively(features: Tensor, segment: Segment, tau: float) -> list[int]:
    """HoliTom: the tokens that resemble their successor in every pair of neighbouring frames of a window."""
    first, last = segment
    if first == last:
        return []
    return [
        token
        for token in range(features.shape[1])
        if all(cosine_naively(features[t, token], features[t + 1, token]) > tau for t in range(first, last))
    ]


def best_windows_naively(features: Tensor, tau: float, max_window: int) -> list[Segment]:
    """HoliTom, section 3 of methods.md, step 3: a window replaces a better one only when it is strictly better."""
    best, windows = [0], [[]]
    for last in range(features.shape[0]):
        most, chosen = best[last], [*windows[last], (last, last)]
        for width in range(2, min(last + 1, max_window) + 1):
            first = last + 1 - width
            gain = len(static_naively(features, (first, last), tau)) * (width - 1)
            if best[first] + gain > most:
                most, chosen = best[first] + gain, [*windows[first], (first, last)]
        best.append(most)
        windows.append(chosen)
    return windows[-1]


def static_block(
    features: Tensor, segment: Segment, static: Sequence[int], count: int, neighbours: int, centre_weight: float | None
) -> Outputs:
    """The static tokens of a window, averaged along time, clustered, at their places in its first frame."""
    first, last = segment
    if count == 0:
        return []
    means = features[first : last + 1].double().mean(dim=0)[list(static)]
    clusters = cluster_naively(means.tolist(), count, neighbours)
    outputs = []
    for centre, points in clusters.items():
        others = [means[point] for point in points if point != centre]
        value = means[centre]
        if others and centre_weight is None:
            value = torch.stack([value, *others]).mean(dim=0)
        elif others:
            value = centre_weight * value + (1 - centre_weight) * torch.stack(others).mean(dim=0)
        outputs.append((first * features.shape[1] + static[centre], value))
    return outputs


def holitom_naively(
    features: Tensor,
    attention: Tensor,
    segments: Sequence[Segment],
    static: Sequence[Sequence[int]],
    counts: tuple[Sequence[int], Sequence[int]],
    neighbours: int,
    centre_weight: float | None,
) -> Outputs:
    """Static block, then the frames' dynamic tokens, window by window."""
    tokens, outputs = features.shape[1], []
    for number, (first, last) in enumerate(segments):
        few = counts[0][number]
        outputs += static_block(features, (first, last), static[number], few, min(neighbours, few), centre_weight)
        dynamic = [token for token in range(tokens) if token not in static[number]]
        for frame in range(first, last + 1):
            best = best_first([float(attention[frame, token]) for token in dynamic])[: counts[1][frame]]
            kept = sorted(dynamic[place] for place in best)
            outputs += [(frame * tokens + token, features[frame, token].double()) for token in kept]
    return outputs


def contiguous_naively(labels: Sequence[int]) -> list[Segment]:
    """PruneVid, methods.md section 6, step 2, frame by frame."""
    frames = len(labels)

    def run_at(frame: int) -> list[int]:
        start = end = frame
        while start > 0 and labels[start - 1] == labels[frame]:
            start -= 1
        while end < frames - 1 and labels[end + 1] == labels[frame]:
            end += 1
        return list(range(start, end + 1))

    longest = {label: max(len(run_at(f)) for f in range(frames) if labels[f] == label) for label in labels}
    final = [label if len(run_at(frame)) == longest[label] > 1 else None for frame, label in enumerate(labels)]  # type: list[int | None]
    while None in final:
        start = final.index(None)
        end = start
        while end < frames and final[end] is None:
            end += 1
        before = 0
        while start - before > 0 and final[start - 1 - before] == final[start - 1]:
            before += 1
        after = 0
        while end + after < frames and final[end + after] == final[end]:
            after += 1
        label = 0
        if before or after:
            label = final[start - 1] if before >= after else final[end]
        final[start:end] = [label] * (end - start)
    cuts = [frame for frame in range(1, frames) if final[frame] != final[frame - 1]]
    return list(zip([0, *cuts], [*(cut - 1 for cut in cuts), frames - 1], strict=True))


def alike_naively(features: Tensor, segment: Segment, token: int) -> float | None:
    """PruneVid: mean cosine of a place over all pairs of frames of a window; ``None`` for one frame."""
    frames = range(segment[0], segment[1] + 1)
    cosines = [
        cosine_naively(features[one, token], features[other, token])
        for one in frames
        for other in frames
        if one != other
    ]
    return sum(cosines) / len(cosines) if cosines else None


def prunevid_naively(
    features: Tensor, budget: int, tau: float, segment_ratio: float, neighbours: int
) -> tuple[list[Segment], Outputs]:
    """Windows and tokens."""
    frames, tokens, _ = features.shape
    described = features.double().mean(dim=1).tolist()
    clusters = cluster_naively(described, max(1, int(frames * segment_ratio)), neighbours)
    of_frame = {frame: centre for centre, members in clusters.items() for frame in members}
    segments = contiguous_naively([of_frame[frame] for frame in range(frames)])
    static = [
        [token for token in range(tokens) if (alike_naively(features, segment, token) or -1.0) > tau]
        for segment in segments
    ]
    dynamic = {
        frame: [token for token in range(tokens) if token not in static[number]]
        for number, (first, last) in enumerate(segments)
        for frame in range(first, last + 1)
    }
    sizes = [*map(len, static), *(len(dynamic[frame]) for frame in range(frames))]
    shares = apportion_naively(min(budget, sum(sizes)), sizes, at_least_one=True)
    outputs: Outputs = []
    for number, (first, last) in enumerate(segments):
        outputs += static_block(features, (first, last), static[number], shares[number], neighbours, None)
        for frame in range(first, last + 1):
            count, own = shares[len(segments) + frame], dynamic[frame]
            if count:
                rows = features[frame].double()[own]
                for centre, points in cluster_naively(rows.tolist(), count, neighbours).items():
                    outputs.append((frame * tokens + own[centre], rows[points].mean(dim=0)))
    return segments, outputs
