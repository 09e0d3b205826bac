"""A pool of generated clips whose encoder outputs are kept, so that the language model stage need not encode anew."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import SiglipVisionModel

from earlytom.testbed.scene_types import SLOT_COUNT, Truth
from earlytom.testbed.scenes import generate_clip
from earlytom.testbed.training_encoder import encode_frames

LANGUAGE_SEED = 100_000_000


@dataclass(frozen=True)
class EncodedClip:
    """One clip: ``features`` float16 [16, 144, 128] from the encoder, and the truth of its 16 frames."""

    features: torch.Tensor
    truth: Truth


@dataclass(frozen=True)
class View:
    """Some frames of a clip: ``features`` float16 [T, 144, 128] and their truth."""

    features: torch.Tensor
    truth: Truth


class ClipPool:
    """A ring of encoded clips; new ones take the place of the oldest."""

    def __init__(self, tower: SiglipVisionModel, device: torch.device, capacity: int, start: int = 0) -> None:
        """Start empty, with the clip number ``start`` as the next one; its seed is ``LANGUAGE_SEED + start``."""
        self.next_clip = start
        self._tower = tower
        self._device = device
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
            features = encode_frames(self._tower, frames, self._device).to(torch.float16)
            clip = EncodedClip(features, truth)
            self.next_clip += 1
            if len(self._clips) < self._capacity:
                self._clips.append(clip)
            else:
                self._clips[self._oldest] = clip
                self._oldest = (self._oldest + 1) % self._capacity

    def draw(self, clips: int, frame_count: int, generator: np.random.Generator) -> list[View]:
        """Return ``clips`` views of ``frame_count`` frames each, in the order of time."""
        chosen = generator.choice(len(self._clips), size=clips, replace=len(self._clips) < clips)
        return [_view(self._clips[int(index)], frame_count, generator) for index in chosen]


def _view(clip: EncodedClip, frame_count: int, generator: np.random.Generator) -> View:
    """Draw frames of one clip; those that show a brief object are drawn more often."""
    if frame_count >= SLOT_COUNT:
        return View(clip.features, clip.truth)
    brief = np.array([item.brief for item in clip.truth.objects], dtype=np.bool_)
    weights = 1.0 + 3.0 * (clip.truth.visible & brief[None]).any(axis=1)
    frames = np.sort(generator.choice(SLOT_COUNT, frame_count, replace=False, p=weights / weights.sum()))
    return View(clip.features[torch.from_numpy(frames)], clip.truth.select(frames))
