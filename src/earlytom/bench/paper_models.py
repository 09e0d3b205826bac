"""Which model of the paper's tables a model is: told by its shape, since a folder can have any name."""

from __future__ import annotations

from typing import Any

from earlytom.bench.accounting import PAPER_MODELS
from earlytom.bench.configurations import find_configuration

__all__ = ["find_paper_model"]


def find_paper_model(config: Any) -> str | None:
    """The name in `PAPER_MODELS` of a model of this family whose language model has this shape; ``None`` without one.

    Args:
        config: the model's configuration, that of transformers.
    """
    shape = _language_shape(config.get_text_config())
    for name, paper in PAPER_MODELS.items():
        wanted = paper.language
        known = (wanted.layers, wanted.width, wanted.inner, wanted.key_width)
        if (find_configuration(name).family, known) == (config.model_type, shape):
            return name
    return None


def _language_shape(text: Any) -> tuple[int | None, ...]:
    """Layers, width, width inside the MLP, and that of all heads of keys; ``None`` for what the family has not."""
    layers, width, inner, heads = (
        getattr(text, name, None)
        for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    )
    key_heads = getattr(text, "num_key_value_heads", None) or heads
    head_width = getattr(text, "head_dim", None) or (width // heads if width and heads else None)
    return layers, width, inner, key_heads * head_width if key_heads and head_width else None
