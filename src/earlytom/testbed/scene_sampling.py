"""Drawing the description of a clip from its seed: scenes, cameras, light, and where the objects are and move."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from earlytom.testbed.lettering import sample_lettering
from earlytom.testbed.scene_types import (
    COLOURS,
    DIRECTIONS,
    PICTURE_UNITS,
    SHAPES,
    Clip,
    FloatArray,
    Occluder,
    Scene,
    SceneObject,
)
from earlytom.testbed.series import SERIES, USUAL, Series

_PLACEMENT_ATTEMPTS = 40
_BORDER_UNITS = 2.0
_FADE_SHARE = 0.35
_CODED_SHARE = 0.4
_CROSSING_SHARE = 0.3
_LETTERING_STREAM = 15_485_863


def sample_clip(seed: int, series: Series = SERIES[USUAL]) -> Clip:
    """Draw the description of a clip of a series from its seed."""
    generator = np.random.default_rng([7919, seed])
    scene_count = 1 + int(generator.choice(len(series.scene_counts), p=series.scene_counts))
    scenes = tuple(
        _sample_scene(generator, first, end, number > 0, series)
        for number, (first, end) in enumerate(_scene_bounds(generator, scene_count, series))
    )
    objects = _sample_objects(generator, scenes, series)
    blurred = generator.random() < 0.35
    return Clip(
        seed=seed,
        scenes=_letter(scenes, seed, series),
        objects=objects,
        noise=float(generator.uniform(0.0, series.noise)),
        blur=float(generator.uniform(0.3, 0.8)) if blurred else 0.0,
        rate_factor=int(generator.integers(18, 34)) if generator.random() < _CODED_SHARE else None,
        quality=int(generator.integers(45, 96)),
        flicker=float(generator.uniform(0.0, series.flicker)),
    )


def _letter(scenes: tuple[Scene, ...], seed: int, series: Series) -> tuple[Scene, ...]:
    """Write marks into a share of the scenes, from a source of chance that nothing else draws from."""
    generator = np.random.default_rng([_LETTERING_STREAM, seed])
    return tuple(
        replace(scene, lettering=sample_lettering(generator, float(scene.texture.mean())))
        if generator.random() < series.lettering
        else scene
        for scene in scenes
    )


def _scene_bounds(generator: np.random.Generator, scene_count: int, series: Series) -> list[tuple[int, int]]:
    """Cut the clip's slots into scenes that are long enough; returns (first, end) with the end excluded."""
    spare = series.slots - scene_count * series.shortest_scene
    extra = generator.multinomial(spare, np.full(scene_count, 1.0 / scene_count))
    ends = np.cumsum(extra + series.shortest_scene)
    starts = [0, *ends[:-1].tolist()]
    return [(int(first), int(end)) for first, end in zip(starts, ends, strict=True)]


def _sample_scene(generator: np.random.Generator, first: int, end: int, later: bool, series: Series) -> Scene:
    """Draw the background, camera and light of one scene; only a ``later`` scene can fade in from another."""
    still = generator.random() < series.still
    speed = 0.0 if still else 1.0
    window = float(generator.uniform(7.0, 12.0))
    corner = generator.uniform(4.0, 20.0 - window, size=2)
    drift = generator.uniform(-3.0, 3.0, size=2) * speed
    hazy = generator.random() < 0.4
    haze_drift = generator.uniform(-4.0, 4.0, size=2) * speed
    shift = generator.uniform(-3.0, 3.0, size=2) * speed
    zoomed = generator.random() < 0.3
    zoom = generator.uniform(0.8, 1.25)
    shaken = generator.random() < 0.3
    gain = generator.uniform(0.8, 1.12) * generator.uniform(0.95, 1.05, size=3)
    change = (generator.uniform(-0.25, 0.25) + generator.uniform(-0.05, 0.05, size=3)) * speed
    fades = generator.random() < _FADE_SHARE
    return Scene(
        first_slot=first,
        end_slot=end,
        texture=_sample_texture(generator),
        haze=_sample_texture(generator),
        haze_share=float(generator.uniform(0.2, 0.45)) if hazy else 0.0,
        corner=(float(corner[0]), float(corner[1])),
        window=window,
        background_drift=(float(drift[0]), float(drift[1])),
        haze_drift=(float(haze_drift[0]), float(haze_drift[1])),
        object_drift=(float(shift[0]), float(shift[1])),
        zoom=float(zoom) if zoomed and not still else 1.0,
        shake=float(generator.uniform(0.2, 0.7)) if shaken and not still else 0.0,
        gain_start=_triple(gain - change / 2),
        gain_end=_triple(gain + change / 2),
        fade=float(generator.uniform(0.6, 1.2)) if later and fades else 0.0,
        occluder=_sample_occluder(generator),
    )


def _sample_texture(generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a smooth dull texture, uint8 [24, 24, 3]."""
    base = generator.uniform(40, 120, size=3) * 0.35 + generator.uniform(40, 120) * 0.65
    contrast = generator.uniform(5.0, 26.0)
    rough = generator.standard_normal((24, 24, 3)) * 0.35 + generator.standard_normal((24, 24, 1))
    texture: NDArray[np.uint8] = np.clip(base + contrast * _smooth(rough), 12, 165).astype(np.uint8)
    return texture


def _sample_occluder(generator: np.random.Generator) -> Occluder | None:
    """Draw a bar before the objects, in one scene of five."""
    wanted = generator.random() < 0.2
    colour = generator.uniform(25, 110) * np.array([1.0, 0.95, 0.85]) * generator.uniform(0.95, 1.05, size=3)
    bar = Occluder(
        upright=bool(generator.random() < 0.6),
        middle=float(generator.uniform(30.0, PICTURE_UNITS - 30.0)),
        width=float(generator.uniform(6.0, 12.0)),
        colour=_triple(colour),
    )
    return bar if wanted else None


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Turn an array [3] into a tuple."""
    return float(values[0]), float(values[1]), float(values[2])


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average each cell of [H, W, C] with its right and lower neighbours, wrapping round."""
    return (values + np.roll(values, 1, 0) + np.roll(values, 1, 1) + np.roll(values, (1, 1), (0, 1))) / 2.0


def _sample_objects(
    generator: np.random.Generator, scenes: tuple[Scene, ...], series: Series
) -> tuple[SceneObject, ...]:
    """Draw one to three objects a scene, no colour twice in the clip; in a share of the clips one of them is brief."""
    colours = [str(name) for name in generator.permutation(list(COLOURS))]
    wanted = generator.choice([1, 2, 3], size=len(scenes), p=[0.3, 0.4, 0.3])
    brief_scene = _choose_brief_scene(generator, scenes, series)
    objects: list[SceneObject] = []
    for number, scene in enumerate(scenes):
        has_brief = number == brief_scene
        reserved = sum(1 + (later == brief_scene) for later in range(number + 1, len(scenes)))
        room = max(1 + has_brief, len(colours) - reserved)
        total = min(max(int(wanted[number]), 1 + has_brief), room)
        placed: list[SceneObject] = []
        for position in range(total):
            brief = has_brief and position == 1
            item = _place_object(generator, scene, number, colours[-1], brief, placed, series)
            if item is not None:
                colours.pop()
                placed.append(item)
        objects.extend(placed)
    return tuple(objects)


def _choose_brief_scene(generator: np.random.Generator, scenes: tuple[Scene, ...], series: Series) -> int | None:
    """Pick the scene of the brief object, in a share of the clips; only scenes of five slots or more qualify."""
    long_enough = [number for number, scene in enumerate(scenes) if scene.end_slot - scene.first_slot >= 5]
    if not long_enough or generator.random() < 1.0 - series.brief:
        return None
    return int(generator.choice(long_enough))


def _place_object(
    generator: np.random.Generator,
    scene: Scene,
    number: int,
    colour: str,
    brief: bool,
    placed: list[SceneObject],
    series: Series,
) -> SceneObject | None:
    """Draw an object that stays inside the picture and clear of those already placed; None if none was found."""
    slots = np.arange(scene.first_slot, scene.end_slot, dtype=np.float32)
    moving = not brief and generator.random() < series.moving
    crossing = generator.random() < _CROSSING_SHARE
    for attempt in range(_PLACEMENT_ATTEMPTS):
        still_moving = moving and attempt < _PLACEMENT_ATTEMPTS * 3 // 4
        item = _sample_object(generator, scene, number, colour, brief, still_moving, series)
        path = scene.seen_path(item, slots)
        margin = item.radius * max(scene.zoom, 1.0) + _BORDER_UNITS
        inside = margin <= path.min() and path.max() <= PICTURE_UNITS - margin
        others = [(scene.seen_path(other, slots), other) for other in placed]
        share = 0.6 if crossing and still_moving else 1.0
        if inside and _beside_bar(scene, path, item, still_moving) and _clear(path, item, others, scene, share):
            return item
    return None


def _beside_bar(scene: Scene, path: FloatArray, item: SceneObject, moving: bool) -> bool:
    """Tell whether the bar of the scene leaves most of the object to be seen; a moving one may pass behind it."""
    if scene.occluder is None or moving:
        return True
    distance = np.abs(path[:, 0 if scene.occluder.upright else 1] - scene.occluder.middle)
    return bool(distance.min() > scene.occluder.width / 2.0 + 0.4 * item.radius)


def _clear(
    path: FloatArray,
    item: SceneObject,
    others: list[tuple[FloatArray, SceneObject]],
    scene: Scene,
    share: float,
) -> bool:
    """Tell whether a path [T, 2] keeps the object clear of the others in at least a ``share`` of the slots."""
    for other_path, other in others:
        reach = 1.1 * (item.radius + other.radius) * max(scene.zoom, 1.0)
        if float((np.hypot(*(path - other_path).T) > reach).mean()) < share:
            return False
    return True


def _sample_object(
    generator: np.random.Generator, scene: Scene, number: int, colour: str, brief: bool, moving: bool, series: Series
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
        distance = generator.uniform(26.0, 46.0)
        displacement = (DIRECTIONS[direction][0] * distance, DIRECTIONS[direction][1] * distance)
        if generator.random() < 0.4 and last - first >= 5:
            rest = (last - first) * generator.uniform(0.1, 0.4)
            moves_from, moves_until = (first + rest, last) if generator.random() < 0.5 else (first, last - rest)
    tint = generator.uniform(-14.0, 14.0, size=3)
    return SceneObject(
        colour=colour,
        shape=str(generator.choice(SHAPES)),
        radius=float(generator.uniform(*series.radius)),
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
