"""At most so many visual tokens a clip before it is compressed: smaller pictures, or fewer where they have one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earlytom.errors import CompressionError, shown
from earlytom.models import open_model
from earlytom.runtime.preprocessing import frames_per_grid, preprocess, told_as_refusal

if TYPE_CHECKING:
    from torch import nn

    from earlytom.video import Video

__all__ = ["Fitted", "check_kept_to", "check_max_tokens", "fit"]

# A processor that caps each frame's share of a clip never goes below 1.05 times its ``shortest_edge``.
_ABOVE_SHORTEST = 1.05


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A clip as it goes to the processor.

    Attributes:
        video: its frames, fewer than were read where the budget asks for that.
        options: of the processor besides its own.
    """

    video: Video
    options: Mapping[str, Any] = field(default_factory=dict)


def check_max_tokens(max_tokens: object) -> None:
    """Raise `CompressionError` unless this is ``None`` or a number of tokens."""
    if max_tokens is None or (isinstance(max_tokens, int) and not isinstance(max_tokens, bool) and max_tokens >= 1):
        return
    raise CompressionError(f"max_tokens is {shown(max_tokens)}; allowed: None or an integer of at least 1")


def fit(
    processor: Any, model: nn.Module, prompt: Callable[[Video], str], video: Video, max_tokens: int | None
) -> Fitted:
    """Make a clip fit into a number of visual tokens, counted uncompressed, newline embeddings not.

    Where the processor goes by limits of a picture's pixels (the Qwen families) its upper limit falls, to the largest
    one that does, so that pictures are resized as ever, only smaller, if need be to one token a temporal grid. Where
    pictures have one size, and beyond that, evenly spread frames are left out.

    Args:
        processor: the model's processor.
        model: the model.
        prompt: writes the prompt about a clip.
        video: the clip.
        max_tokens: most tokens; ``None``: as many as the clip has.

    Raises:
        CompressionError: the budget is no number of tokens, or below what a single temporal grid takes.
        VideoError: the processor refuses the frames.
    """
    check_max_tokens(max_tokens)
    if max_tokens is None:
        return Fitted(video=video)
    if _resizes_by_pixels(processor.video_processor):
        fewer = _at_most(video, max_tokens * frames_per_grid(processor))
        return Fitted(video=fewer, options=_smaller_pictures(processor, fewer, max_tokens))
    tokens = _tokens_per_grid(processor, model, prompt, video)
    if tokens > max_tokens:
        raise CompressionError(
            f"max_tokens is {max_tokens}, but pictures have one size with this model, and one alone has {tokens} "
            f"visual tokens; allowed: at least {tokens}"
        )
    return Fitted(video=_at_most(video, max_tokens // tokens * frames_per_grid(processor)))


def check_kept_to(model: nn.Module, inputs: Mapping[str, Any], max_tokens: int | None) -> None:
    """Raise `CompressionError` where a processor made more of a clip than the budget that it was fitted into."""
    if max_tokens is None:
        return
    tokens = _visual_tokens(model, inputs)
    if tokens > max_tokens:
        raise CompressionError(
            f"max_tokens is {max_tokens}, but the processor made {tokens} visual tokens of the clip, other than it had "
            "announced; leave max_tokens out, and choose fewer or smaller frames"
        )


def _resizes_by_pixels(video_processor: Any) -> bool:
    """Whether a video processor resizes within limits of a picture's pixels, and can tell what comes of them."""
    size = getattr(video_processor, "size", None) or {}
    limits = size.get("shortest_edge"), size.get("longest_edge")
    return all(limits) and hasattr(video_processor, "get_num_of_video_patches") and video_processor.do_resize


def _smaller_pictures(processor: Any, video: Video, max_tokens: int) -> dict[str, Any]:
    """The processor's options by which a clip fits, of at most ``max_tokens`` temporal grids; none where it does."""
    videos, frames = processor.video_processor, max(len(video.frames), frames_per_grid(processor))
    _, height, width, _ = video.frames.shape
    own = {edge: int(videos.size[edge]) for edge in ("shortest_edge", "longest_edge")}

    def limits(pixels: int) -> dict[str, int]:
        least = max(1, min(own["shortest_edge"], int(pixels / _ABOVE_SHORTEST)))
        return {"shortest_edge": least, "longest_edge": pixels}

    def fits(size: Mapping[str, int]) -> bool:
        return _tokens_of(videos, frames, height, width, size) <= max_tokens

    with told_as_refusal(video):
        if fits(own):
            return {}
        return {"size": limits(_largest(lambda pixels: fits(limits(pixels)), below=own["longest_edge"]))}


def _tokens_of(videos: Any, frames: int, height: int, width: int, size: Mapping[str, int]) -> int:
    """Visual tokens of a clip by what its processor announces for limits of its pictures' pixels."""

    def patches(frames: int, height: int, width: int, least: int, most: int) -> int:
        # transformers asks for the limits by both names, depending on its release.
        both = {"size": {"shortest_edge": least, "longest_edge": most}, "min_pixels": least, "max_pixels": most}
        return int(videos.get_num_of_video_patches(frames, height, width, both))

    held, side, cells = videos.temporal_patch_size, videos.patch_size * videos.merge_size, videos.merge_size**2
    # So does whether a last grid that frames do not fill is counted: one token a grid tells.
    unfilled = held > 1 and patches(2 * held - 1, side, side, 1, 2 * held * side**2) == cells
    announced = patches(frames, height, width, size["shortest_edge"], size["longest_edge"])
    grids = -(-frames // held)
    return announced // (frames // held if unfilled else grids) * grids // cells


def _largest(fits: Callable[[int], bool], *, below: int) -> int:
    """The largest number that fits, found by halving: 1 does, ``below`` does not."""
    least, most = 1, below
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least


def _tokens_per_grid(processor: Any, model: nn.Module, prompt: Callable[[Video], str], video: Video) -> int:
    """Visual tokens of the clip's first temporal grid, by what the processor and the model make of it."""
    first = _at_most(video, 1)
    return _visual_tokens(model, preprocess(processor, prompt(first), first))


def _visual_tokens(model: nn.Module, inputs: Mapping[str, Any]) -> int:
    call = open_model(model).open(inputs)
    return 0 if call is None else sum(grid.tokens for grid in call.grids)


def _at_most(video: Video, count: int) -> Video:
    """The video with at most ``count`` of its frames, evenly spread."""
    if len(video.frames) <= count:
        return video
    return video.taking(np.linspace(0, len(video.frames) - 1, count, dtype=int).tolist())
