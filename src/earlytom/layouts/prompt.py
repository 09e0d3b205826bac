"""Prompts as spans of placeholders: where the clips are, and which positions stay when some go. On the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.types import FrameGrid, KeptTokens

__all__ = [
    "HostPrompt",
    "ShortPrompt",
    "by_grid",
    "check_placeholders",
    "clip_positions",
    "keep_first",
    "on_host",
    "shorten_prompt",
    "spans",
]


_PROMPT = ("input_ids", "attention_mask")


def on_host(parts: Sequence[Tensor]) -> list[Tensor]:
    """Small tensors on the host; those of one device come in one copy, so that it is waited for once."""
    away = [part for part in parts if part.device.type != "cpu" and part.element_size() <= _fits(part)]
    if len(away) < 2 or len({part.device for part in away}) > 1:
        return [part.cpu() for part in parts]
    packed = torch.cat([_as_integers(part) for part in away]).cpu()
    values = dict(zip(map(id, away), packed.split([part.numel() for part in away]), strict=True))
    return [_from_integers(values[id(part)], part) if id(part) in values else part.cpu() for part in parts]


def _fits(part: Tensor) -> int:
    """Bytes of a value of a kind of number that `_as_integers` keeps."""
    if part.is_complex():
        return 0
    return 4 if part.is_floating_point() else 8


def _as_integers(part: Tensor) -> Tensor:
    """Any numbers as a vector of int64, of floats the bits."""
    flat = part.flatten()
    return (flat.float().view(torch.int32) if part.is_floating_point() else flat).long()


def _from_integers(values: Tensor, like: Tensor) -> Tensor:
    whole = values.view(like.shape)
    return (whole.int().view(torch.float32) if like.is_floating_point() else whole).to(like.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class HostPrompt:
    """A prompt on the host, copied once before the encoder starts: later copies would wait for it.

    Attributes:
        ids, mask: [B, S] int64 each.
        others: further small tensors that the family needs on the host, by their name in the inputs.
    """

    ids: Tensor
    mask: Tensor
    others: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: Mapping[str, Any], *others: str, ids: Tensor | None = None) -> HostPrompt:
        """The prompt of a call that has ``input_ids``.

        Args:
            inputs: of the call, by name.
            others: what else to take along, where it is there.
            ids: ``input_ids`` where they have been copied to the host already.
        """
        inputs = inputs if ids is None else {**inputs, "input_ids": ids}
        found = {name: inputs[name] for name in (*_PROMPT, *others) if inputs.get(name) is not None}
        # as_tensor would bring tensors to the default device of the process.
        parts = [part if isinstance(part, Tensor) else torch.as_tensor(part, device="cpu") for part in found.values()]
        there = dict(zip(found, on_host(parts), strict=True))
        ids, mask = there.pop("input_ids"), there.pop("attention_mask", None)
        return cls(ids=ids, mask=torch.ones_like(ids) if mask is None else mask, others=there)

    @property
    def right_padded(self) -> bool:
        """Whether a sample ends in padding."""
        return bool((self.mask[:, -1] == 0).any())


@dataclass(frozen=True, kw_only=True, eq=False)
class ShortPrompt:
    """Where each position of the shortened batch comes from.

    Attributes:
        index: [B, S'] int64, position in the original prompt; 0 where ``filler``.
        filler: [B, S'] bool, positions that only pad a sample which lost more tokens than another.
        visual_positions: for each sample the new positions of its video tokens.
        dropped: for each sample the number of positions removed.
    """

    index: Tensor
    filler: Tensor
    visual_positions: tuple[tuple[int, ...], ...]
    dropped: tuple[int, ...]

    @property
    def prompt_positions(self) -> Tensor:
        """[B, S'] int64: ``index``, but -1 in the padding; see `PrefillInputs`."""
        return self.index.masked_fill(self.filler, -1)

    def take(self, values: Tensor, filler: int) -> Tensor:
        """Gather [B, S] ``values`` to [B, S'], with ``filler`` in the padding."""
        index, gap = self.index.to(values.device), self.filler.to(values.device)
        return values.gather(1, index).masked_fill(gap, filler)


def check_placeholders(is_video: Tensor, expected: int, clips: int) -> None:
    """Compare placeholders with clips.

    Args:
        is_video: [B, S] bool on the host.
        expected: placeholders that the clips need.
        clips: number of clips.

    Raises:
        CompressionError: the numbers differ.
    """
    found = int(is_video.sum())
    if found != expected:
        raise CompressionError(
            f"the prompt holds {found} video placeholder tokens, but its {clips} video(s) need {expected}; "
            "pass the processor's input_ids and pixel_values_videos together, unchanged"
        )


def clip_positions(is_video: Tensor, grids: Sequence[FrameGrid]) -> list[Tensor]:
    """For each clip the places of its placeholders, [tokens] int64 into the flattened [B, S] ``is_video``."""
    return list(is_video.flatten().nonzero().flatten().split([grid.tokens for grid in grids]))


def spans(marked: Tensor) -> list[tuple[int, int]]:
    """Start and stop of each run of true values in a [S] bool."""
    edge = marked.new_zeros(1)
    edges = torch.cat((edge, marked, edge)).to(torch.int8).diff().nonzero().flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def keep_first(is_video: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Keep the first ``after[v]`` of the ``before[v]`` placeholders of every clip, and everything else.

    Args:
        is_video: [B, S] bool on the host; clips lie behind one another in row-major order.
        before: placeholders of each clip.
        after: placeholders that stay.

    Returns:
        [B, S] bool.
    """
    positions = is_video.flatten().nonzero().flatten()
    keep = torch.ones(is_video.numel(), dtype=torch.bool)
    for clip, left in zip(positions.split(list(before)), after, strict=True):
        keep[clip[left:]] = False
    return keep.view_as(is_video)


def shorten_prompt(keep: Tensor, is_video: Tensor, *, pad_right: bool) -> ShortPrompt:
    """Leave out positions of a batch of prompts.

    Args:
        keep: [B, S] bool on the host, what stays.
        is_video: [B, S] bool on the host, the placeholders of videos.
        pad_right: pad samples that became shorter than others on the right instead of the left.
    """
    rows = [row.nonzero().flatten() for row in keep]
    length = max(len(row) for row in rows)
    index = torch.zeros(len(rows), length, dtype=torch.int64)
    filler = torch.ones(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        place = slice(0, len(row)) if pad_right else slice(length - len(row), length)
        index[number, place] = row
        filler[number, place] = False
    visual = is_video.gather(1, index) & ~filler
    return ShortPrompt(
        index=index,
        filler=filler,
        visual_positions=tuple(tuple(row.nonzero().flatten().tolist()) for row in visual),
        dropped=tuple(is_video.shape[1] - len(row) for row in rows),
    )


def by_grid(kept: Sequence[KeptTokens], grids: Sequence[FrameGrid]) -> tuple[list[KeptTokens], list[list[int]]]:
    """Bring the tokens of each clip into the order of their temporal grids, for prompts with text between these.

    Such a prompt must be cut on the host, so that the places are copied there.

    Returns:
        The tokens, with places on the host, and for each clip the number of tokens left in each grid.

    Raises:
        CompressionError: a grid would get more tokens than it had.
    """
    ordered, counts = [], []
    for tokens, grid, places in zip(kept, grids, on_host([tokens.places for tokens in kept]), strict=True):
        owners = places // grid.tokens_per_frame
        counts.append(torch.bincount(owners, minlength=grid.frames).tolist())
        if max(counts[-1]) > grid.tokens_per_frame:
            raise CompressionError(
                f"{max(counts[-1])} tokens were kept in one frame of {grid.tokens_per_frame}: a method must give each "
                "token it keeps a place of its own"
            )
        order = torch.argsort(owners, stable=True)
        features = tokens.features[order.to(tokens.features.device, non_blocking=True)]
        ordered.append(KeptTokens(features=features, places=places[order]))
    return ordered, counts
