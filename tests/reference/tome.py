"""Token merging with lists: matching token by token, and a vision encoder that merges, frame by frame in float64."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reference.similarity import cosine_naively

Groups = list[list[int]]


def match_naively(metric: Tensor, count: int) -> Groups:
    """The members of each token that is left of one [L, E] frame, in the order of first members."""
    evens, odds = range(0, len(metric), 2), range(1, len(metric), 2)
    groups = {token: [token] for token in range(len(metric))}
    choices = []
    for token in evens:
        cosines = [cosine_naively(metric[token], metric[other]) for other in odds]
        if cosines:
            best = cosines.index(max(cosines))
            choices.append((-cosines[best], token, odds[best]))
    for _, token, partner in sorted(choices)[:count]:
        groups[partner] += groups.pop(token)
    return sorted((sorted(members) for members in groups.values()), key=min)


def merge_down_naively(features: Tensor, count: int) -> Groups:
    """The members of each of the ``count`` tokens that are left of one [P, D] frame."""
    values, groups = list(features.double()), [[token] for token in range(len(features))]
    while len(groups) > count:
        matched = match_naively(torch.stack(values), min(len(groups) - count, len(groups) // 2))
        groups = [sorted(token for member in members for token in groups[member]) for members in matched]
        values = [features[members].double().mean(dim=0) for members in groups]
    return groups


def schedule_naively(total: int, depth: int, inflection: float) -> list[int]:
    """The linear schedule before any layer runs out of tokens: the best of all integer rates, the rest to layer 0."""
    best: list[int] = []
    for rate in range(total + 2):
        low = int(rate * (1 - inflection))
        high = 2 * rate - low
        layers = [int(low + (high - low) * layer / max(1, depth - 1)) for layer in range(depth)]
        if not best or abs(sum(layers) - total) < abs(sum(best) - total):
            best = layers
    best[0] += total - sum(best)
    return best


def encode_naively(
    model: Any, frame: Tensor, schedule: Sequence[int], proportional: bool
) -> tuple[Tensor, Groups, list[Tensor]]:
    """Encode one frame [3, H, W] with merging in every layer.

    Returns:
        [K, D] hidden states of the tokens that are left, the patches of each, and in each layer the [patches] attention
        that every patch received, as if a merged token were as many equal ones.
    """
    tower = copy.deepcopy(model.model.vision_tower).double()
    hidden = tower.embeddings(frame[None].double())[0]
    groups: Groups = [[patch] for patch in range(len(hidden))]
    received = []
    for layer, count in zip(tower.encoder.layers, schedule, strict=True):
        attention = layer.self_attn
        normed = layer.layer_norm1(hidden)
        queries, keys, values = (
            project(normed).view(len(hidden), attention.num_heads, -1).transpose(0, 1)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        sizes = torch.tensor([float(len(members)) for members in groups], dtype=torch.float64)
        powers = (queries @ keys.transpose(1, 2) * attention.scale).exp() * (sizes if proportional else 1)
        maps = powers / powers.sum(dim=-1, keepdim=True)
        received.append(_of_each_patch(maps.mean(dim=0), sizes, groups))
        hidden = hidden + attention.out_proj((maps @ values).transpose(0, 1).flatten(1))
        matched = match_naively(keys.mean(dim=0), count)
        hidden = torch.stack(
            [sum(hidden[member] * sizes[member] for member in members) / sizes[members].sum() for members in matched]
        )
        groups = [sorted(patch for member in members for patch in groups[member]) for members in matched]
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    return hidden, groups, received


def _of_each_patch(maps: Tensor, sizes: Tensor, groups: Groups) -> Tensor:
    mean = (maps * sizes[:, None]).sum(dim=0) / sizes.sum()
    patches = torch.empty(int(sizes.sum()), dtype=torch.float64)
    for token, members in enumerate(groups):
        patches[members] = mean[token] / len(members)
    return patches
