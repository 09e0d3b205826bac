"""Generated video clips: moving coloured shapes over drifting textures, with the exact truth of every frame.

A clip is a pure function of its seed; it can be drawn at any resolution and any frame rate.
"""

import functools
import io
import math

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from earlytom.testbed.lettering import draw_lettering
from earlytom.testbed.scene_sampling import sample_clip
from earlytom.testbed.scene_types import (
    COLOURS,
    PATCH_GRID,
    PICTURE_UNITS,
    SLOT_COUNT,
    ByteArray,
    Clip,
    FloatArray,
    Occluder,
    Scene,
    SceneObject,
    Truth,
)
from earlytom.testbed.series import SERIES, USUAL, Series

_VISIBLE_SHARE = 0.3
_CODED_RATE = 8


def generate_clip(
    seed: int, frame_count: int = SLOT_COUNT, size: int = 96, degrade: bool = True, series: Series = SERIES[USUAL]
) -> tuple[ByteArray, Truth]:
    """Draw a whole clip.

    Args:
        seed: Any non-negative number; equal seeds give equal clips.
        frame_count: How many frames to spread evenly over the clip.
        size: Side of the square frames in pixels, a multiple of 12.
        degrade: Whether to add sensor noise, blur and the artefacts of H.264 or JPEG.
        series: What clips are like.

    Returns:
        The frames, uint8 [T, size, size, 3] in RGB, and their truth.
    """
    return draw_clip(sample_clip(seed, series), uniform_slots(frame_count, series.slots), size, degrade)


def uniform_slots(frame_count: int, slots: int = SLOT_COUNT) -> FloatArray:
    """Return the times of ``frame_count`` frames spread evenly over a clip of ``slots``, float32 [T], in slots."""
    return np.linspace(0.0, slots - 1.0, frame_count, dtype=np.float32)


def draw_clip(clip: Clip, slots: FloatArray, size: int = 96, degrade: bool = True) -> tuple[ByteArray, Truth]:
    """Draw the frames of a clip at the times ``slots`` [T]; see ``generate_clip`` for what is returned."""
    if size % PATCH_GRID:
        raise ValueError(f"size must be a multiple of {PATCH_GRID}, got {size}")
    shares = _scene_shares(clip.scenes, slots)
    scene_of_frame = shares.argmax(axis=0).astype(np.int64)
    generator = np.random.default_rng([104729, clip.seed])
    frames = np.zeros((len(slots), size, size, 3), dtype=np.float32)
    centres = np.zeros((len(slots), len(clip.objects), 2), dtype=np.float32)
    coverage = np.zeros((len(slots), len(clip.objects), PATCH_GRID, PATCH_GRID), dtype=np.float32)
    for number, scene in enumerate(clip.scenes):
        chosen = np.flatnonzero(shares[number] > 0)
        columns = [column for column, item in enumerate(clip.objects) if item.scene == number]
        shake = generator.standard_normal((len(slots), 2)).astype(np.float32)[chosen] * scene.shake
        if not len(chosen):
            continue
        layer, places, covered = _draw_scene(scene, [clip.objects[c] for c in columns], slots[chosen], shake, size)
        share = shares[number, chosen, None, None, None]
        frames[chosen] += share * layer
        for index, column in enumerate(columns):
            # Where two scenes are seen through each other, an object counts as far as its own scene is seen.
            coverage[chosen, column] = share[..., 0, 0, None] * covered[:, index]
            centres[chosen, column] = places[:, index]
    frames *= (1.0 + clip.flicker * generator.standard_normal(len(slots)).astype(np.float32))[:, None, None, None]
    pixels = _degrade(frames, clip, generator) if degrade else _to_bytes(frames)
    visible = _visibility(clip.objects, coverage)
    visible &= scene_of_frame[:, None] == np.array([item.scene for item in clip.objects])[None]
    return pixels, Truth(clip.objects, scene_of_frame, visible, centres, coverage)


def _scene_shares(scenes: tuple[Scene, ...], slots: FloatArray) -> FloatArray:
    """Return how much of each frame each scene makes up, float32 [S, T]; the S shares of a frame sum to one."""
    shares = np.zeros((len(scenes), len(slots)), dtype=np.float32)
    shares[0] = 1.0
    for number, scene in enumerate(scenes[1:], start=1):
        past = slots - (scene.first_slot - 0.5)
        arrived = np.clip(0.5 + past / (2.0 * scene.fade), 0.0, 1.0) if scene.fade else (past >= 0.0)
        shares[:number] *= 1.0 - arrived
        shares[number] = arrived
    return shares


def _visibility(objects: tuple[SceneObject, ...], coverage: FloatArray) -> NDArray[np.bool_]:
    """Return bool [T, O]: whether enough of each object is seen in each frame, from ``coverage`` [T, O, 12, 12]."""
    cell = PICTURE_UNITS / PATCH_GRID
    seen = coverage.sum(axis=(2, 3)) * cell * cell
    smallest = np.array([_VISIBLE_SHARE * _area(item) for item in objects], dtype=np.float32)
    visible: NDArray[np.bool_] = seen >= smallest
    return visible


def _area(item: SceneObject) -> float:
    """Return the area of an object in square units."""
    factors = {"circle": math.pi, "square": 3.1, "triangle": 1.71, "cross": 2.26}
    return factors[item.shape] * item.radius**2


def _draw_scene(
    scene: Scene, objects: list[SceneObject], slots: FloatArray, shake: FloatArray, size: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw the frames of one scene.

    Args:
        scene: The scene.
        objects: Its O objects.
        slots: float32 [T], the times.
        shake: float32 [T, 2], how far the camera is shaken, in units.
        size: Side of the frames in pixels.

    Returns:
        The frames, float32 [T, size, size, 3]; the objects' centres, float32 [T, O, 2], in units; and the share of
        each patch that shows each object, float32 [T, O, 12, 12].
    """
    progress, scale = scene.progress(slots), scene.scale(slots)
    frames = np.stack(
        [
            _draw_background(scene, float(share), float(zoom), shift, size)
            for share, zoom, shift in zip(progress, scale, shake, strict=True)
        ]
    )
    if scene.lettering is not None:
        draw_lettering(frames, scene.lettering)
    centres = np.zeros((len(slots), len(objects), 2), dtype=np.float32)
    shown = np.zeros((len(slots), len(objects)), dtype=np.bool_)
    for column, item in enumerate(objects):
        centres[:, column] = scene.seen_path(item, slots) + shake
        shown[:, column] = (slots >= item.visible_from) & (slots < item.visible_until) if item.brief else True
    masks = _draw_objects(frames, objects, shown, centres, scale)
    if scene.occluder is not None:
        _draw_occluder(frames, masks, scene.occluder)
    gain = np.array(scene.gain_start) + np.outer(progress, np.array(scene.gain_end) - np.array(scene.gain_start))
    frames *= gain[:, None, None].astype(np.float32)
    patch = size // PATCH_GRID
    shape = (len(slots), len(objects), PATCH_GRID, patch, PATCH_GRID, patch)
    coverage: FloatArray = masks.reshape(shape).mean(axis=(3, 5))
    return frames, centres, coverage


def _draw_background(scene: Scene, progress: float, scale: float, shake: FloatArray, size: int) -> FloatArray:
    """Draw one frame of the texture, and of the haze before it, as the camera sees them, float32 [size, size, 3]."""
    picture = _draw_texture(scene, scene.texture, scene.background_drift, progress, scale, shake, size)
    if not scene.haze_share:
        return picture
    haze = _draw_texture(scene, scene.haze, scene.haze_drift, progress, scale, shake, size)
    return picture + scene.haze_share * (haze - picture)


def _draw_texture(
    scene: Scene,
    texture: ByteArray,
    drift: tuple[float, float],
    progress: float,
    scale: float,
    shake: FloatArray,
    size: int,
) -> FloatArray:
    """Cut the camera's window out of a texture [24, 24, 3]; float32 [size, size, 3]."""
    window = scene.window / scale
    cell = window / PICTURE_UNITS
    middle = scene.window / 2.0
    left, top = (
        float(np.clip(corner + middle + moved * progress - window / 2.0 - shift * cell, 0.0, 24.0 - window))
        for corner, moved, shift in zip(scene.corner, drift, shake, strict=True)
    )
    box = (left, top, left + window, top + window)
    picture = Image.fromarray(texture).resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(picture, dtype=np.float32)


def _draw_objects(
    frames: FloatArray, objects: list[SceneObject], shown: NDArray[np.bool_], centres: FloatArray, scale: FloatArray
) -> FloatArray:
    """Paint the objects into ``frames`` [T, S, S, 3] in place, later ones over earlier ones.

    Returns:
        How much of each pixel shows each object, float32 [T, O, S, S].
    """
    size = frames.shape[1]
    pixel = size / PICTURE_UNITS
    masks = np.zeros((len(frames), len(objects), size, size), dtype=np.float32)
    for index, column in np.argwhere(shown):
        item = objects[column]
        zoom = float(scale[index])
        x, y = centres[index, column] * pixel
        reach = item.radius * zoom * pixel * 1.15 + 2.0
        left, right = max(int(x - reach), 0), min(int(x + reach) + 1, size)
        top, bottom = max(int(y - reach), 0), min(int(y + reach) + 1, size)
        across = (np.arange(left, right, dtype=np.float32) + 0.5 - x)[None, :] / (pixel * zoom)
        along = (np.arange(top, bottom, dtype=np.float32) + 0.5 - y)[:, None] / (pixel * zoom)
        mask = np.clip(0.5 - _signed_distance(item, across, along) * pixel * zoom, 0.0, 1.0)
        shade = 1.0 - 0.1 * (across + along) / item.radius
        paint = shade[..., None] * (np.array(COLOURS[item.colour]) + np.array(item.tint)).astype(np.float32)
        area = frames[index, top:bottom, left:right]
        area += mask[..., None] * (paint - area)
        masks[index, :column, top:bottom, left:right] *= 1.0 - mask
        masks[index, column, top:bottom, left:right] = mask
    return masks


def _draw_occluder(frames: FloatArray, masks: FloatArray, bar: Occluder) -> None:
    """Paint a bar over ``frames`` [T, S, S, 3] and take what it hides from ``masks`` [T, O, S, S], both in place."""
    size = frames.shape[1]
    pixel = size / PICTURE_UNITS
    place = (np.arange(size, dtype=np.float32) + 0.5) / pixel
    profile = np.clip((bar.width / 2.0 - np.abs(place - bar.middle)) * pixel + 0.5, 0.0, 1.0)
    mask = np.broadcast_to(profile[None, :] if bar.upright else profile[:, None], (size, size))
    frames += mask[..., None] * (np.array(bar.colour, dtype=np.float32) - frames)
    masks *= 1.0 - mask


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
    """Add noise, blur and coding artefacts to ``frames`` [T, S, S, 3]; returns uint8 of the same shape."""
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
    if clip.rate_factor is not None:
        return code_video(np.asarray(strip).reshape(count, size, size, 3), clip.rate_factor)
    buffer = io.BytesIO()
    strip.save(buffer, format="JPEG", quality=clip.quality)
    return np.array(Image.open(buffer).convert("RGB")).reshape(count, size, size, 3)


def code_video(frames: ByteArray, rate_factor: int) -> ByteArray:
    """Code frames, uint8 [T, S, S, 3], as H.264 with the constant rate factor given, and decode them again."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        # Without mbtree=0, x264 gives another file from call to call for pictures as small as these.
        options = {"crf": str(rate_factor), "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=_CODED_RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r") as source:
        source.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)])


def _to_bytes(frames: FloatArray) -> ByteArray:
    """Round and clip to uint8."""
    result: ByteArray = np.clip(frames + 0.5, 0, 255).astype(np.uint8)
    return result
