"""Generated video clips: moving coloured shapes over drifting textures, with the exact truth of every frame.

A clip is a pure function of its seed; it can be drawn at any resolution and any frame rate.
"""

import functools
import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from earlytom.testbed.scene_sampling import sample_clip
from earlytom.testbed.scene_types import (
    COLOURS,
    PATCH_GRID,
    PICTURE_UNITS,
    SLOT_COUNT,
    ByteArray,
    Clip,
    FloatArray,
    Scene,
    SceneObject,
    Truth,
)


def generate_clip(
    seed: int, frame_count: int = SLOT_COUNT, size: int = 96, degrade: bool = True
) -> tuple[ByteArray, Truth]:
    """Draw a whole clip.

    Args:
        seed: Any non-negative number; equal seeds give equal clips.
        frame_count: How many frames to spread evenly over the clip.
        size: Side of the square frames in pixels, a multiple of 12.
        degrade: Whether to add sensor noise, blur and JPEG artefacts.

    Returns:
        The frames, uint8 [T, size, size, 3] in RGB, and their truth.
    """
    return draw_clip(sample_clip(seed), uniform_slots(frame_count), size, degrade)


def uniform_slots(frame_count: int) -> FloatArray:
    """Return the times of ``frame_count`` frames spread evenly over the clip, float32 [T], in slots."""
    return np.linspace(0.0, SLOT_COUNT - 1.0, frame_count, dtype=np.float32)


def draw_clip(clip: Clip, slots: FloatArray, size: int = 96, degrade: bool = True) -> tuple[ByteArray, Truth]:
    """Draw the frames of a clip at the times ``slots`` [T]; see ``generate_clip`` for what is returned."""
    if size % PATCH_GRID:
        raise ValueError(f"size must be a multiple of {PATCH_GRID}, got {size}")
    ends = np.array([scene.end_slot - 0.5 for scene in clip.scenes[:-1]])
    scene_of_frame = np.searchsorted(ends, slots, side="right").astype(np.int64)
    generator = np.random.default_rng([104729, clip.seed])
    frames = np.empty((len(slots), size, size, 3), dtype=np.float32)
    centres = np.zeros((len(slots), len(clip.objects), 2), dtype=np.float32)
    gains = np.empty(len(slots), dtype=np.float32)
    for number, scene in enumerate(clip.scenes):
        chosen = np.flatnonzero(scene_of_frame == number)
        progress = scene.progress(slots[chosen])
        gains[chosen] = scene.gain_start + (scene.gain_end - scene.gain_start) * progress
        for index, share in zip(chosen, progress, strict=True):
            frames[index] = _draw_background(scene, float(share), size)
        shift = progress[:, None] * np.array(scene.object_drift, dtype=np.float32)[None]
        for column, item in enumerate(clip.objects):
            if item.scene == number:
                centres[chosen, column] = item.path(slots[chosen]) + shift
    visible = _visibility(clip.objects, scene_of_frame, slots)
    coverage = _draw_objects(frames, clip.objects, visible, centres)
    gains *= 1.0 + clip.flicker * generator.standard_normal(len(slots)).astype(np.float32)
    frames *= gains[:, None, None, None]
    pixels = _degrade(frames, clip, generator) if degrade else _to_bytes(frames)
    return pixels, Truth(clip.objects, scene_of_frame, visible, centres, coverage)


def _visibility(objects: tuple[SceneObject, ...], scene: NDArray[np.int64], slots: FloatArray) -> NDArray[np.bool_]:
    """Return bool [T, O]: whether each object is shown in each frame."""
    visible = np.zeros((len(slots), len(objects)), dtype=np.bool_)
    for column, item in enumerate(objects):
        lasting = (slots >= item.visible_from) & (slots < item.visible_until)
        visible[:, column] = (scene == item.scene) & (lasting | (not item.brief))
    return visible


def _draw_background(scene: Scene, progress: float, size: int) -> FloatArray:
    """Draw one frame of the texture as the camera sees it, float32 [size, size, 3]."""
    left = scene.corner[0] + scene.background_drift[0] * progress
    top = scene.corner[1] + scene.background_drift[1] * progress
    box = (left, top, left + scene.window, top + scene.window)
    picture = Image.fromarray(scene.texture).resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(picture, dtype=np.float32)


def _draw_objects(
    frames: FloatArray, objects: tuple[SceneObject, ...], visible: NDArray[np.bool_], centres: FloatArray
) -> FloatArray:
    """Paint the visible objects into ``frames`` [T, S, S, 3] in place; returns their patch coverage [T, O, 12, 12]."""
    size = frames.shape[1]
    scale = size / PICTURE_UNITS
    patch = size // PATCH_GRID
    masks = np.zeros((len(frames), len(objects), size, size), dtype=np.float32)
    for index, column in np.argwhere(visible):
        item = objects[column]
        x, y = centres[index, column] * scale
        reach = item.radius * scale * 1.15 + 2.0
        left, right = max(int(x - reach), 0), min(int(x + reach) + 1, size)
        top, bottom = max(int(y - reach), 0), min(int(y + reach) + 1, size)
        across = (np.arange(left, right, dtype=np.float32) + 0.5 - x)[None, :] / scale
        along = (np.arange(top, bottom, dtype=np.float32) + 0.5 - y)[:, None] / scale
        mask = np.clip(0.5 - _signed_distance(item, across, along) * scale, 0.0, 1.0)
        shade = 1.0 - 0.1 * (across + along) / item.radius
        paint = shade[..., None] * (np.array(COLOURS[item.colour]) + np.array(item.tint)).astype(np.float32)
        area = frames[index, top:bottom, left:right]
        area += mask[..., None] * (paint - area)
        masks[index, column, top:bottom, left:right] = mask
    shape = (len(frames), len(objects), PATCH_GRID, patch, PATCH_GRID, patch)
    coverage: FloatArray = masks.reshape(shape).mean(axis=(3, 5))
    return coverage


def _signed_distance(item: SceneObject, across: FloatArray, along: FloatArray) -> NDArray[np.floating]:
    """Return the signed distance in units, negative inside the shape, over the grid ``across`` by ``along``."""
    cosine, sine = math.cos(item.angle), math.sin(item.angle)
    u, v = cosine * across + sine * along, cosine * along - sine * across
    radius = item.radius
    distance: NDArray[np.floating]
    if item.shape == "circle":
        distance = np.hypot(u, v) - radius
    elif item.shape == "square":
        distance = np.maximum(np.abs(u), np.abs(v)) - 0.88 * radius
    elif item.shape == "triangle":
        slope = np.abs(u) * 0.894 - (v + radius) * 0.447
        distance = np.maximum(slope, v - 0.85 * radius)
    else:
        arm = 0.34 * radius
        distance = np.minimum(
            np.maximum(np.abs(u) - radius, np.abs(v) - arm), np.maximum(np.abs(v) - radius, np.abs(u) - arm)
        )
    return distance


@functools.cache
def _noise_bank() -> FloatArray:
    """Return fixed Gaussian noise, float32 [24, 128, 128, 3], from which frames take random crops."""
    return np.random.default_rng(65537).standard_normal((24, 128, 128, 3)).astype(np.float32)


def _degrade(frames: FloatArray, clip: Clip, generator: np.random.Generator) -> ByteArray:
    """Add noise, blur and JPEG artefacts to ``frames`` [T, S, S, 3]; returns uint8 of the same shape."""
    count, size = frames.shape[:2]
    bank = _noise_bank()
    repeats = -(-size // 96)
    for index in range(count):
        top, left = generator.integers(0, 33, size=2)
        crop = bank[int(generator.integers(len(bank))), top : top + 96, left : left + 96]
        grain = np.tile(crop, (repeats, repeats, 1))[:size, :size] if repeats > 1 else crop[:size, :size]
        frames[index] += clip.noise * grain
    strip = Image.fromarray(_to_bytes(frames).reshape(count * size, size, 3))
    if clip.blur:
        strip = strip.filter(ImageFilter.GaussianBlur(clip.blur * size / PICTURE_UNITS))
    buffer = io.BytesIO()
    strip.save(buffer, format="JPEG", quality=clip.quality)
    return np.array(Image.open(buffer).convert("RGB")).reshape(count, size, size, 3)


def _to_bytes(frames: FloatArray) -> ByteArray:
    """Round and clip to uint8."""
    result: ByteArray = np.clip(frames + 0.5, 0, 255).astype(np.uint8)
    return result
