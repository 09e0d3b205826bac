"""The one way in: read_video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, Union

import numpy.typing as npt

from earlytom.errors import VideoError
from earlytom.video._frames import is_frames, read_frames
from earlytom.video._source import open_source
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
]

_DEFAULT = Sampling()


def read_video(source: Source, sampling: Sampling = _DEFAULT, *, decoder: Decoder = "pyav", threads: int = 0) -> Video:
    """Read frames of a video.

    Only what is needed is decoded: a table of all frames is read from the packets, and for each frame picked decoding
    starts at the keyframe before it. Where that does not work (AVI with B-frames, raw streams), everything is decoded.

    Args:
        source: a local path, the bytes of a file, a binary file object (read from its start; seekable or not), or the
            pictures themselves: see :func:`earlytom.video._frames.read_frames` for the arrays and lists taken.
        sampling: which frames; by default 32, evenly spread. Clips with fewer frames give each once.
        decoder: ``"pyav"``, or ``"torchcodec"`` where installed. Decoders may differ in the last bits of a colour, so
            the one used is in the result. Pictures need none.
        threads: decoder threads, 0 for the decoder's own choice.

    Returns:
        The frames, RGB and upright, with their numbers and times in the source.

    Raises:
        VideoError: the source is missing, empty, corrupt, truncated, has no video, or an argument is not allowed. The
            message is one line and names the source and the cause; what libav said is chained.
    """
    if decoder not in ("pyav", "torchcodec"):
        raise VideoError(f"decoder is {decoder!r}; allowed: 'pyav', 'torchcodec'")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise VideoError(f"threads is {threads!r}; allowed: an integer of at least 0 (0: automatic)")
    if not isinstance(sampling, Sampling):
        raise VideoError(f"sampling is a {type(sampling).__name__}; allowed: Sampling(...)")
    if is_frames(source):
        return read_frames(source, sampling)
    with open_source(source) as encoded:
        if decoder == "torchcodec":
            from earlytom.video._torchcodec import read_torchcodec

            return read_torchcodec(encoded, sampling, threads)
        from earlytom.video._pyav import read_pyav

        return read_pyav(encoded, sampling, threads)
