"""Several prompts about one clip: the processor sees the clip once, and the other prompts take over what it made of it.

Processors want a video for every prompt, and would resize the same frames again for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from earlytom.errors import CompressionError

__all__ = ["share_clip"]


def share_clip(processor: Any, inputs: Mapping[str, Any], prompts: Sequence[str]) -> dict[str, Any]:
    """Widen the inputs of one prompt about a clip to several prompts about it, padded on the left.

    Args:
        processor: the model's processor.
        inputs: its output for ``prompts[0]`` alone, on the model's device.
        prompts: texts as the chat template wrote them, alike up to the clip's placeholder, with text only behind it.

    Returns:
        Inputs for ``generate``. The clip is expanded, which `earlytom.compress` encodes once; packed patches, and
        frames that are handed over like images, get a dimension for the clip. Other tensors that are packed (patches
        behind one another) are repeated.

    Raises:
        CompressionError: the prompts differ before the clip, or the processor changed what comes behind it.
    """
    ids: Tensor = inputs["input_ids"]
    raw = [list(row) for row in processor.tokenizer(list(prompts))["input_ids"]]
    starts = [_end_of_clip(row, _placeholder(processor)) for row in raw]
    tails = [row[start:] for row, start in zip(raw, starts, strict=True)]
    head = ids.shape[1] - len(tails[0])
    alike = all(row[:start] == raw[0][: starts[0]] for row, start in zip(raw, starts, strict=True))
    if not alike or ids[0, head:].tolist() != tails[0]:
        raise CompressionError(
            "several questions about one video need prompts that differ behind the video only; this model's chat "
            "template or processor makes others, so ask one question at a time"
        )
    shared: dict[str, Any] = {}
    for name, value in inputs.items():
        if value.shape == ids.shape:
            shared[name] = _widen_text(name, value[0, :head], tails, processor.tokenizer.pad_token_id or 0)
        elif name == "pixel_values":  # frames that are handed over like still images
            shared[name] = value.expand(len(prompts), *value.shape)
        elif value.shape[0] == 1:
            shared[name] = value.expand(len(prompts), *value.shape[1:])
        elif name == "pixel_values_videos" and value.dim() == 2:
            shared[name] = value.expand(len(prompts), *value.shape)
        else:
            shared[name] = value.repeat(len(prompts), *[1] * (value.dim() - 1))
    return shared


def _widen_text(name: str, head: Tensor, tails: Sequence[Sequence[int]], pad: int) -> Tensor:
    """[n, S] ids, mask, or kinds of tokens (0 for text) of all prompts, which begin with ``head`` [H]."""
    longest = max(map(len, tails))
    rows = []
    for tail in tails:
        values = {"input_ids": list(tail), "attention_mask": [1] * len(tail)}.get(name, [0] * len(tail))
        padding = head.new_full((longest - len(tail),), pad if name == "input_ids" else 0)
        rows.append(torch.cat([padding, head, head.new_tensor(values)]))
    return torch.stack(rows)


def _placeholder(processor: Any) -> int:
    """The id of the token that stands for a video."""
    found = getattr(processor, "video_token_id", None)
    return int(processor.tokenizer.convert_tokens_to_ids(processor.video_token) if found is None else found)


def _end_of_clip(row: Sequence[int], placeholder: int) -> int:
    """The position behind the last placeholder."""
    if placeholder not in row:
        raise CompressionError(f"the chat template wrote no placeholder (token {placeholder}) for the video")
    return len(row) - list(reversed(row)).index(placeholder)
