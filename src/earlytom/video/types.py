"""The result of reading a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Video"]

_Value = TypeVar("_Value")


# eq=False: comparing arrays with == has no single truth value, so a generated __eq__ would raise.
@dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """Frames picked from a video, with what is needed to say later where they came from.

    Attributes:
        frames: uint8 ``[T, H, W, 3]``, RGB, C-contiguous, upright (display matrix applied). The pixel aspect ratio is
            left as stored: an anamorphic video stays squeezed (``pixel_aspect``). High dynamic range is not tone-mapped
            (``hdr``).
        indices: ``T`` frame numbers in the source, presentation order, strictly ascending, from 0.
        timestamps: ``T`` presentation times in seconds since the first frame of the source; empty when the source has
            no clock (arrays and images).
        source_frames: number of frames in the source, at least ``T``.
        source_fps: average frames per second as the source claims (animated WebP: as they are), None when it has no
            clock. A claim may be far off, as in recordings of a screen; ``timestamps`` are the frames' own times, and
            what models are told about time comes from these.
        duration: seconds from the start of the first to the end of the last frame, None when unknown.
        decoder: ``"pyav"``, ``"torchcodec"``, ``"pillow"`` (animated WebP) or ``"frames"`` (pictures).
        source: the path of a file or folder, ``"<bytes>"`` (also from a data URL), ``"<file object>"``, ``"<array>"``,
            ``"<tensor>"`` or ``"<images>"``.
        decoded: number of frames the decoder put out to get these ``T``; None when the decoder does not tell.
        scaled_from: width and height stored in the source, where `Limits.shrink_to` made the frames smaller; else None.
        damaged: frames of the source that are lost or damaged, as (first, last) numbers of each run of them; none of
            the ``T`` is among them. Empty unless ``read_video(damage_tolerance=...)`` allowed some, and where none was
            met: frames that were not needed are not looked at.
        hdr: ``"pq"`` or ``"hlg"`` where the source declares such values, which ``frames`` then hold as they are, flat
            and dark or pale; else None.
        pixel_aspect: width to height of a pixel, as declared for the stored picture, before it is turned upright; 1:1
            where nothing is declared.
        asked: the ``T`` frame numbers that the sampling chose, where `Sampling.near` let others be taken for some of
            them; else empty.
        deviations: how many seconds later each of the ``T`` frames is than the one asked for, negative where it is
            earlier; empty as ``asked`` is.
    """

    frames: npt.NDArray[np.uint8]
    indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    source_frames: int
    source_fps: float | None
    duration: float | None
    decoder: str
    source: str
    decoded: int | None
    scaled_from: tuple[int, int] | None = None
    damaged: tuple[tuple[int, int], ...] = ()
    hdr: Literal["pq", "hlg"] | None = None
    pixel_aspect: tuple[int, int] = (1, 1)
    asked: tuple[int, ...] = ()
    deviations: tuple[float, ...] = ()

    def taking(self, places: Sequence[int]) -> Self:
        """The video with only some of its frames, and of all that is told frame by frame what is told of these.

        Args:
            places: of the frames among the ``T``, strictly ascending, from 0.

        Raises:
            IndexError: there is no such frame.
        """
        indices, asked = _at(places, self.indices), _at(places, self.asked)
        deviations = _at(places, self.deviations)
        if asked == indices:  # none of these was taken for another one
            asked, deviations = (), ()
        return replace(
            self,
            frames=self.frames[list(places)],
            indices=indices,
            timestamps=_at(places, self.timestamps),
            asked=asked,
            deviations=deviations,
        )


def _at(places: Sequence[int], told: tuple[_Value, ...]) -> tuple[_Value, ...]:
    """What is told of some frames, where anything is told of frames at all."""
    return tuple(told[place] for place in places) if told else ()
