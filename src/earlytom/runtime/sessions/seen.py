"""What the videos of a session were and cost, as numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from earlytom.runtime.answer import frames_left

if TYPE_CHECKING:
    from earlytom.trace import VideoTrace
    from earlytom.video import Video

__all__ = ["Seen"]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Of all videos together, as `earlytom.Answer` counts them."""

    visual_tokens: int
    visual_tokens_uncompressed: int
    frames: int
    frames_left: int
    temporal_grids: int
    temporal_grids_left: int

    @classmethod
    def of(cls, videos: Sequence[Video], clips: Sequence[VideoTrace]) -> Seen:
        """Count what the traces of the videos say."""
        frames = [len(video.frames) for video in videos]
        return cls(
            visual_tokens=sum(clip.tokens for clip in clips),
            visual_tokens_uncompressed=sum(clip.grid.tokens for clip in clips),
            frames=sum(frames),
            frames_left=sum(frames_left(count, clip) for count, clip in zip(frames, clips, strict=True)),
            temporal_grids=sum(clip.grid.frames for clip in clips),
            temporal_grids_left=sum(clip.temporal_grids_left for clip in clips),
        )

    def counts(self) -> dict[str, int]:
        """By the names that answers have for them."""
        return dataclasses.asdict(self)
