"""What a generated clip is made of, and the exact truth of its frames.

A clip is described in *units* (the picture is always 96 by 96 units) and in *slots* (the clip always lasts 16 slots,
numbered 0 to 15), so that it can be drawn at any resolution and any frame rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PICTURE_UNITS = 96.0
SLOT_COUNT = 16
PATCH_GRID = 12
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (45, 175, 60),
    "blue": (45, 80, 225),
    "yellow": (235, 215, 45),
    "purple": (160, 55, 195),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "cross")
DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
MINIMUM_TRAVEL_UNITS = 14.0

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]


@dataclass(frozen=True)
class SceneObject:
    """One coloured shape; lengths in units, times in slots, ``angle`` in radians."""

    colour: str
    shape: str
    radius: float
    angle: float
    tint: tuple[float, float, float]
    scene: int
    start: tuple[float, float]
    displacement: tuple[float, float]
    moves_from: float
    moves_until: float
    visible_from: float
    visible_until: float
    direction: str | None
    brief: bool

    @property
    def name(self) -> str:
        """The object's colour and shape as an answer would give it, for example ``red circle``."""
        return f"{self.colour} {self.shape}"

    def path(self, slots: FloatArray) -> FloatArray:
        """Return the centres at the times ``slots`` [T] as float32 [T, 2] (x, y in units), camera shift excluded."""
        duration = max(self.moves_until - self.moves_from, 1e-3)
        progress = np.clip((slots - self.moves_from) / duration, 0.0, 1.0)[:, None]
        centres = np.array(self.start)[None] + progress * np.array(self.displacement)[None]
        result: FloatArray = centres.astype(np.float32)
        return result


@dataclass(frozen=True)
class Scene:
    """The stretch between two hard cuts: its slots, its background texture [24, 24, 3] uint8, camera and light."""

    first_slot: int
    end_slot: int
    texture: ByteArray
    corner: tuple[float, float]
    window: float
    background_drift: tuple[float, float]
    object_drift: tuple[float, float]
    gain_start: float
    gain_end: float

    def progress(self, slots: FloatArray) -> FloatArray:
        """Return how far the scene has run, 0 to 1, at the times ``slots`` [T]; float32 [T]."""
        length = max(self.end_slot - 1 - self.first_slot, 1)
        return np.clip((slots - self.first_slot) / length, 0.0, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Clip:
    """The full description of a clip, before it is drawn."""

    seed: int
    scenes: tuple[Scene, ...]
    objects: tuple[SceneObject, ...]
    noise: float
    blur: float
    quality: int
    flicker: float


@dataclass(frozen=True)
class Truth:
    """What every drawn frame shows; T frames, O objects.

    Attributes:
        objects: The O objects of the clip.
        scene: int64 [T], number of the scene of each frame, from 0.
        visible: bool [T, O], whether the object is in the frame.
        centres: float32 [T, O, 2], x and y of the centre in units, camera shift included.
        coverage: float32 [T, O, 12, 12], share of each patch that the object covers, 0 to 1.
    """

    objects: tuple[SceneObject, ...]
    scene: NDArray[np.int64]
    visible: NDArray[np.bool_]
    centres: FloatArray
    coverage: FloatArray

    def select(self, frames: Sequence[int] | NDArray[np.int64]) -> "Truth":
        """Return the truth of the chosen frames only, in rising order; the scenes left are numbered anew from 0."""
        index = np.sort(np.asarray(frames, dtype=np.int64))
        scene = np.unique(self.scene[index], return_inverse=True)[1].astype(np.int64)
        return Truth(self.objects, scene, self.visible[index], self.centres[index], self.coverage[index])
