"""A pool of generated clips whose encoder outputs are kept, so that the language model stage need not encode anew."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from earlytom.testbed.scene_types import SLOT_COUNT, ByteArray, Truth
from earlytom.testbed.scenes import generate_clip

LANGUAGE_SEED = 100_000_000


@dataclass(frozen=True, eq=False)
class EncodedClip:
    """One clip: ``features`` float16 [G, 144, 128] of its grids from the encoder, and the truth of its 16 frames."""

    features: torch.Tensor
    truth: Truth


@dataclass(frozen=True, eq=False)
class View:
    """Some grids of a clip: ``features`` float16 [G, 144, 128], and the truth of their frames."""

    features: torch.Tensor
    truth: Truth


class ClipPool:
    """A ring of encoded clips; new ones take the place of the oldest."""

    def __init__(self, encode: Callable[[ByteArray], torch.Tensor], capacity: int, start: int = 0) -> None:
        """Start empty.

        Args:
            encode: Turns the frames of a clip into its features [G, 144, 128].
            capacity: How many clips are kept.
            start: Number of the first clip; its seed is ``LANGUAGE_SEED + start``.
        """
        self.next_clip = start
        self._encode = encode
        self._capacity = capacity
        self._clips: list[EncodedClip] = []
        self._oldest = 0

    def __len__(self) -> int:
        """Return how many clips the pool holds."""
        return len(self._clips)

    @torch.no_grad()
    def add(self, count: int) -> None:
        """Generate and encode the next ``count`` clips."""
        for _ in range(count):
            frames, truth = generate_clip(LANGUAGE_SEED + self.next_clip)
            features = self._encode(frames).to(torch.float16)
            clip = EncodedClip(features, truth)
            self.next_clip += 1
            if len(self._clips) < self._capacity:
                self._clips.append(clip)
            else:
                self._clips[self._oldest] = clip
                self._oldest = (self._oldest + 1) % self._capacity

    def draw(self, clips: int, frame_count: int, generator: np.random.Generator) -> list[View]:
        """Return ``clips`` views of ``frame_count`` frames each, in the order of time; at least one grid each."""
        chosen = generator.choice(len(self._clips), size=clips, replace=len(self._clips) < clips)
        return [_view(self._clips[int(index)], frame_count, generator) for index in chosen]


def _view(clip: EncodedClip, frame_count: int, generator: np.random.Generator) -> View:
    """Draw grids of one clip; those that show a brief object are drawn more often."""
    if frame_count >= SLOT_COUNT:
        return View(clip.features, clip.truth)
    frames_per_grid = SLOT_COUNT // len(clip.features)
    brief = np.array([item.brief for item in clip.truth.objects], dtype=np.bool_)
    shown = (clip.truth.visible & brief[None]).any(axis=1).reshape(-1, frames_per_grid).any(axis=1)
    weights = 1.0 + 3.0 * shown
    wanted = max(1, frame_count // frames_per_grid)
    grids = np.sort(generator.choice(len(clip.features), wanted, replace=False, p=weights / weights.sum()))
    frames = (grids[:, None] * frames_per_grid + np.arange(frames_per_grid)).reshape(-1)
    return View(clip.features[torch.from_numpy(grids)], clip.truth.select(frames))
