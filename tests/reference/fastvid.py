"""FastVID, segment by segment and token by token (methods.md, section 5), in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reference.clustering import peaks_naively
from reference.selection import best_first
from reference.similarity import cosine_naively

Segment = tuple[int, int]


def cut_naively(similarity: Sequence[float], segments: int, threshold: float) -> list[Segment]:
    """Cut behind the ``segments - 1`` least similar neighbours, and behind all below the threshold."""
    least = sorted((round(value, 5), frame) for frame, value in enumerate(similarity))[: segments - 1]
    ends = [
        frame for frame, value in enumerate(similarity) if value < threshold or (round(value, 5), frame) in least
    ] + [len(similarity)]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return list(zip(starts, ends, strict=True))


def anchor_frames_naively(segment: Segment, stride: int) -> list[int]:
    """The last frame and every ``stride``-th one backwards."""
    return [frame for frame in range(segment[0], segment[1] + 1) if (segment[1] - frame) % stride == 0]


def fastvid_naively(
    features: Tensor,
    scores: Tensor,
    segments: Sequence[Segment],
    salient: Sequence[int],
    anchors: Sequence[int],
    neighbours: int,
    anchor_weight: float,
    joins_itself: bool,
) -> tuple[list[int], Tensor]:
    """Places of the kept tokens in the flattened clip, and their [K, D] values."""
    tokens, found = features.shape[1], {}
    rows = features.double()
    top = {frame: best_first(scores[frame].tolist())[:count] for frame, count in enumerate(salient)}
    for first, last in segments:
        for frame in range(first, last + 1):
            found.update({frame * tokens + token: rows[frame, token] for token in top[frame]})
            if anchors[frame] == 0:
                continue
            left = [token for token in range(tokens) if token not in top[frame]]
            peaks = peaks_naively(rows[frame][left].tolist(), anchors[frame], neighbours)
            centres = [left[peak] for peak in peaks]
            members: dict[int, list[Tensor]] = {centre: [] for centre in centres}
            for other in range(first, last + 1):
                for token in range(tokens):
                    own = other == frame and token in centres
                    if token in top[other] or (own and not joins_itself):
                        continue
                    cosines = [cosine_naively(rows[other, token], rows[frame, centre]) for centre in centres]
                    members[centres[cosines.index(max(cosines))]].append(rows[other, token])
            for centre, joined in members.items():
                value = rows[frame, centre]
                if joined:
                    weight = max(1 / (len(joined) + 1), anchor_weight)
                    value = weight * value + (1 - weight) * torch.stack(joined).mean(dim=0)
                found[frame * tokens + centre] = value
    places = sorted(found)
    return places, torch.stack([found[place] for place in places])


def exact_plan_naively(
    segments: Sequence[Segment], parts: Sequence[int], tokens: int, share: float, stride: int
) -> tuple[list[int], list[int]]:
    """Salient tokens and anchors of each frame, for the part of the budget that each segment gets."""
    salient, anchors = [], []
    for segment, part in zip(segments, parts, strict=True):
        frames = list(range(segment[0], segment[1] + 1))
        carriers = anchor_frames_naively(segment, stride)
        context = int(part * share)
        # As many anchors as fit beside the salient tokens of their frames.
        while -(-(part - context) // len(frames)) + -(-context // len(carriers)) > tokens:
            context -= 1
        own_salient, own_anchors = dict.fromkeys(frames, 0), dict.fromkeys(frames, 0)
        for number in range(part - context):
            own_salient[frames[number % len(frames)]] += 1
        for number in range(context):
            own_anchors[carriers[-1 - number % len(carriers)]] += 1
        salient += own_salient.values()
        anchors += own_anchors.values()
    return salient, anchors


def official_plan_naively(
    segments: Sequence[Segment], retention: float, tokens: int, share: float, stride: int
) -> tuple[list[int], list[int]]:
    """The counts of the authors' code for LLaVA-OneVision."""
    whole = max(1, int(tokens * retention))
    context, salient, anchors = int(whole * share), [], []
    for segment in segments:
        carriers, length = anchor_frames_naively(segment, stride), segment[1] - segment[0] + 1
        for frame in range(segment[0], segment[1] + 1):
            salient.append(whole - context)
            fits = min(context * length // len(carriers), tokens - (whole - context))
            anchors.append(fits if frame in carriers else 0)
    return salient, anchors
