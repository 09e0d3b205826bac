"""All model families by ``config.model_type``. Hosts are imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from earlytom.errors import ModelError

if TYPE_CHECKING:
    from earlytom.models.base import Host

__all__ = ["FAMILIES", "Family", "family_names", "load_host_class", "open_model"]


@dataclass(frozen=True)
class Family:
    """Where a family's host is (``module:Class``), and the model classes it serves."""

    host: str
    classes: tuple[str, ...]


FAMILIES: Mapping[str, Family] = {
    "llava_onevision": Family(
        "earlytom.models.llava_onevision:LlavaOnevisionHost", ("LlavaOnevisionForConditionalGeneration",)
    ),
    "qwen2_5_vl": Family("earlytom.models.qwen2_5_vl:Qwen25VLHost", ("Qwen2_5_VLForConditionalGeneration",)),
    "qwen3_vl": Family("earlytom.models.qwen3_vl:Qwen3VLHost", ("Qwen3VLForConditionalGeneration",)),
    "internvl": Family("earlytom.models.internvl:InternVLHost", ("InternVLForConditionalGeneration",)),
    # transformers has no class for it: this one is in `earlytom.models.llava_video.model`.
    "llava_video": Family("earlytom.models.llava_video.host:LlavaVideoHost", ("LlavaVideoForConditionalGeneration",)),
}
"""Families by ``config.model_type``. Other packages add theirs by the entry point group ``earlytom.models``."""

_ENTRY_POINTS = "earlytom.models"


def family_names() -> list[str]:
    """The model types of all families, those of other installed packages included."""
    return [*FAMILIES, *sorted(entry.name for entry in entry_points(group=_ENTRY_POINTS) if entry.name not in FAMILIES)]


def _families_in_words() -> str:
    """All families with the classes that are theirs."""
    return ", ".join(
        f"{name} ({' or '.join(FAMILIES[name].classes)})" if name in FAMILIES else name for name in family_names()
    )


@cache
def load_host_class(model_type: str) -> type[Host]:
    """The host of a family. Raises `ModelError` for an unknown one; the message lists the known ones."""
    if model_type in FAMILIES:
        module, _, attribute = FAMILIES[model_type].host.partition(":")
        return cast("type[Host]", getattr(importlib.import_module(module), attribute))
    for entry in entry_points(group=_ENTRY_POINTS):
        if entry.name == model_type:
            return cast("type[Host]", entry.load())
    raise ModelError(
        f"models of type {model_type!r} are not supported; supported are: {_families_in_words()}. To add a family: a "
        f"subclass of earlytom.models.base.Host, named in the entry point group {_ENTRY_POINTS!r} of your package or "
        "in earlytom.models.FAMILIES (CONTRIBUTING.md in the repository)"
    )


def open_model(model: Any) -> Host:
    """The host of a model, checked against this very one; the stock model may be inside a wrapper such as PEFT's.

    Raises:
        ModelError: not a supported model, a state of it that cannot be compressed, or a wrapper that cannot be looked
            through; says what is supported.
    """
    from earlytom.models.wrapping import unwrap

    model = unwrap(model, {name for family in FAMILIES.values() for name in family.classes})
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if not isinstance(model_type, str):
        raise ModelError(
            f"expected a transformers model, got {type(model).__name__}; supported are: {_families_in_words()}. Of a "
            "wrapper pass the model that it is around: PEFT's model.get_base_model(), others' .module or .model"
        )
    make = load_host_class(model_type)
    classes = FAMILIES[model_type].classes if model_type in FAMILIES else ()
    if classes and not any(base.__name__ in classes for base in type(model).__mro__):
        raise ModelError(
            f"expected a {' or '.join(classes)}, got {type(model).__name__}; pass the model itself, not a part of it "
            "(what a wrapper is around: PEFT's model.get_base_model(), others' .module or .model)"
        )
    return make(model)
