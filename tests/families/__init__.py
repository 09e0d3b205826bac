"""A tiny model of every family, and inputs as its processor makes them, for tests that run over all families.

One module a family, named like it, with ``CASE``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earlytom.models import FAMILIES

PAD = 0


@dataclass(frozen=True)
class FamilyCase:
    """What the tests need to know about a family.

    Attributes:
        build: ``build(attention="sdpa", dtype=torch.float32)``, a tiny model with random weights, at least 8 encoder
            and 5 decoder layers, ``eos_token_id`` and ``bos_token_id`` None, pad token 0, in evaluation mode. Weights
            are wider than the usual initialisation, so that attention and logits are not flat.
        clip: ``clip(frames, seed)``, one clip as the processor would hand it to ``batch``: a few nearly static scenes;
            ``frames`` counts what the encoder takes as a frame.
        batch: ``batch([[clip, ...], ...])``, one list of clips per sample, to the processor's output: left-padded
            prompts of unequal text lengths, text before, between and behind the clips.
        stock_features: ``stock_features(model, inputs)``, the visual features that the stock model would put into the
            prompt, [V, C], those of all clips behind one another, newline embeddings included.
        image: ``image(inputs, sample)``, the same inputs with a still image put before the first clip of a sample, or
            ``None`` where the family has no images beside videos.
    """

    build: Callable[..., nn.Module]
    clip: Callable[[int, int], Tensor]
    batch: Callable[[list[list[Tensor]]], dict[str, Tensor]]
    stock_features: Callable[[nn.Module, dict[str, Tensor]], Tensor]
    image: Callable[[dict[str, Tensor], int], dict[str, Tensor]] | None = None


def widen(model: nn.Module, factor: float = 4.0) -> nn.Module:
    """Scale all matrices in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)
    return model


def pad_left(rows: list[list[int]]) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` of prompts of unequal length."""
    length = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[PAD] * (length - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
    }


def text(count: int, seed: int, highest: int = 280) -> list[int]:
    """Token ids of some text, below those that mean something special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, highest, (count,), generator=generator).tolist()


def family_case(name: str) -> FamilyCase:
    """The case of a family, by its name in `earlytom.models.FAMILIES`."""
    return importlib.import_module(f"families.{name}").CASE


FAMILY_NAMES = list(FAMILIES)
