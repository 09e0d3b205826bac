"""Reductions inside the language model without a cache and without hooks: every step recomputes the whole sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earlytom.methods.base import Method
from earlytom.types import LanguageStates


def last_attention(layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[S] attention of the last position, head mean, by the full causal softmax of one layer (batch of one)."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    length, width = hidden.shape[1], attention.head_dim

    def heads(values: Tensor) -> Tensor:
        return values.view(1, length, -1, width).transpose(1, 2)

    def rotate(values: Tensor) -> Tensor:
        half = width // 2
        turned = torch.cat([-values[..., half:], values[..., :half]], dim=-1)
        return values * cos[:, None] + turned * sin[:, None]

    queries, keys = rotate(heads(attention.q_proj(normed))), rotate(heads(attention.k_proj(normed)))
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    logits = queries @ keys.transpose(-1, -2) * width**-0.5
    causal = torch.ones(length, length, dtype=torch.bool).triu(1)
    return logits.masked_fill(causal, float("-inf")).softmax(dim=-1)[0, :, -1].mean(dim=0)


def logits_without_cache(model: Any, method: Method, prompt: Tensor, visual: list[int], new_ids: list[int]) -> Tensor:
    """Logits of the last position behind ``prompt`` [S, D] (one sample's embeddings) and ``new_ids``.

    Before each boundary the visual rows are reduced, by what the prompt alone says.
    """
    language = model.model.language_model
    plan, depth, entered = method.llm_plan(len(language.layers)), len(language.layers), len(visual)
    embeds = prompt[None]
    if new_ids:
        embeds = torch.cat([embeds, language.embed_tokens(torch.tensor([new_ids]))], dim=1)
    prefilled = prompt.shape[0]
    cos, sin = language.rotary_emb(embeds, torch.arange(embeds.shape[1])[None])

    hidden, scores = embeds, torch.empty(0)
    for index, layer in enumerate(language.layers):
        if index in plan.reduce_before:
            if plan.attention_of == "layer behind":
                scores = last_attention(layer, hidden[:, :prefilled], cos[:, :prefilled], sin[:, :prefilled])
            span = torch.tensor(visual)
            states = LanguageStates(features=hidden[0, span], attention=scores[span], entered=entered, depth=depth)
            reduction = method.reduce_in_llm(states, index)
            survivors = span[reduction.survivors()].tolist()
            merged = hidden.clone()
            merged[0, survivors] = reduction.apply(hidden[0, span])
            gone = set(visual) - set(survivors)
            kept = [position for position in range(hidden.shape[1]) if position not in gone]
            hidden, cos, sin = merged[:, kept], cos[:, kept], sin[:, kept]
            if plan.renumber:
                cos, sin = language.rotary_emb(hidden, torch.arange(len(kept))[None])
            visual = [kept.index(position) for position in survivors]
            prefilled -= len(gone)
        if index + 1 in plan.reduce_before and plan.attention_of == "layer before":
            scores = last_attention(layer, hidden[:, :prefilled], cos[:, :prefilled], sin[:, :prefilled])
        size = hidden.shape[1]
        mask = torch.zeros(size, size).masked_fill(torch.ones(size, size, dtype=torch.bool).triu(1), float("-inf"))
        hidden = layer(hidden, attention_mask=mask[None, None], position_embeddings=(cos, sin))
    return model.lm_head(language.norm(hidden))[0, -1]
