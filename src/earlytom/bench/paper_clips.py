"""True operations of the clips that the paper's tables are about, counted by shapes alone: nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from earlytom.bench.accounting import AccountingRow, account
from earlytom.bench.configurations import build_model
from earlytom.bench.plots.readings import display_name
from earlytom.bench.tables import Table
from earlytom.errors import EarlyTomError, shown
from earlytom.runtime.flops import count_flops

__all__ = ["accounting_table", "masked_operations", "true_operations"]


@dataclass(frozen=True, kw_only=True)
class _PaperClip:
    """A clip of the paper: temporal grids of so many pixels, each of which takes so many places in a prompt."""

    grids: int
    height: int
    width: int
    places: int


_CLIPS = {
    "llava-onevision-7b": _PaperClip(grids=32, height=384, width=384, places=14 * 14 + 1),
    "llava-onevision-0.5b": _PaperClip(grids=32, height=384, width=384, places=14 * 14 + 1),
    "llava-video-7b": _PaperClip(grids=64, height=384, width=384, places=13 * 14),
    # At most 768 frames, two a grid, and 23k tokens: 60 tokens of each grid make 23,040.
    "qwen2.5-vl-7b": _PaperClip(grids=384, height=168, width=280, places=60),
}


def true_operations(name: str) -> Callable[[Sequence[int]], int]:
    """Count the operations of a clip of the paper's size, from pixels to the first token.

    Args:
        name: of the model.

    Returns:
        What takes the visual tokens in each layer of the language model, and gives true operations: two for each
        multiply-add, of causal attention the half that is not masked, as `earlytom.bench.work` counts them. Text in
        the prompt is left out, as the paper leaves it out.

    Raises:
        EarlyTomError: the paper has no table for this model.
    """
    if name not in _CLIPS:
        raise EarlyTomError(f"the paper has no table for {shown(name)}; it has them for {', '.join(_CLIPS)}")
    clip = _CLIPS[name]
    model = build_model(name, device="meta", dtype=torch.bfloat16)
    inputs = _one_grid(model, clip)

    def count(tokens: Sequence[int]) -> int:
        after = {layer: left for layer, left in enumerate(tokens) if layer and left != tokens[layer - 1]}
        found = count_flops(model, inputs, frames=clip.grids, prefill_tokens=tokens[0], prefill_after=after)
        return found.total - masked_operations(model.config.text_config.hidden_size, tokens)

    return count


def masked_operations(width: int, tokens: Sequence[int]) -> int:
    """What causal attention need not do of its whole matrix, which `earlytom.runtime.flops` counts.

    Args:
        width: of all heads of queries together.
        tokens: that each layer gets.
    """
    # Two products, two operations for each multiply-add, n (n - 1) / 2 pairs that do not see each other.
    return sum(2 * n * (n - 1) * width for n in tokens)


def _one_grid(model: Any, clip: _PaperClip) -> dict[str, torch.Tensor]:
    """A prompt with a clip of one temporal grid, its pixels on the meta device."""
    prompt = {"input_ids": torch.tensor([[1, *[model.config.video_token_id] * clip.places, 1]])}
    vision = model.config.vision_config
    if not hasattr(vision, "temporal_patch_size"):
        shape: tuple[int, ...] = (1, 1, 3, clip.height, clip.width)
        return prompt | {"pixel_values_videos": torch.empty(shape, device="meta", dtype=model.dtype)}
    rows, columns = clip.height // vision.patch_size, clip.width // vision.patch_size
    shape = (rows * columns, 3 * vision.temporal_patch_size * vision.patch_size**2)
    pixels = torch.empty(shape, device="meta", dtype=model.dtype)
    return prompt | {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([[1, rows, columns]])}


def accounting_table(name: str) -> Table:
    """The paper's FLOPs of a model, by its own formula, and true ones, row by row, in 1e12 operations.

    Raises:
        EarlyTomError: the paper has no table for this model.
    """
    columns = ("", "retention", "published", "by the formula", "difference", "left for vision", "true operations")
    cells = tuple(_cells(row) for row in account(name, true_operations(name)))
    return Table(title=f"{name}, TFLOP", columns=columns, right=columns[1:], cells=cells)


def _cells(row: AccountingRow) -> tuple[str, ...]:
    numbers = (row.published.tera_flops, row.formula)
    others = (row.vision_left, row.true)
    return (
        ", ".join(filter(None, (display_name(row.published.method), row.reading))),
        f"{row.published.retention:.0%}",
        *map(_number, numbers),
        "-" if row.difference is None else _signed(row.difference),
        *map(_number, others),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"  # adding zero takes the sign from one
