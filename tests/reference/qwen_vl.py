"""The Qwen-VL families by plain loops: one frame, one token, one head at a time, from the stock blocks' own weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from earlytom.methods.base import Method
from earlytom.types import LanguageStates
from families.qwen2_5_vl import END, IMAGE, START, VIDEO

Merge = Sequence[Mapping[int, float]]
"""For each frame that is left the frames that go into it, with their weights."""


def first_states(model: Any, frame: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
    """What enters the first block for one frame [rows, columns, values], and what every block gets besides."""
    entering: list[Tensor] = []
    besides: list[dict[str, Any]] = []

    def watch(_block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering.append(args[0])
        besides.append({name: kwargs[name] for name in ("cu_seqlens", "max_seqlen", "position_embeddings")})

    handles = [block.register_forward_pre_hook(watch, with_kwargs=True) for block in model.model.visual.blocks]
    try:
        model.model.get_video_features(frame.flatten(0, 1), torch.tensor([[1, *frame.shape[:2]]]))
    finally:
        for handle in handles:
            handle.remove()
    return entering[0], besides


def encode(model: Any, clip: Tensor, merges: Mapping[int, Merge], deepstack: Sequence[int] = ()) -> list[list[Tensor]]:
    """Run the stock blocks frame by frame, merging frames after some layers.

    Returns:
        For each frame that is left its final hidden states [L, D], and behind them those after the layers
        ``deepstack``, all in the order of the encoder's sequence.
    """
    frames = []
    for frame in clip:
        hidden, besides = first_states(model, frame)
        frames.append([hidden])
    for index, block in enumerate(model.model.visual.blocks):
        frames = [[block(states[0], **besides[index]), *states[1:]] for states in frames]
        if index in merges:
            sets = range(len(frames[0]))
            frames = [
                [torch.stack([weight * frames[source][n] for source, weight in row.items()]).sum(0) for n in sets]
                for row in merges[index]
            ]
        if index in deepstack:
            frames = [[*states, states[0]] for states in frames]
    return frames


def attention_maps(model: Any, frame: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Attention probabilities [H, L, L] of one layer for one frame, head by head, and its keys' mean over heads [L, E].

    Only for layers that see the whole frame.
    """
    states, besides = first_states(model, frame)
    for index in range(layer):
        states = model.model.visual.blocks[index](states, **besides[index])
    block, (cos, sin) = model.model.visual.blocks[layer], besides[layer]["position_embeddings"]
    projected = block.attn.qkv(block.norm1(states))
    width = projected.shape[1] // 3
    heads, size = block.attn.num_heads, width // block.attn.num_heads
    maps, keys = [], []
    for head in range(heads):
        query = projected[:, head * size : (head + 1) * size]
        key = projected[:, width + head * size : width + (head + 1) * size]
        keys.append(key)
        turned = [
            part * cos + torch.cat([-part[:, size // 2 :], part[:, : size // 2]], 1) * sin for part in (query, key)
        ]
        maps.append((turned[0] @ turned[1].T * size**-0.5).softmax(dim=-1))
    return torch.stack(maps), torch.stack(keys).mean(0)


def positions(
    ids: Sequence[int], clips: Iterator[tuple[int, int, int, int]], images: Iterator[tuple[int, int]]
) -> Tensor:
    """[3, S] positions of one unpadded prompt, token by token.

    Text counts up on all axes. A run of visual tokens stands at (start + frame * step, start + row, start + column),
    and the text behind it goes on at start + the longer side. ``clips`` gives frames, rows, columns and step of each
    run of video placeholders, ``images`` rows and columns of each run of image placeholders.
    """
    found: list[tuple[int, int, int]] = []
    upcoming, place = 0, 0
    while place < len(ids):
        if ids[place] not in (IMAGE, VIDEO):
            found.append((upcoming,) * 3)
            upcoming, place = upcoming + 1, place + 1
            continue
        frames, rows, columns, step = next(clips) if ids[place] == VIDEO else (1, *next(images), 0)
        for frame in range(frames):
            for row in range(rows):
                for column in range(columns):
                    found.append((upcoming + frame * step, upcoming + row, upcoming + column))
        upcoming, place = upcoming + max(rows, columns), place + frames * rows * columns
    return torch.tensor(found).T


def kept_of_prompt(
    ids: Sequence[int], clips: Sequence[Sequence[int]], kept: Sequence[Sequence[int]], *, timestamps: bool
) -> list[int]:
    """The places of one unpadded prompt that stay.

    Args:
        ids: the prompt.
        clips: for each clip its frames and the tokens of each.
        kept: for each clip the numbers of the tokens that stay.
        timestamps: whether every frame stands between start and end, behind its timestamp.
    """
    gone: set[int] = set()
    clip, number = 0, 0
    for place, token in enumerate(ids):
        if token != VIDEO:
            continue
        frames, per_frame = clips[clip]
        frame = number // per_frame
        if number not in kept[clip]:
            gone.add(place)
        if timestamps and number % per_frame == per_frame - 1 and frame not in {n // per_frame for n in kept[clip]}:
            # Nothing is left of this frame: from behind the end of the one before it to its own end.
            back = place - per_frame
            assert (ids[back], ids[place + 1]) == (START, END)
            gone |= {back, place + 1}
            while frame > 0 and ids[back - 1] != END:
                back -= 1
                gone.add(back)
        number += 1
        if number == frames * per_frame:
            clip, number = clip + 1, 0
    return [place for place in range(len(ids)) if place not in gone]


def _last_attention(layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[S] attention of the last position, head mean, by the full causal softmax of one layer (batch of one)."""
    attention, length = layer.self_attn, hidden.shape[1]
    width, normed = attention.head_dim, layer.input_layernorm(hidden)

    def heads(values: Tensor, norm: Any) -> Tensor:
        values = values.view(1, length, -1, width)
        values = (values if norm is None else norm(values)).transpose(1, 2)
        turned = torch.cat([-values[..., width // 2 :], values[..., : width // 2]], dim=-1)
        return values * cos[:, None] + turned * sin[:, None]

    queries = heads(attention.q_proj(normed), getattr(attention, "q_norm", None))
    keys = heads(attention.k_proj(normed), getattr(attention, "k_norm", None))
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    logits = queries @ keys.transpose(-1, -2) * width**-0.5
    causal = torch.ones(length, length, dtype=torch.bool).triu(1)
    return logits.masked_fill(causal, float("-inf")).softmax(dim=-1)[0, :, -1].mean(dim=0)


def logits_without_cache(
    model: Any,
    method: Method,
    prompt: Tensor,
    places: Tensor,
    visual: Sequence[int],
    added: Sequence[tuple[list[int], Tensor]],
    new_ids: Sequence[int],
    next_position: int,
) -> Tensor:
    """Logits of the last position, everything computed anew.

    Args:
        model: the model.
        method: may reduce tokens inside the language model.
        prompt: [S, D] embeddings of one unpadded prompt.
        places: [3, S] positions.
        visual: places of its video tokens.
        added: for each of the first layers the places of visual tokens, and the [V, D] features added behind it.
        new_ids: what has been generated.
        next_position: of the first of these.
    """
    language = model.model.language_model
    depth, entered, prefilled = len(language.layers), len(visual), prompt.shape[0]
    plan, span, scores = method.llm_plan(depth), torch.tensor(visual), torch.empty(0)
    newer = torch.arange(len(new_ids)) + next_position
    embeds = torch.cat([prompt, language.embed_tokens(torch.tensor(new_ids, dtype=torch.int64))])[None]
    cos, sin = language.rotary_emb(embeds, torch.cat([places, newer.expand(3, -1)], dim=1)[:, None])
    hidden = embeds
    for index, layer in enumerate(language.layers):
        if index in plan.reduce_before:
            states = LanguageStates(features=hidden[0, span], attention=scores[span], entered=entered, depth=depth)
            reduction = method.reduce_in_llm(states, index)
            survivors = span[reduction.survivors()]
            merged = hidden.clone()
            merged[0, survivors] = reduction.apply(hidden[0, span])
            gone = set(span.tolist()) - set(survivors.tolist())
            kept = [place for place in range(hidden.shape[1]) if place not in gone]
            hidden, cos, sin = merged[:, kept], cos[:, kept], sin[:, kept]
            span = torch.tensor([kept.index(place) for place in survivors.tolist()])
            prefilled -= len(gone)
        if index + 1 in plan.reduce_before:
            scores = _last_attention(layer, hidden[:, :prefilled], cos[:, :prefilled], sin[:, :prefilled])
        size = hidden.shape[1]
        mask = torch.zeros(size, size).masked_fill(torch.ones(size, size, dtype=torch.bool).triu(1), float("-inf"))
        hidden = layer(hidden, attention_mask=mask[None, None], position_embeddings=(cos, sin))
        if index < len(added):
            where, features = added[index]
            hidden = hidden.clone()
            for place, row in zip(where, features, strict=True):
                hidden[0, place] = hidden[0, place] + row
    return model.lm_head(language.norm(hidden))[0, -1]
