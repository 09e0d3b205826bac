"""EarlyTom's merging on what the shipped model's encoder sees, and on the same as other encoders might see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean

import pytest
import torch
from torch import Tensor

import earlytom
from earlytom import EarlyTom, VideoQA
from earlytom.eval.tasks import Benchmark, make_task
from earlytom.ops import frame_similarity
from earlytom.types import Decision, FrameStates
from earlytom_passes import run_passes

CLIPS = 6


@dataclass(frozen=True, kw_only=True)
class Looking(EarlyTom):
    """Keeps what the first merge layer sees, and merges nothing."""

    seen: list[Tensor] = field(default_factory=list, compare=False)

    def merge_frames(self, states: FrameStates, layer: int, floor: int) -> Decision:
        self.seen.append(states.features)
        return Decision()


@pytest.fixture(scope="module")
def clips() -> list[Tensor]:
    """[N, L, D] each, behind the layer in which the default merges first."""
    qa = VideoQA.load(earlytom.shipped_model(), device="cpu")
    tasks = [make_task(Benchmark(seed=3, source="frames"), clip) for clip in range(CLIPS)]
    seen = []
    for task in filter(None, tasks):
        method = Looking()
        qa.ask(task.video, "What?", method=method, max_new_tokens=1)
        seen.append(method.seen[0])
    return seen


def elsewhere(features: Tensor, way: str) -> Tensor:
    """The same clip under an encoder whose similarities all lie higher or lower, are spread otherwise, or noisier."""
    generator = torch.Generator().manual_seed(0)
    spread = features.std()
    if way == "higher":
        return features + 2.0 * spread * torch.randn(features.shape[-1], generator=generator)
    if way == "lower":
        return features - 0.9 * features.mean(dim=(0, 1))
    if way == "noisier":
        return features + 0.05 * spread * torch.randn(features.shape, generator=generator)
    return features.sign() * features.abs() ** {"sharper": 3.0, "flatter": 0.5}[way]


def left(clips: list[Tensor]) -> float:
    """Frames that are left of a clip behind three merge layers, on average."""
    return fmean(run_passes(EarlyTom(), features)[1][-1] for features in clips)


def near(clips: list[Tensor]) -> Iterator[float]:
    return (float(frame_similarity(features).diagonal(1).mean()) for features in clips)


@pytest.mark.parametrize("way", ["higher", "lower", "sharper", "flatter", "noisier"])
def test_as_many_frames_are_left_wherever_similarities_lie(clips, way) -> None:
    changed = [elsewhere(features, way) for features in clips]
    assert max(abs(one - other) for one, other in zip(near(clips), near(changed), strict=True)) > 0.002
    assert left(clips) < 0.75 * 16
    assert left(changed) == pytest.approx(left(clips), rel=0.1)


def test_unrelated_frames_stay_whatever_their_similarities(clips) -> None:
    """One frame of each clip, none of which shows what another one does."""
    apart = torch.randn(16, *clips[0].shape[1:], generator=torch.Generator().manual_seed(0))
    for features in (apart, elsewhere(apart, "higher")):
        assert run_passes(EarlyTom(), features)[1][-1] == 16
