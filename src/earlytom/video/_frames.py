"""Frames that are pictures already: arrays, tensors and lists of images."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from earlytom.errors import VideoError, shown_cause
from earlytom.video._pictures import read_picture
from earlytom.video.limits import Limits
from earlytom.video.sampling import Sampling
from earlytom.video.types import Video

__all__ = ["is_frames", "read_frames"]

_CHANNELS = (1, 3, 4)


def _is_tensor(value: object) -> bool:
    # Whoever holds a tensor has imported torch; looking there keeps it out of this package's import.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_picture(value: object) -> bool:
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(value, pil.Image)


def is_frames(source: object) -> bool:
    """Whether a source consists of pictures, so that nothing has to be decoded."""
    return isinstance(source, (np.ndarray, list, tuple)) or _is_tensor(source) or _is_picture(source)


def _array(value: Any) -> npt.NDArray[Any]:
    if _is_tensor(value):
        value = value.detach().cpu()
        # numpy has no bfloat16.
        return np.asarray((value.float() if value.is_floating_point() else value).numpy())
    return np.asarray(value)


def _bytes(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise VideoError(f"{name}: dtype is {values.dtype}; allowed: uint8 in 0..255, or floating point in 0..1")
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise VideoError(f"{name}: floating-point values run from {low:g} to {high:g}; allowed: 0 to 1")
    return np.rint(values.astype(np.float32) * 255).astype(np.uint8)


def _rgb(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """``[..., H, W]``-shaped pictures with channels last (1, 3 or 4) to RGB bytes; alpha is dropped."""
    pixels = _bytes(values, name)[..., :3]
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _channels_last(values: npt.NDArray[Any], name: str, first: int) -> npt.NDArray[Any]:
    """Move channels to the end; ``first`` is the axis they are on when they are not last already."""
    if values.shape[-1] in _CHANNELS:
        return values
    if values.shape[first] in _CHANNELS:
        return np.moveaxis(values, first, -1)
    raise VideoError(f"{name}: shape is {list(values.shape)}; allowed: 1, 3 or 4 channels, first or last")


def _stack(source: Any, name: str, sampling: Sampling, limits: Limits) -> tuple[npt.NDArray[np.uint8], list[int], int]:
    shape = list(source.shape)
    if len(shape) not in (3, 4):
        raise VideoError(f"{name}: shape is {shape}; allowed: [T, H, W, 3], [T, 3, H, W] or [T, H, W]")
    if 0 in shape:
        raise VideoError(f"{name}: is empty (shape {shape})")
    if len(shape) == 3 and shape[-1] in (3, 4):
        raise VideoError(f"{name}: shape {shape} is one picture, not a video; pass a list of pictures")
    indices = sampling.indices(shape[0])
    channels_first = len(shape) == 4 and shape[-1] not in _CHANNELS
    height, width = shape[2:] if channels_first else shape[1:3]
    limits.check(name, width, height, len(indices))
    # Picking first: a float video of thousands of frames is converted for the few that are used only.
    values = _array(source[indices])
    values = values[..., np.newaxis] if len(shape) == 3 else _channels_last(values, name, 1)
    return _rgb(values, name), indices, shape[0]


def _picture(value: Any, name: str, limits: Limits) -> npt.NDArray[np.uint8]:
    limits.check(name, *value.size)
    try:
        # Pillow may read the file only now.
        return np.asarray(value.convert("RGB"))
    except Exception as error:
        raise VideoError(f"{name}: cannot be read: {shown_cause(error)}") from error


def _one(value: object, name: str, limits: Limits) -> npt.NDArray[np.uint8]:
    if isinstance(value, (str, os.PathLike)):
        return read_picture(value, limits)
    if _is_picture(value):
        return _picture(value, name, limits)
    if not (isinstance(value, np.ndarray) or _is_tensor(value)):
        raise VideoError(
            f"{name}: is a {type(value).__name__}; allowed: PIL images, numpy arrays, torch tensors, paths of pictures"
        )
    values = _array(value)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise VideoError(f"{name}: shape is {list(values.shape)}; allowed: [H, W, 3], [3, H, W] or [H, W]")
    return _rgb(values[..., np.newaxis] if values.ndim == 2 else _channels_last(values, name, 0), name)


def _images(
    source: Sequence[object], sampling: Sampling, limits: Limits
) -> tuple[npt.NDArray[np.uint8], list[int], int]:
    if not source:
        raise VideoError("<images>: the list is empty")
    indices = sampling.indices(len(source))
    first = _one(source[0], "<images>: image 0", limits)
    limits.check("<images>", first.shape[1], first.shape[0], len(indices))
    # One array from the start: a list of pictures to stack would hold all of them twice.
    pictures = np.empty((len(indices), *first.shape), dtype=np.uint8)
    for slot, index in enumerate(indices):
        picture = first if index == 0 else _one(source[index], f"<images>: image {index}", limits)
        if picture.shape != first.shape:
            raise VideoError(
                f"<images>: image {index} is {picture.shape[1]}x{picture.shape[0]} pixels, image 0 is "
                f"{first.shape[1]}x{first.shape[0]}; allowed: one size"
            )
        pictures[slot] = picture
    return pictures, indices, len(source)


def read_frames(source: Any, sampling: Sampling, limits: Limits) -> Video:
    """Take frames from pictures in memory.

    Args:
        source: array or tensor ``[T, H, W, C]``, ``[T, C, H, W]`` or ``[T, H, W]`` with C of 1, 3 or 4, or a list of
            PIL images, paths of pictures and such arrays without T. uint8, or floating point in 0..1 (scaled by 255,
            rounded to nearest). Grayscale is repeated to RGB, alpha dropped. Where both ends could be channels, the
            last is.
        sampling: which frames; ``fps`` and a spacing in time are errors, since pictures have no clock.
        limits: how large pictures and the frames taken may be.

    Returns:
        A copy of the frames picked, without timestamps.

    Raises:
        VideoError: wrong shape, dtype or range, no frames, a file that is no picture, pictures of different sizes, or
            more than the limits allow.
    """
    if _is_picture(source):
        raise VideoError("<images>: one PIL image is not a video; pass a list of images")
    if isinstance(source, (list, tuple)):
        name = "<images>"
    else:
        name = "<array>" if isinstance(source, np.ndarray) else "<tensor>"
    if sampling.fps is not None:
        raise VideoError(f"{name}: has no clock, so Sampling.fps cannot be used; allowed here: Sampling(frames=...)")
    if sampling.spacing == "time":
        raise VideoError(f"{name}: has no clock, so Sampling.spacing cannot be 'time'; allowed here: 'index'")
    if name == "<images>":
        frames, indices, count = _images(source, sampling, limits)
    else:
        frames, indices, count = _stack(source, name, sampling, limits)
    return Video(
        frames=np.ascontiguousarray(frames),
        indices=tuple(indices),
        timestamps=(),
        source_frames=count,
        source_fps=None,
        duration=None,
        decoder="frames",
        source=name,
        decoded=0,
    )
