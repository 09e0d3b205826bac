"""Loading what ``save_pretrained`` wrote: checked first, without its code, with all its weights accounted for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from earlytom.errors import ModelError, shown
from earlytom.models.checkpoint.files import find, named, optional_object
from earlytom.models.checkpoint.settings import check_generation, check_settings, check_sizes, culprit, hints
from earlytom.models.checkpoint.weights import Stored, listed, stored_weights

__all__ = ["load_stock"]

# Weights of a numbered layer: where the model has no place for them, config.json says too few layers.
_LAYER = re.compile(r"\.(layers?|blocks)\.\d+\.")
# Values that a model may have beyond its checkpoint before that is refused unseen.
_FEW = 10_000_000
# Values of two bits that a quantised checkpoint packs into one of 32.
_PACKED = 16


def load_stock(path: str | Path, settings: Mapping[str, Any], model_class: Any = None, **options: Any) -> Any:
    """Load a model whose weights are exactly those that its configuration asks for.

    Args:
        path: a folder or a hub id.
        settings: its ``config.json``.
        model_class: of the model, where transformers does not know the type.
        **options: of ``from_pretrained``.

    Raises:
        ModelError: a value in ``config.json`` cannot be, transformers does not know the type, files are missing or
            broken, or weights are missing, of another shape, or of layers that the configuration does not have; the
            message names file and weight or field.
    """
    from transformers import AutoModelForImageTextToText

    _check_no_adapter(path)
    check_settings(settings)
    if model_class is None:
        _check_type(settings)
    check_generation(optional_object(path, "generation_config.json"))
    quantised = settings.get("quantization_config") is not None
    stored = stored_weights(path, settings.get("transformers_weights"), numbers_only=not quantised)
    check_sizes(settings, stored)
    with _naming_the_field(settings, model_class):
        config = _load_config(path, None if model_class is None else model_class.config_class)
        # Whatever config.json says of it, which may name code to be fetched.
        config._attn_implementation = options.get("attn_implementation")
        with named(f"no model can be made of config.json{hints(settings, stored)}"):
            wanted = _empty(config, model_class)
    _check_amount(wanted, settings, stored, most=_PACKED if quantised else 2)
    with named(f"no model can be made of config.json and {stored}"):
        model, found = (model_class or AutoModelForImageTextToText).from_pretrained(
            path,
            config=config,
            trust_remote_code=False,
            # Else transformers says only in its log which they are.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    _check_loaded(found, settings, stored)
    return model


def _check_no_adapter(path: str | Path) -> None:
    """Raise `ModelError` where an adapter lies in the checkpoint: transformers would follow it, past all checks."""
    if find(path, "adapter_config.json") is not None:
        raise ModelError(
            "adapter_config.json: adapters are not loaded from a checkpoint's folder; merge it into the weights "
            "(PEFT's merge_and_unload), or load it with PEFT and pass the model"
        )


def _check_type(settings: Mapping[str, Any]) -> None:
    """Raise `ModelError` where transformers has no model of the type that sees."""
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    kind = settings["model_type"]
    if kind not in CONFIG_MAPPING:
        extra = "; code of the checkpoint's own (auto_map) is never run" if "auto_map" in settings else ""
        raise ModelError(f"model_type in config.json is {shown(kind)}, which transformers does not know{extra}")
    if CONFIG_MAPPING[kind] not in AutoModelForImageTextToText._model_mapping:
        raise ModelError(
            f"model_type in config.json is {shown(kind)}, of which transformers has no model for images and text"
        )


def _load_config(path: str | Path, config_class: Any) -> Any:
    """The configuration, in which nothing points to code of the checkpoint's own."""
    from transformers import AutoConfig

    with named("config.json"):
        if config_class is None:
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        else:
            config = config_class.from_pretrained(path)
        _forget_code(config)
    return config


def _forget_code(config: Any) -> None:
    """Take away what points to code of the checkpoint's own, in the parts too, about which transformers asks again."""
    if hasattr(config, "auto_map"):
        del config.auto_map
    for part in config.sub_configs:
        if getattr(config, part, None) is not None:
            _forget_code(getattr(config, part))


@contextmanager
def _naming_the_field(settings: Mapping[str, Any], model_class: Any) -> Iterator[None]:
    """Have an error about a configuration say which field it may be."""

    def make(document: dict[str, Any]) -> None:
        config_class = CONFIG_MAPPING[settings["model_type"]] if model_class is None else model_class.config_class
        _empty(config_class.from_dict(document), model_class)

    from transformers import CONFIG_MAPPING

    try:
        yield
    except ModelError as error:
        raise ModelError(f"{error}{culprit(settings, error, make)}") from error.__cause__


def _empty(config: Any, model_class: Any) -> Any:
    """A model with shapes, and without values."""
    from transformers import AutoModelForImageTextToText
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        made = AutoModelForImageTextToText.from_config(config) if model_class is None else model_class(config)
    made.tie_weights()
    return made


def _check_amount(wanted: Any, settings: Mapping[str, Any], stored: Stored, *, most: int) -> None:
    """Refuse a model of more than ``most`` times its checkpoint's values before memory is taken for it."""
    values = sum(parameter.numel() for parameter in wanted.parameters())
    # A few that are missing are named one by one once it is loaded.
    if values > most * stored.values + _FEW:
        shapes = {tuple(parameter.shape) for parameter in wanted.parameters()} - set(stored.shapes.values())
        raise ModelError(
            f"config.json asks for {values:,} values, but {stored} holds {stored.values:,}"
            f"{hints(settings, stored)}{_unlike(wanted, shapes)}"
        )


def _unlike(model: Any, shapes: Collection[tuple[int, ...]]) -> str:
    names = [f"{name} {tuple(value.shape)}" for name, value in model.named_parameters() if tuple(value.shape) in shapes]
    return f"; no weight has the shape of {listed(names, 3)}" if names else ""


def _check_loaded(found: Mapping[str, Any], settings: Mapping[str, Any], stored: Stored) -> None:
    wrong = [f"{name} is {tuple(is_)}, config.json says {tuple(says)}" for name, is_, says in _mismatched(found)]
    hint = hints(settings, stored)
    if wrong:
        raise ModelError(f"weights in {stored} and config.json differ: {listed(wrong)}{hint}")
    if found["missing_keys"]:
        raise ModelError(
            f"{stored} lacks weights that config.json asks for: {listed(sorted(found['missing_keys']))}{hint}"
        )
    beyond = sorted(name for name in found["unexpected_keys"] if _LAYER.search(name))
    if beyond:
        raise ModelError(
            f"{stored} holds weights of layers that config.json does not have (num_hidden_layers or depth): "
            f"{listed(beyond)}"
        )
    if found.get("error_msgs"):
        raise ModelError(f"{stored} does not fit config.json: {listed(map(str, found['error_msgs']))}{hint}")


def _mismatched(found: Mapping[str, Any]) -> Iterable[tuple[str, Iterable[int], Iterable[int]]]:
    return sorted(found["mismatched_keys"])
