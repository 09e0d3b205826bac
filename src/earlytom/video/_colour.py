"""From decoded pictures to RGB bytes, with the colour matrix and range the stream declares."""

from __future__ import annotations

from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

__all__ = ["Look", "look_of", "to_rgb"]

# Matrices swscale knows, under the numbers H.273 gives them (BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020 twice).
_KNOWN = frozenset({1, 4, 5, 6, 7, 9, 10})

# Transfer functions of high dynamic range, under their numbers in H.273.
_HDR: dict[int, Literal["pq", "hlg"]] = {16: "pq", 18: "hlg"}


class Look(TypedDict):
    """What is left undone to pictures, as fields of a `Video`."""

    hdr: Literal["pq", "hlg"] | None
    pixel_aspect: tuple[int, int]


def look_of(stream: VideoStream) -> Look:
    """What a stream declares that its frames are not converted from."""
    aspect = stream.sample_aspect_ratio
    return {
        "hdr": _HDR.get(int(stream.codec_context.color_trc or 0)),
        "pixel_aspect": (aspect.numerator, aspect.denominator) if aspect else (1, 1),
    }


def to_rgb(
    frame: VideoFrame, reformatter: VideoReformatter, size: tuple[int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """Convert a decoded frame.

    Args:
        frame: any pixel format swscale reads.
        reformatter: kept by the caller between frames, as it holds conversion tables.
        size: width and height to scale down to; None or the frame's own: left as they are.

    Returns:
        uint8 ``[H, W, 3]``, full range. Pictures that declare no matrix are taken as BT.601, as FFmpeg does.
    """
    matrix: int = frame.colorspace if frame.colorspace in _KNOWN else Colorspace.ITU601
    # PyAV applies the matrix and range of the source only where they differ from the target's, and it would take the
    # target's from the source: BT.709 video would come out in BT.601 colours. RGB has no matrix, so any other will do.
    other = Colorspace.ITU601 if matrix != Colorspace.ITU601 else Colorspace.SMPTE170M
    # Gray without a declared range is full range to swscale, but not to PyAV's way of calling it.
    full = frame.color_range == ColorRange.JPEG or (not frame.color_range and frame.format.name.startswith("gray"))
    scaling = {} if size in (None, (frame.width, frame.height)) else _scaling(*size)
    picture = reformatter.reformat(
        frame,
        **scaling,
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=other,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return np.asarray(picture.to_ndarray(), dtype=np.uint8)


def _scaling(width: int, height: int) -> dict[str, int]:
    """Arguments for scaling down, with the filter that most processors use."""
    return {"width": width, "height": height, "interpolation": Interpolation.BICUBIC}
