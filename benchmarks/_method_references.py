"""Methods against their slow references on a small clip, on the device of the benchmark."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from earlytom.methods.base import Method
from earlytom.methods.dycoke import DyCoke
from earlytom.methods.evs import EVS
from earlytom.methods.fastvid import FastVID
from earlytom.methods.holitom import HoliTom
from earlytom.methods.prunevid import PruneVid
from earlytom.methods.vidcom2 import VidCom2
from earlytom.types import VisualTokens
from reference.dycoke import exact_naively
from reference.fastvid import cut_naively, exact_plan_naively, fastvid_naively
from reference.redundancy import evs_naively, vidcom2_naively
from reference.scenes import scene_clip
from reference.similarity import cosine_naively
from reference.windows import (
    apportion_naively,
    best_windows_naively,
    holitom_naively,
    prunevid_naively,
    static_naively,
)

_FRAMES, _RETENTION = 10, 0.3


def disagreements(device: torch.device) -> list[str]:
    """Places and values of the kept tokens; empty when all agree."""
    clip = scene_clip(_FRAMES)
    found = _compare(HoliTom(retention=_RETENTION), clip, device, *_holitom(clip))
    found += _compare(PruneVid(retention=_RETENTION), clip, device, *_prunevid(clip))
    found += _compare(FastVID(retention=_RETENTION), clip, device, *_fastvid(clip))
    found += _compare(DyCoke(retention=_RETENTION), clip, device, *_dycoke(clip))
    found += _compare(EVS(retention=_RETENTION), clip, device, *_evs(clip))
    return found + _compare(VidCom2(retention=_RETENTION), clip, device, *_vidcom2(clip))


def _compare(
    method: Method, clip: VisualTokens, device: torch.device, places: Sequence[int], values: Tensor
) -> list[str]:
    on_device = replace(
        clip,
        features=clip.features.to(device),
        attention=clip.attention.to(device),
        descriptions=clip.descriptions.to(device),
    )
    reduction = method.select_tokens(on_device, _budget(clip)).reduction
    if reduction is None or reduction.survivors().tolist() != list(places):
        return [f"{method.name}: other tokens are kept"]
    difference = (reduction.apply(on_device.features.flatten(0, 1)).cpu().double() - values.double()).abs().max()
    return [] if difference < 1e-4 else [f"{method.name}: values differ by {float(difference):.1e}"]


def _budget(clip: VisualTokens) -> int:
    return round(_RETENTION * clip.grid.tokens)


def _holitom(clip: VisualTokens) -> tuple[list[int], Tensor]:
    windows = best_windows_naively(clip.features, 0.8, 1024)
    static = [static_naively(clip.features, window, 0.8) for window in windows]
    per_frame = clip.grid.tokens_per_frame
    dynamic = [
        per_frame - len(tokens)
        for tokens, (first, last) in zip(static, windows, strict=True)
        for _ in range(first, last + 1)
    ]
    sizes = [*map(len, static), *dynamic]
    shares = apportion_naively(min(_budget(clip), sum(sizes)), sizes)
    counts = (shares[: len(static)], shares[len(static) :])
    outputs = holitom_naively(clip.features, clip.attention, windows, static, counts, 7, 0.6)
    return [place for place, _ in outputs], torch.stack([value for _, value in outputs])


def _prunevid(clip: VisualTokens) -> tuple[list[int], Tensor]:
    _, outputs = prunevid_naively(clip.features, _budget(clip), 0.8, 0.25, 7)
    return [place for place, _ in outputs], torch.stack([value for _, value in outputs])


def _fastvid(clip: VisualTokens) -> tuple[list[int], Tensor]:
    similarity = [cosine_naively(one, other) for one, other in itertools.pairwise(clip.descriptions)]
    segments = cut_naively(similarity, 8, 0.9)
    per_frame = clip.grid.tokens_per_frame
    parts = apportion_naively(_budget(clip), [(last + 1 - first) * per_frame for first, last in segments])
    salient, anchors = exact_plan_naively(segments, parts, per_frame, 0.4, 4)
    return fastvid_naively(clip.features, clip.attention, segments, salient, anchors, 4, 0.6, False)


def _dycoke(clip: VisualTokens) -> tuple[list[int], Tensor]:
    per_frame, whole = clip.grid.tokens_per_frame, -(-_FRAMES // 4)
    share, rest = divmod(_budget(clip) - whole * per_frame, _FRAMES - whole)
    others = _FRAMES - whole
    more = {number * others // rest for number in range(rest)}
    dealt = iter(share + (number in more) for number in range(others))
    counts = [next(dealt) if frame % 4 else per_frame for frame in range(_FRAMES)]
    kept = exact_naively(clip.features, counts)
    return kept, clip.features.flatten(0, 1)[kept]


def _evs(clip: VisualTokens) -> tuple[list[int], Tensor]:
    kept = evs_naively(clip.features, _budget(clip))
    return kept, clip.features.flatten(0, 1)[kept]


def _vidcom2(clip: VisualTokens) -> tuple[list[int], Tensor]:
    kept = vidcom2_naively(clip.features, _RETENTION, _budget(clip))
    return kept, clip.features.flatten(0, 1)[kept]
