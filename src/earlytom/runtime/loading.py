"""Loading a checkpoint, with errors that name the option that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from earlytom.errors import ModelError, shown
from earlytom.models import open_model
from earlytom.models.checkpoint.files import named, read_settings
from earlytom.models.checkpoint.prompts import load_processor, prepare_template
from earlytom.models.checkpoint.stock import load_stock
from earlytom.models.llava_video.published import is_published_layout

__all__ = ["find_device", "find_dtype", "load_model"]


def load_model(
    path: str | Path, *, device: str, dtype: str | torch.dtype, attention: str | None
) -> tuple[nn.Module, Any]:
    """Load a model, ready to answer, and its processor; see `earlytom.VideoQA.load` for the options.

    Raises:
        ModelError: the checkpoint cannot be loaded, or the device or dtype is not available.
    """
    place, kind = find_device(device), find_dtype(dtype)
    if kind is None and place.type == "cpu":
        kind = torch.float32
    try:
        with named("it cannot be read"):
            model, processor = _load(path, kind, attention)
        _check_supported(model)
    except ModelError as error:
        raise ModelError(f"cannot load a model from {shown(str(path))}: {error}") from error.__cause__
    return model.to(place).eval(), processor


def _load(path: str | Path, dtype: torch.dtype | None, attention: str | None) -> tuple[Any, Any]:
    """The model and its processor, without code of the checkpoint's own; ``dtype=None``: as it is stored."""
    settings = read_settings(path)
    # LLaVA-Video has no class in transformers, so that nothing can be looked up by its type.
    if is_published_layout(settings):
        from earlytom.models.llava_video.conversion import load_published

        return load_published(path, settings, dtype=dtype, attention=attention)
    prepare_template(path)
    options: dict[str, Any] = {"dtype": "auto" if dtype is None else dtype, "attn_implementation": attention}
    if settings.get("model_type") == "llava_video":
        from earlytom.models.llava_video.model import LlavaVideoForConditionalGeneration
        from earlytom.models.llava_video.processor import LlavaVideoProcessor

        model = load_stock(path, settings, LlavaVideoForConditionalGeneration, **options)
        processor = load_processor(path, model.config, LlavaVideoProcessor)
        _check_same_pooling(model.config, processor)
        return model, processor
    model = load_stock(path, settings, **options)
    return model, load_processor(path, model.config)


def _check_supported(model: nn.Module) -> None:
    """Raise `ModelError` for a model that loads and cannot be compressed, saying where that is written."""
    try:
        open_model(model)
    except ModelError as error:
        raise ModelError(f"config.json: {error}") from error.__cause__


def _check_same_pooling(config: Any, processor: Any) -> None:
    """LLaVA-Video's model and its processor, which counts placeholders, have to pool frames alike."""
    for key in ("spatial_pool_mode", "spatial_pool_stride", "newline_position"):
        said, counted = getattr(config, key), getattr(processor, key)
        if said != counted or isinstance(said, bool):
            raise ModelError(f"{key} in config.json is {shown(said)}, but processor_config.json says {shown(counted)}")


def find_device(name: str) -> torch.device:
    """``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` as a device that is there. Raises `ModelError`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {shown(name)}") from error
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {shown(name)}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA device(s)")
    return device


def find_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """A floating-point type by its name, ``None`` for ``"auto"``. Raises `ModelError`."""
    if isinstance(dtype, torch.dtype):
        return dtype
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "auto": None}
    if dtype not in named:
        raise ModelError(f"dtype must be one of {', '.join(named)}, got {dtype!r}")
    return named[dtype]
