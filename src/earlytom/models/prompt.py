"""Shortening a prompt: which of its positions stay when some placeholders go. Index arithmetic on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import CompressionError
from earlytom.types import FrameGrid, KeptTokens, PrefillInputs

__all__ = [
    "HostPrompt",
    "ShortPrompt",
    "by_frame",
    "check_placeholders",
    "keep_first",
    "prefill_inputs",
    "shorten_prompt",
]


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

    @property
    def right_padded(self) -> bool:
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


def prefill_inputs(
    inputs: Mapping[str, Any], prompt: HostPrompt, short: ShortPrompt, embeds: Tensor, consumed: Sequence[str]
) -> PrefillInputs:
    """What stock gets where a token's position is its number in the sequence: embeddings, and the mask they need.

    Args:
        inputs: of the call.
        prompt: on the host.
        short: what stays of it.
        embeds: [B, S', C].
        consumed: the arguments that are used up.
    """
    arguments = {key: value for key, value in inputs.items() if key not in consumed}
    mask = short.take(prompt.mask, 0).to(inputs["input_ids"].device, non_blocking=True)
    arguments |= {"inputs_embeds": embeds, "attention_mask": mask}
    if inputs.get("position_ids") is not None:
        arguments["position_ids"] = short.take(inputs["position_ids"].expand(prompt.ids.shape), 0)
    return PrefillInputs(
        arguments=arguments,
        visual_positions=short.visual_positions,
        dropped=short.dropped,
        prompt_positions=short.prompt_positions,
    )


def by_frame(kept: Sequence[KeptTokens], grids: Sequence[FrameGrid]) -> tuple[list[KeptTokens], list[list[int]]]:
    """Bring the tokens of each clip into the order of their frames, for prompts with text between the frames.

    Such a prompt must be cut on the host, so that the places are copied there.

    Returns:
        The tokens, with places on the host, and for each clip the number of tokens left in each frame.

    Raises:
        CompressionError: a frame would get more tokens than it had.
    """
    ordered, counts = [], []
    for tokens, grid in zip(kept, grids, strict=True):
        places = tokens.places.cpu()
        frames = places // grid.tokens_per_frame
        counts.append(torch.bincount(frames, minlength=grid.frames).tolist())
        if max(counts[-1]) > grid.tokens_per_frame:
            raise CompressionError(
                f"{max(counts[-1])} tokens were kept in one frame of {grid.tokens_per_frame}: a method must give each "
                "token it keeps a place of its own"
            )
        order = torch.argsort(frames, stable=True)
        features = tokens.features[order.to(tokens.features.device, non_blocking=True)]
        ordered.append(KeptTokens(features=features, places=places[order]))
    return ordered, counts
