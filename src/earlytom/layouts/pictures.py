"""Prompts whose clips are series of labelled pictures, as those of InternVL.

Which pictures are frames
    The processor hands over all pictures as one ``pixel_values``: a tile of an image and a frame of a clip look alike.
    What tells them apart is the text that it writes around a clip, and never around an image:
    ``Frame1: <img>...</img>``, a line break, ``Frame2: <img>...</img>``, and so on. Qwen's vocabulary, which all these
    checkpoints have, always writes it with the same ids: each label between two special tokens, one id a digit. So a
    clip is a series of single pictures with exactly these labels and nothing else between them, which count from one.
    Every other picture is an image, however many stand in a row. Labels that are these very words but do not count in
    this way (a second frame without a first, text between two frames, a frame of several tiles) were not written by
    the processor, and are refused. Who labels images of a single tile by hand in exactly the processor's words has
    written a video: not even the model can tell the two apart.

    Only the first word may have grown together with the user's text in front of it (a space, a full stop, ...); what
    the vocabulary has for that is known, anything else in front of a second frame is refused, too.

What is removed
    A kept token stays between the ``<img>`` and ``</img>`` of its own frame, whose label stays, too. A frame that keeps
    no token leaves with its whole text, label and line break included; only a first one whose word has grown together
    with the user's text stays, as ``Frame1: <img></img>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.layouts.prompt import spans

__all__ = ["Pictures", "Run", "read_pictures", "tiles"]

# Qwen's vocabulary, the same from Qwen2 on. Digits are ids of their own; a label always ends in a colon and a space.
_LINE_BREAK, _FRAME, _COLON, _SPACE, _ZERO = 198, 4369, 25, 220, 15
# " Frame", ".Frame", "_Frame", "(Frame": what can become of the first label's word behind other text.
_GROWN_FRAMES = (16321, 36434, 68403, 91008)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One ``<img>...</img>`` of a prompt: a frame, or an image with all its tiles.

    Attributes:
        row: the sample.
        start: position of its first placeholder.
        stop: the position behind its last one.
        tile: number of its first picture in ``pixel_values``.
        tiles: number of its pictures.
        number: what its label counts, when it has the label of a frame; 0 otherwise.
        label: position of the label's first token; ``None`` where that belongs to the user's text as well.
        follows: whether there is only a line break between the picture before and the label.
    """

    row: int
    start: int
    stop: int
    tile: int
    tiles: int
    number: int = 0
    label: int | None = None
    follows: bool = False


@dataclass(frozen=True)
class Pictures:
    """The pictures of a batch in their order: the frames of each clip, and all images."""

    clips: list[list[Run]]
    images: list[Run]

    def frames(self) -> list[Run]:
        """Those of all clips, behind one another."""
        return [run for clip in self.clips for run in clip]

    def is_video(self, like: Tensor) -> Tensor:
        """[B, S] bool: the placeholders of frames, in prompts of the shape of ``like``."""
        marked = torch.zeros_like(like, dtype=torch.bool)
        for run in self.frames():
            marked[run.row, run.start : run.stop] = True
        return marked

    def keep(self, like: Tensor, counts: Sequence[Sequence[int]]) -> Tensor:
        """[B, S] bool: what stays of the prompts when so many tokens are left in each frame of each clip."""
        keep = torch.ones_like(like, dtype=torch.bool)
        for clip, left in zip(self.clips, counts, strict=True):
            _leave_out(keep, clip, left)
        return keep


def tiles(runs: Sequence[Run]) -> list[int]:
    """Numbers of all pictures of some runs."""
    return [tile for run in runs for tile in range(run.tile, run.tile + run.tiles)]


def read_pictures(ids: Tensor, placeholder: int, per_tile: int) -> Pictures:
    """Tell the clips of a batch from its images, by the rule at the head of this module.

    Args:
        ids: [B, S] int64 on the host.
        placeholder: the id that stands for a visual token.
        per_tile: visual tokens of a picture.

    Raises:
        CompressionError: labels of frames that are no clip as the processor writes one.
    """
    pictures, tile = Pictures(clips=[], images=[]), 0
    for row, values in enumerate(ids.tolist()):
        earlier: Run | None = None
        for start, stop in spans(ids[row] == placeholder):
            run = Run(row=row, start=start, stop=stop, tile=tile, tiles=(stop - start) // per_tile)
            run = _labelled(run, values, earlier)
            single = stop - start == per_tile
            if run.number == 0:
                pictures.images.append(run)
            elif single and run.number == 1:
                pictures.clips.append([run])
            elif single and run.follows and earlier is not None and 0 < earlier.number == run.number - 1:
                pictures.clips[-1].append(run)
            else:
                raise CompressionError(
                    f"picture {tile} of the prompt ({stop - start} placeholder tokens in sample {row}) is labelled "
                    f"'Frame{run.number}: ', but not as the processor labels a video: 'Frame1: <img>...</img>', a line "
                    f"break, 'Frame2: <img>...</img>' and so on, {per_tile} placeholder tokens each. Give the "
                    "processor the video as such, behind a line break where there is text before it; label images in "
                    "other words"
                )
            earlier, tile = run, tile + run.tiles
    return pictures


def _labelled(run: Run, values: Sequence[int], earlier: Run | None) -> Run:
    """Read the label of a frame in front of a picture, where there is one, from the ids of its sample."""
    floor = -1 if earlier is None else earlier.stop  # that is where </img> stands
    place = run.start - 4  # behind it stand the colon, the space and <img>
    if place <= floor or list(values[place + 1 : place + 3]) != [_COLON, _SPACE]:
        return run
    digits = ""
    while place > floor and 0 <= values[place] - _ZERO <= 9:
        digits, place = f"{values[place] - _ZERO}{digits}", place - 1
    if place <= floor or not digits or digits[0] == "0" or values[place] not in (_FRAME, *_GROWN_FRAMES):
        return run
    if values[place] != _FRAME:
        return replace(run, number=int(digits))
    follows = earlier is not None and place == earlier.stop + 2 and values[place - 1] == _LINE_BREAK
    return replace(run, number=int(digits), label=place, follows=follows)


def _leave_out(keep: Tensor, clip: Sequence[Run], counts: Sequence[int]) -> None:
    """Mark in the [B, S] ``keep`` what goes from one clip: placeholders, and the text of frames without any left."""
    begun = False
    for run, count in zip(clip, counts, strict=True):
        keep[run.row, run.start + count : run.stop] = False
        gone = count == 0 and run.label is not None
        if gone:
            keep[run.row, run.label : run.stop + 1] = False
        if run.label is not None and run is not clip[0] and (gone or not begun):
            keep[run.row, run.label - 1] = False  # the line break, which stands between two frames that are left
        begun = begun or not gone
