"""The one way in: read_video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, Union

import numpy.typing as npt

from earlytom.errors import VideoError, shown
from earlytom.video._frames import is_frames, read_frames
from earlytom.video._pictures import frame_files, is_animated_webp, read_animated_webp
from earlytom.video._source import Encoded, locate, open_source
from earlytom.video.limits import Limits
from earlytom.video.sampling import Sampling
from earlytom.video.types import Video

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

__all__ = ["Decoder", "Source", "read_video"]

Decoder: TypeAlias = Literal["pyav", "torchcodec"]
# Union: "A" | str between strings fails at run time, and torch and Pillow are not imported for a type.
Source: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    bytes,
    BinaryIO,
    npt.NDArray[Any],
    "torch.Tensor",
    Sequence["Image"],
    Sequence[npt.NDArray[Any]],
    Sequence["torch.Tensor"],
    Sequence[str],
    Sequence["os.PathLike[str]"],
]

_DEFAULT = Sampling()
_LIMITS = Limits()

# libav starts as many as it is told, each with pictures of its own.
_MOST_THREADS = 256


def read_video(
    source: Source,
    sampling: Sampling = _DEFAULT,
    *,
    decoder: Decoder = "pyav",
    threads: int = 0,
    limits: Limits = _LIMITS,
    damage_tolerance: float = 0.0,
) -> Video:
    """Read frames of a video.

    Only what is needed is decoded: a table of all frames is read from the packets, and for each frame picked decoding
    starts at the keyframe before it. Where that does not work (AVI with B-frames, raw streams), everything is decoded.

    Nothing is fetched, and nothing opened but the source itself: playlists and the like are refused, whatever their
    name, and no name stands for anything but a file of that name.

    Args:
        source: a local path, a ``file:`` or ``data:`` URL, the bytes of a file, a binary file object (read from its
            start; seekable or not), a folder or list of picture files, or the pictures themselves: see
            :func:`earlytom.video._frames.read_frames` for the arrays and lists taken. Files of a folder are taken in
            the order of their names, numbers by value.
        sampling: which frames; by default 32, evenly spread. Clips with fewer frames give each once.
        decoder: ``"pyav"``, or ``"torchcodec"`` where installed. Decoders may differ in the last bits of a colour, so
            the one used is in the result. Pictures and animated WebP need none.
        threads: decoder threads, at most 256; 0 for as many as there are cores.
        limits: how large pictures and clips may be.
        damage_tolerance: share of the source's frames, 0 to 1, that may be damaged: for long recordings with a few bad
            frames. A damaged frame spoils those that may refer to it, up to the next keyframe; for each that was picked
            the nearest whole one is given, once, and `Video.damaged` says which are damaged. With the default, any
            damage met is an error, as it always is in pictures and animated WebP. Only with ``decoder="pyav"``.

    Returns:
        The frames, RGB and upright, with their numbers and times in the source.

    Raises:
        VideoError: the source is missing, empty, corrupt, truncated, has no video, is larger than ``limits``, or an
            argument is not allowed. The message is one line and names the source and the cause; what libav said is
            chained.
    """
    if decoder not in ("pyav", "torchcodec"):
        raise VideoError(f"decoder is {shown(decoder)}; allowed: 'pyav', 'torchcodec'")
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= _MOST_THREADS:
        raise VideoError(f"threads is {shown(threads)}; allowed: an integer from 0 (automatic) to {_MOST_THREADS}")
    _check_tolerance(damage_tolerance, decoder)
    if not isinstance(sampling, Sampling):
        raise VideoError(f"sampling is a {type(sampling).__name__}; allowed: Sampling(...)")
    if not isinstance(limits, Limits):
        raise VideoError(f"limits is a {type(limits).__name__}; allowed: Limits(...)")
    if is_frames(source):
        return read_frames(source, sampling, limits)
    located = locate(source, limits)
    if isinstance(located, str) and (pictures := frame_files(located)):
        return replace(read_frames(pictures, sampling, limits), source=located)
    with open_source(located, limits) as encoded:
        video = _decode(encoded, sampling, decoder, threads, damage_tolerance)
    # In messages, long paths are cut short.
    return replace(video, source=located) if isinstance(located, str) else video


def _check_tolerance(value: object, decoder: Decoder) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise VideoError(f"damage_tolerance is a {type(value).__name__}; allowed: a number from 0 to 1")
    if not 0 <= value <= 1:
        raise VideoError(f"damage_tolerance is {shown(value):.40}; allowed: a number from 0 to 1")
    if value and decoder != "pyav":
        raise VideoError(f"damage_tolerance is {shown(value):.40}; allowed with decoder={decoder!r}: 0")


def _decode(source: Encoded, sampling: Sampling, decoder: Decoder, threads: int, tolerance: float) -> Video:
    if is_animated_webp(source):
        return read_animated_webp(source, sampling)
    if decoder == "torchcodec":
        from earlytom.video._torchcodec import read_torchcodec

        return read_torchcodec(source, sampling, threads)
    from earlytom.video._pyav import read_pyav

    return read_pyav(source, sampling, threads, tolerance)
