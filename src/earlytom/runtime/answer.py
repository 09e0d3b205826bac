"""An answer and what it cost, and what a trace says of where its frames came from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earlytom.trace import Trace, VideoTrace
    from earlytom.video import Video

__all__ = ["Answer", "describe_source", "frames_left"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer, and what it cost.

    Attributes:
        text: the answer.
        new_tokens: number of generated tokens.
        visual_tokens: visual tokens that went into the language model, newline embeddings not counted.
        visual_tokens_uncompressed: what they would have been without compression.
        prefill_tokens: tokens of the prefill, text included.
        frames: frames that were sampled.
        frames_left: of these, how many came out of the vision encoder; a temporal grid that is left counts as the
            frames that it holds, so that the two can be compared in every family.
        temporal_grids: what the vision encoder took as one: single frames, or pairs of them in the Qwen families (the
            last of an odd number is paired with itself). The trace counts in these.
        temporal_grids_left: of these, how many came out of the vision encoder.
        ttft: seconds from calling ``generate`` with everything on the device to the first token on the host (vision
            encoder included; video decoding and preprocessing excluded).
        generation: seconds of the whole ``generate`` call.
        decoding: seconds to read the video; preprocessing: seconds in the processor.
        trace: everything else (`earlytom.Trace`).
    """

    text: str
    new_tokens: int
    visual_tokens: int
    visual_tokens_uncompressed: int
    prefill_tokens: int
    frames: int
    frames_left: int
    temporal_grids: int
    temporal_grids_left: int
    ttft: float
    generation: float
    decoding: float
    preprocessing: float
    trace: Trace

    def to_dict(self) -> dict[str, object]:
        """Everything as plain data, for JSON; times in seconds."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "trace"}
        return plain | {"trace": self.trace.to_dict()}


def frames_left(frames: int, clip: VideoTrace) -> int:
    """How many of the sampled frames the temporal grids that are left hold."""
    frames_per_grid = -(-frames // clip.grid.frames)
    return min(frames, frames_per_grid * clip.frames_left)


def describe_source(video: Video) -> dict[str, object]:
    """Where the frames of a clip came from, as plain data for its trace."""
    described: dict[str, object] = {
        "source": video.source,
        "decoder": video.decoder,
        "frame_indices": list(video.indices),
        "source_frames": video.source_frames,
        "source_fps": video.source_fps,
        "frame_timestamps": list(video.timestamps),
        "damaged_frames": [list(run) for run in video.damaged],
        "hdr": video.hdr,
        "pixel_aspect": list(video.pixel_aspect),
    }
    if video.scaled_from:
        described["scaled_from"] = list(video.scaled_from)
    if video.asked:
        described |= {"frames_asked": list(video.asked), "frame_deviations": list(video.deviations)}
    return described
