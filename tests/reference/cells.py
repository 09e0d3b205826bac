"""Cells that go on alone, grid by grid and cell by cell, from the stock modules of each family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from reference.qwen_vl import first_states

Choose = Callable[[Tensor, list[list[int]] | None], list[int]]
"""From [P, D] cells in raster order, and the cells of each attention window, to those that go on, ascending."""


def strongest(share: float) -> Choose:
    """As `cell_methods.SomeCells` chooses: by the norm; of windows in proportion, the largest remainders first."""

    def choose(cells: Tensor, windows: list[list[int]] | None) -> list[int]:
        kept = max(1, round(share * len(cells)))
        windows = [list(range(len(cells)))] if windows is None else windows
        exact = [len(window) * kept / len(cells) for window in windows]
        counts = [int(value + 1e-9) for value in exact]
        for number in sorted(range(len(windows)), key=lambda i: (-round(exact[i] - counts[i], 9), i)):
            counts[number] += sum(counts) < kept
        chosen = []
        for window, count in zip(windows, counts, strict=True):
            chosen += sorted(window, key=lambda cell: -float(cells[cell].norm()))[:count]
        return sorted(chosen)

    return choose


def bilinear_taps(side: int, pooled: int) -> list[list[tuple[int, float]]]:
    """For each of ``pooled`` places along an axis the patches that it rests on, with their weights."""
    taps = []
    for place in range(pooled):
        middle = max(0.0, (place + 0.5) * side / pooled - 0.5)
        low, rest = int(middle), middle - int(middle)
        high = min(low + 1, side - 1)
        taps.append([(low, 1 - rest), (high, rest)] if rest else [(low, 1.0)])
    return taps


def llava(model: Any, frame: Tensor, layer: int, choose: Choose, taps: list[list[tuple[int, float]]]) -> Any:
    """[3, H, W] pixels of one frame to the cells chosen and their [K, C] tokens; ``taps`` along either axis."""
    base, side = model.model, round(model.model.vision_tower.embeddings.num_patches**0.5)
    hidden = base.vision_tower.embeddings(frame[None])
    blocks = base.vision_tower.encoder.layers
    for block in blocks[: layer + 1]:
        hidden = block(hidden, attention_mask=None)
    cells = [
        [(row * side + column, down * across) for row, down in above for column, across in beside]
        for above in taps
        for beside in taps
    ]
    means = torch.stack([sum(weight * hidden[0, patch] for patch, weight in cell) for cell in cells])
    chosen = choose(means, None)
    hidden = torch.stack([hidden[0, patch] for cell in chosen for patch, _ in cells[cell]])[None]
    for block in blocks[layer + 1 :]:
        hidden = block(hidden, attention_mask=None)
    projected, tokens, start = base.multi_modal_projector(hidden)[0], [], 0
    for cell in chosen:
        weights = [weight for _, weight in cells[cell]]
        tokens.append(sum(weight * projected[start + number] for number, weight in enumerate(weights)))
        start += len(weights)
    return chosen, torch.stack(tokens)


def internvl(model: Any, frame: Tensor, layer: int, choose: Choose) -> Any:
    """Likewise; blocks of 2x2 patches, CLS in front."""
    base = model.model
    hidden = base.vision_tower.embeddings(frame[None])
    blocks = base.vision_tower.encoder.layer
    for block in blocks[: layer + 1]:
        hidden = block(hidden)
    side = round((hidden.shape[1] - 1) ** 0.5)
    cells = [
        [row * side + column, row * side + column + 1, (row + 1) * side + column, (row + 1) * side + column + 1]
        for row in range(0, side, 2)
        for column in range(0, side, 2)
    ]
    means = torch.stack([hidden[0, [1 + patch for patch in cell]].mean(0) for cell in cells])
    chosen = choose(means, None)
    hidden = hidden[:, [0, *(1 + patch for cell in chosen for patch in cells[cell])]]
    for block in blocks[layer + 1 :]:
        hidden = block(hidden)
    normed = base.vision_tower.layernorm(hidden)[0, 1:]
    maps = normed.view(len(chosen), 2, 2, -1)
    return chosen, base.multi_modal_projector(base.pixel_shuffle(maps, scale_factor=0.5).flatten(1))


def packed(model: Any, frame: Tensor, layer: int, choose: Choose, order: Sequence[int], aside: Sequence[int]) -> Any:
    """Likewise, [rows, columns, values] patches; ``order``: the merge units of the sequence, by raster number."""
    hidden, besides = first_states(model, frame)
    visual = model.model.visual
    states = []
    for index, block in enumerate(visual.blocks):
        hidden = block(hidden, **besides[index])
        if index in aside:
            states.append(hidden)
        if index != layer:
            continue
        units = hidden.unflatten(0, (-1, 4)).mean(1)
        raster = torch.stack([units[list(order).index(cell)] for cell in range(len(order))])
        # The shortest stretches of all layers are the windows.
        ends = max((one["cu_seqlens"].tolist() for one in besides), key=len)
        windows = [[order[unit] for unit in range(first // 4, last // 4)] for first, last in pairwise(ends)]
        chosen = choose(raster, windows)
        rows = [4 * place + patch for place, cell in enumerate(order) if cell in chosen for patch in range(4)]
        hidden, states = hidden[rows], [part[rows] for part in states]
        besides = [_cut(one, rows) for one in besides]
    projected = visual.merger(hidden)
    mergers = [visual.deepstack_merger_list[number] for number in range(len(states))]
    tokens = torch.cat([projected, *(merger(part) for merger, part in zip(mergers, states, strict=True))], dim=-1)
    standing = [cell for cell in order if cell in chosen]
    return chosen, torch.stack([tokens[standing.index(cell)] for cell in chosen])


def _cut(besides: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """What a block gets beside the hidden states, of some rows."""
    pairs = pairwise(besides["cu_seqlens"].tolist())
    sizes = [size for first, last in pairs if (size := sum(first <= row < last for row in rows))]
    cosines, sines = besides["position_embeddings"]
    return {
        "cu_seqlens": torch.tensor([0, *sizes]).cumsum(0).to(torch.int32),
        "max_seqlen": max(sizes),
        "position_embeddings": (cosines[rows], sines[rows]),
    }
