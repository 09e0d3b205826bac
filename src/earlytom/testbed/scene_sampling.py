"""Drawing the description of a clip from its seed: scenes, cameras, light, and where the objects are and move."""

import numpy as np
from numpy.typing import NDArray

from earlytom.testbed.scene_types import (
    COLOURS,
    DIRECTIONS,
    PICTURE_UNITS,
    SHAPES,
    SLOT_COUNT,
    Clip,
    FloatArray,
    Scene,
    SceneObject,
)

_SCENE_COUNT_WEIGHTS = (0.35, 0.4, 0.25)
_SHORTEST_SCENE = 4
_PLACEMENT_ATTEMPTS = 40
_BORDER_UNITS = 3.0


def sample_clip(seed: int) -> Clip:
    """Draw the description of a clip from its seed."""
    generator = np.random.default_rng([7919, seed])
    scene_count = 1 + int(generator.choice(3, p=_SCENE_COUNT_WEIGHTS))
    bounds = _scene_bounds(generator, scene_count)
    scenes = tuple(_sample_scene(generator, first, end) for first, end in bounds)
    objects = _sample_objects(generator, scenes)
    blurred = generator.random() < 0.35
    return Clip(
        seed=seed,
        scenes=scenes,
        objects=objects,
        noise=float(generator.uniform(0.0, 7.0)),
        blur=float(generator.uniform(0.3, 0.8)) if blurred else 0.0,
        quality=int(generator.integers(45, 96)),
        flicker=float(generator.uniform(0.0, 0.03)),
    )


def _scene_bounds(generator: np.random.Generator, scene_count: int) -> list[tuple[int, int]]:
    """Cut the 16 slots into scenes of at least four slots; returns (first, end) with the end excluded."""
    spare = SLOT_COUNT - scene_count * _SHORTEST_SCENE
    extra = generator.multinomial(spare, np.full(scene_count, 1.0 / scene_count))
    ends = np.cumsum(extra + _SHORTEST_SCENE)
    starts = [0, *ends[:-1].tolist()]
    return [(int(first), int(end)) for first, end in zip(starts, ends, strict=True)]


def _sample_scene(generator: np.random.Generator, first: int, end: int) -> Scene:
    """Draw the background, camera and light of one scene."""
    base = generator.uniform(40, 120, size=3) * 0.35 + generator.uniform(40, 120) * 0.65
    contrast = generator.uniform(5.0, 26.0)
    rough = generator.standard_normal((24, 24, 3)) * 0.35 + generator.standard_normal((24, 24, 1))
    texture = np.clip(base + contrast * _smooth(rough), 12, 165).astype(np.uint8)
    still = generator.random() < 0.25
    speed = 0.0 if still else 1.0
    window = float(generator.uniform(7.0, 13.0))
    corner = generator.uniform(4.0, 20.0 - window, size=2)
    drift = generator.uniform(-2.5, 2.5, size=2) * speed
    shift = generator.uniform(-3.0, 3.0, size=2) * speed
    gain = generator.uniform(0.82, 1.12)
    change = generator.uniform(-0.14, 0.14) * speed
    return Scene(
        first_slot=first,
        end_slot=end,
        texture=texture,
        corner=(float(corner[0]), float(corner[1])),
        window=window,
        background_drift=(float(drift[0]), float(drift[1])),
        object_drift=(float(shift[0]), float(shift[1])),
        gain_start=float(gain - change / 2),
        gain_end=float(gain + change / 2),
    )


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average each cell of [H, W, C] with its right and lower neighbours, wrapping round."""
    return (values + np.roll(values, 1, 0) + np.roll(values, 1, 1) + np.roll(values, (1, 1), (0, 1))) / 2.0


def _sample_objects(generator: np.random.Generator, scenes: tuple[Scene, ...]) -> tuple[SceneObject, ...]:
    """Draw one to three objects a scene, no colour twice in the clip; in half of the clips one of them is brief."""
    colours = [str(name) for name in generator.permutation(list(COLOURS))]
    wanted = generator.choice([1, 2, 3], size=len(scenes), p=[0.3, 0.4, 0.3])
    brief_scene = _choose_brief_scene(generator, scenes)
    objects: list[SceneObject] = []
    for number, scene in enumerate(scenes):
        has_brief = number == brief_scene
        reserved = sum(1 + (later == brief_scene) for later in range(number + 1, len(scenes)))
        room = max(1 + has_brief, len(colours) - reserved)
        total = min(max(int(wanted[number]), 1 + has_brief), room)
        placed: list[SceneObject] = []
        for position in range(total):
            brief = has_brief and position == 1
            item = _place_object(generator, scene, number, colours[-1], brief, placed)
            if item is not None:
                colours.pop()
                placed.append(item)
        objects.extend(placed)
    return tuple(objects)


def _choose_brief_scene(generator: np.random.Generator, scenes: tuple[Scene, ...]) -> int | None:
    """Pick the scene of the brief object, in half of the clips; only scenes of five slots or more qualify."""
    long_enough = [number for number, scene in enumerate(scenes) if scene.end_slot - scene.first_slot >= 5]
    if not long_enough or generator.random() < 0.5:
        return None
    return int(generator.choice(long_enough))


def _place_object(
    generator: np.random.Generator, scene: Scene, number: int, colour: str, brief: bool, placed: list[SceneObject]
) -> SceneObject | None:
    """Draw an object that stays inside the picture and clear of those already placed; None if none was found."""
    slots = np.arange(scene.first_slot, scene.end_slot, dtype=np.float32)
    moving = not brief and generator.random() < 0.6
    for attempt in range(_PLACEMENT_ATTEMPTS):
        still_moving = moving and attempt < _PLACEMENT_ATTEMPTS * 3 // 4
        item = _sample_object(generator, scene, number, colour, brief, still_moving)
        path = item.path(slots)
        margin = item.radius + _BORDER_UNITS
        inside = margin <= path.min() and path.max() <= PICTURE_UNITS - margin
        if inside and all(_clear(path, item, other.path(slots), other) for other in placed):
            return item
    return None


def _clear(path: FloatArray, item: SceneObject, other_path: FloatArray, other: SceneObject) -> bool:
    """Tell whether two paths [T, 2] keep the objects from overlapping at every slot."""
    distance = np.hypot(*(path - other_path).T)
    return bool(distance.min() > 1.1 * (item.radius + other.radius))


def _sample_object(
    generator: np.random.Generator, scene: Scene, number: int, colour: str, brief: bool, moving: bool
) -> SceneObject:
    """Draw one object without regard to the others."""
    first, last = float(scene.first_slot), float(scene.end_slot - 1)
    start = generator.uniform(14.0, PICTURE_UNITS - 14.0, size=2)
    direction, displacement = None, (0.0, 0.0)
    moves_from, moves_until = first, last
    visible_from, visible_until = first - 0.5, last + 0.5
    if brief:
        duration = int(generator.integers(1, 3))
        appears = int(generator.integers(scene.first_slot + 1, scene.end_slot - duration))
        visible_from, visible_until = appears - 0.5, appears + duration - 0.5
    elif moving:
        direction = str(generator.choice(list(DIRECTIONS)))
        distance = generator.uniform(28.0, 44.0)
        displacement = (DIRECTIONS[direction][0] * distance, DIRECTIONS[direction][1] * distance)
        if generator.random() < 0.4 and last - first >= 5:
            rest = (last - first) * generator.uniform(0.1, 0.4)
            moves_from, moves_until = (first + rest, last) if generator.random() < 0.5 else (first, last - rest)
    tint = generator.uniform(-14.0, 14.0, size=3)
    return SceneObject(
        colour=colour,
        shape=str(generator.choice(SHAPES)),
        radius=float(generator.uniform(10.5, 13.5)),
        angle=float(generator.uniform(-0.2, 0.2)),
        tint=(float(tint[0]), float(tint[1]), float(tint[2])),
        scene=number,
        start=(float(start[0]), float(start[1])),
        displacement=displacement,
        moves_from=moves_from,
        moves_until=moves_until,
        visible_from=visible_from,
        visible_until=visible_until,
        direction=direction,
        brief=brief,
    )
