"""Dense training labels: what every patch of the encoder and every token of the language model shows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earlytom.testbed.scene_types import (
    COLOURS,
    DIRECTIONS,
    MINIMUM_TRAVEL_UNITS,
    PATCH_GRID,
    PICTURE_UNITS,
    SHAPES,
    Truth,
)

IGNORED = -100
TOKEN_GRID = PATCH_GRID // 2
_MOVED_UNITS = 4.0
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PatchLabels:
    """Labels of N frames for the encoder; class 0 is the background, -100 marks ambiguous patches.

    Attributes:
        colour: int64 [N, 144], 0 to 6.
        shape: int64 [N, 144], 0 to 4.
        offset: float32 [N, 144, 2], from the patch to the centre of its object, in steps of 12 units.
        count: int64 [N], objects in the frame.
    """

    colour: IntArray
    shape: IntArray
    offset: NDArray[np.float32]
    count: IntArray


@dataclass(frozen=True, eq=False)
class TokenLabels:
    """Labels of the T grids of a clip for the language model; -100 where there is nothing to learn.

    Attributes:
        colour: int64 [T, 36], 0 to 5 (no background class).
        shape: int64 [T, 36], 0 to 3 (no background class).
        motion: int64 [T, 36], 0 still, 1 to 4 left, right, up, down.
        brief: int64 [T, 36], 1 where the object is seen only briefly.
        object: int64 [T, 36], 1 where there is an object.
        count: int64 [T], objects in the grid.
        scene: int64 [T], number of the scene.
    """

    colour: IntArray
    shape: IntArray
    motion: IntArray
    brief: IntArray
    object: IntArray
    count: IntArray
    scene: IntArray


def named_labels(truth: Truth, colour: str) -> tuple[int, int]:
    """Return the scene and the motion (0 still, 1 to 4, -100 unclear) of the object of a colour; -100 if not shown."""
    for column, item in enumerate(truth.objects):
        shown = truth.visible[:, column]
        if item.colour == colour and shown.any():
            travelled = float(np.ptp(truth.centres[shown, column], axis=0).max())
            moved = 1 + list(DIRECTIONS).index(item.direction) if item.direction else 0
            return int(truth.scene[shown][0]), moved if travelled >= MINIMUM_TRAVEL_UNITS or not moved else IGNORED
    return IGNORED, IGNORED


def patch_labels(truth: Truth) -> PatchLabels:
    """Return the encoder's labels for every frame of ``truth``."""
    frames = len(truth.scene)
    owner = _owners(truth.coverage, 0.3, 0.08).reshape(frames, -1)
    colours, shapes = _object_classes(truth)
    centre = (np.arange(PATCH_GRID, dtype=np.float32) + 0.5) * (PICTURE_UNITS / PATCH_GRID)
    grid = np.stack(np.meshgrid(centre, centre, indexing="xy"), axis=-1).reshape(1, -1, 2)
    chosen = np.take_along_axis(truth.centres, np.maximum(owner, 0)[..., None].repeat(2, -1), axis=1)
    offset = np.where((owner >= 0)[..., None], (chosen - grid) / 12.0, 0.0).astype(np.float32)
    return PatchLabels(
        colour=_lookup(owner, colours + 1, 0),
        shape=_lookup(owner, shapes + 1, 0),
        offset=offset,
        count=truth.visible.sum(axis=1).astype(np.int64),
    )


def token_labels(truth: Truth, frames_per_grid: int = 1) -> TokenLabels:
    """Return the language model's labels for every pooled 2 by 2 block of patches of the grids of ``truth``."""
    whole = truth.in_grids(frames_per_grid)
    grids, objects = whole.visible.shape
    pooled = whole.coverage.reshape(grids, objects, TOKEN_GRID, 2, TOKEN_GRID, 2).mean(axis=(3, 5))
    owner = _owners(pooled, 0.2, 0.03).reshape(grids, -1)
    colours, shapes = _object_classes(whole)
    brief = np.array([item.brief for item in whole.objects], dtype=np.int64)
    motion = np.take_along_axis(_grid_motion(truth, frames_per_grid), np.maximum(owner, 0), axis=1)
    return TokenLabels(
        colour=_lookup(owner, colours, IGNORED),
        shape=_lookup(owner, shapes, IGNORED),
        motion=np.where(owner >= 0, motion, IGNORED),
        brief=_lookup(owner, brief, IGNORED),
        object=np.where(owner >= 0, 1, np.where(owner == -1, 0, IGNORED)),
        count=whole.visible.sum(axis=1).astype(np.int64),
        scene=whole.scene,
    )


def _owners(coverage: NDArray[np.float32], enough: float, background: float) -> IntArray:
    """Return which object each cell of ``coverage`` [T, O, G, G] shows: its index, -1 background, -2 ambiguous."""
    best = coverage.argmax(axis=1)
    owner = np.where(coverage.max(axis=1) >= enough, best, -2)
    return np.where(coverage.sum(axis=1) <= background, -1, owner)


def _object_classes(truth: Truth) -> tuple[IntArray, IntArray]:
    """Return the colour and shape numbers of the objects, int64 [O] each, from 0."""
    names = list(COLOURS)
    colours = np.array([names.index(item.colour) for item in truth.objects], dtype=np.int64)
    shapes = np.array([SHAPES.index(item.shape) for item in truth.objects], dtype=np.int64)
    return colours, shapes


def _lookup(owner: IntArray, values: IntArray, background: int) -> IntArray:
    """Return the value of each cell's owner, ``background`` for -1 and -100 for -2."""
    found = np.where(owner >= 0, values[np.maximum(owner, 0)], IGNORED)
    return np.where(owner == -1, background, found)


def _grid_motion(truth: Truth, frames_per_grid: int) -> IntArray:
    """Return the motion of each object as known at the end of each grid, int64 [T / frames_per_grid, O]."""
    motion = _motion(truth).reshape(-1, frames_per_grid, len(truth.objects))
    found = motion[:, 0]
    for later in range(1, frames_per_grid):
        found = np.where(motion[:, later] == IGNORED, found, motion[:, later])
    return found


def _motion(truth: Truth) -> IntArray:
    """Return the motion of each object as known at each frame, int64 [T, O]; -100 while it cannot be known yet."""
    directions = list(DIRECTIONS)
    motion = np.full(truth.visible.shape, IGNORED, dtype=np.int64)
    for column, item in enumerate(truth.objects):
        shown = np.flatnonzero(truth.visible[:, column])
        if len(shown) < 2:
            continue
        later = shown[1:]
        if item.direction is None:
            motion[later, column] = 0
            continue
        travelled = np.abs(truth.centres[later, column] - truth.centres[shown[0], column]).max(axis=1)
        motion[later[travelled > _MOVED_UNITS], column] = 1 + directions.index(item.direction)
    return motion
