"""What a generated clip is made of, and the exact truth of its frames.

A clip is described in *units* (the picture is always 96 by 96 units) and in *slots* (the usual clip lasts 16 slots,
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
class Occluder:
    """A bar in front of the objects, across the whole picture: its middle and width in units, its grey or brown."""

    upright: bool
    middle: float
    width: float
    colour: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Lettering:
    """Lines of small marks behind the objects: ``mask`` float32 [96, 96], 1 where there is ink, of this brightness."""

    mask: FloatArray
    ink: float


@dataclass(frozen=True)
class Scene:
    """The stretch between two cuts: its slots, what is behind and in front of the objects, camera and light.

    Attributes:
        first_slot, end_slot: The slots it lasts, the end excluded.
        texture, haze: uint8 [24, 24, 3], the background, and what moves before it with ``haze_share`` of the picture.
        corner, window: Where the camera looks in the texture, in cells.
        background_drift, haze_drift, object_drift: How far they have moved when the scene ends, in cells and units.
        zoom: Size of everything when the scene ends, over its size when it starts.
        shake: Standard deviation of the camera's shaking, in units.
        gain_start, gain_end: Brightness of the three colours when the scene starts and ends.
        fade: Half the length of the cross-fade from the scene before, in slots; 0 for a hard cut.
        occluder: A bar before the objects, or None.
        lettering: Marks like text behind the objects, or None; they stand still while the background drifts.
    """

    first_slot: int
    end_slot: int
    texture: ByteArray
    haze: ByteArray
    haze_share: float
    corner: tuple[float, float]
    window: float
    background_drift: tuple[float, float]
    haze_drift: tuple[float, float]
    object_drift: tuple[float, float]
    zoom: float
    shake: float
    gain_start: tuple[float, float, float]
    gain_end: tuple[float, float, float]
    fade: float
    occluder: Occluder | None
    lettering: Lettering | None = None

    def progress(self, slots: FloatArray) -> FloatArray:
        """Return how far the scene has run, 0 to 1, at the times ``slots`` [T]; float32 [T]."""
        length = max(self.end_slot - 1 - self.first_slot, 1)
        return np.clip((slots - self.first_slot) / length, 0.0, 1.0).astype(np.float32)

    def scale(self, slots: FloatArray) -> FloatArray:
        """Return the size of everything at the times ``slots`` [T], over its size when the scene starts; [T]."""
        result: FloatArray = 1.0 + (self.zoom - 1.0) * self.progress(slots)
        return result

    def seen_path(self, item: SceneObject, slots: FloatArray) -> FloatArray:
        """Return the centres [T, 2] of an object as the camera sees them, shaking excluded; in units."""
        shift = self.progress(slots)[:, None] * np.array(self.object_drift, dtype=np.float32)
        middle = PICTURE_UNITS / 2.0
        result: FloatArray = middle + (item.path(slots) + shift - middle) * self.scale(slots)[:, None]
        return result.astype(np.float32)


@dataclass(frozen=True)
class Clip:
    """The full description of a clip, before it is drawn.

    Attributes:
        seed: What it was drawn from.
        scenes, objects: What it shows.
        noise: Standard deviation of the sensor's noise, of 255.
        blur: Radius of the lens' blur in units; 0 for none.
        rate_factor: Constant rate factor of its H.264 coding; None where JPEG of ``quality`` stands in for it.
        quality: JPEG quality.
        flicker: Standard deviation of the light from frame to frame.
    """

    seed: int
    scenes: tuple[Scene, ...]
    objects: tuple[SceneObject, ...]
    noise: float
    blur: float
    rate_factor: int | None
    quality: int
    flicker: float


@dataclass(frozen=True, eq=False)
class Truth:
    """What every drawn frame shows; T frames, O objects.

    Attributes:
        objects: The O objects of the clip.
        scene: int64 [T], number of the scene of each frame, from 0.
        visible: bool [T, O], whether the object is in the frame, and not hidden behind another or behind a bar.
        centres: float32 [T, O, 2], x and y of the centre in units, camera shift included.
        coverage: float32 [T, O, 12, 12], share of each patch that shows the object, 0 to 1.
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

    def in_grids(self, frames_per_grid: int) -> "Truth":
        """Return the truth of grids of so many frames each, T / frames_per_grid of them.

        What either frame shows is in the grid; a cut inside a grid counts it to the later scene, and an object's centre
        is where it was seen last.
        """
        if frames_per_grid == 1:
            return self
        visible = self.visible.reshape(-1, frames_per_grid, len(self.objects))
        last = frames_per_grid - 1 - visible[:, ::-1].argmax(axis=1)
        shown: NDArray[np.bool_] = np.any(visible, axis=1)
        last = np.where(shown, last, frames_per_grid - 1)
        centres = self.centres.reshape(-1, frames_per_grid, len(self.objects), 2)
        return Truth(
            objects=self.objects,
            scene=self.scene[frames_per_grid - 1 :: frames_per_grid],
            visible=shown,
            centres=np.take_along_axis(centres, last[:, None, :, None], axis=1)[:, 0],
            coverage=self.coverage.reshape(-1, frames_per_grid, *self.coverage.shape[1:]).max(axis=1),
        )
