"""The stock model inside a wrapper: PEFT's, or any other object that holds one and hands calls on to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from types import ModuleType
from typing import Any

from torch import nn

from earlytom.errors import ModelError

__all__ = ["compiled_around", "is_compiled", "uncompiled", "unwrap"]

# How many plain objects may stand around a model.
_DEPTH = 4


def unwrap(model: Any, classes: Collection[str]) -> Any:
    """The one stock model that a wrapper holds; ``model`` itself where it is one or holds none.

    What is put before the stock model's calls is met by the wrapper's calls as well, whichever adapter is switched on.

    Args:
        model: anything.
        classes: names of the stock models' classes.

    Raises:
        ModelError: it holds several, or changes their calls in a way that cannot be gone along with.
    """
    if _is_stock(model, classes):
        return model
    base = getattr(model, "get_base_model", None)
    if callable(base) and (found := base()) is not model:
        _check_adapters(model)
        stock = unwrap(found, classes)
        if _is_stock(stock, classes):
            _check_around(model, stock)
        return stock
    inside = [part for part in _parts(model) if _is_stock(part, classes)]
    if len(inside) > 1:
        raise ModelError(
            f"{type(model).__name__} holds {len(inside)} models that could be compressed "
            f"({', '.join(type(part).__name__ for part in inside)}); pass the one that is meant"
        )
    if not inside:
        return model
    _check_around(model, inside[0])
    return inside[0]


def is_compiled(part: Any) -> bool:
    """Whether ``torch.compile`` or ``model.compile()`` made the calls of a module graphs of their own."""
    return "_orig_mod" in getattr(part, "_modules", {}) or getattr(part, "_compiled_call_impl", None) is not None


def compiled_around(model: Any, stock: nn.Module) -> list[nn.Module]:
    """What ``torch.compile(stock)`` made, wherever ``model`` holds it."""
    return [part for part in _parts(model) if vars(part).get("_modules", {}).get("_orig_mod") is stock]


def uncompiled(part: nn.Module) -> Callable[..., Any]:
    """The call of a module, hooks included, as it is without a graph of its own.

    Hooks, and calls that stand before those of modules inside, are met by it; a compiled graph goes around them.
    """
    original: nn.Module = part._modules.get("_orig_mod") or part
    return original if original._compiled_call_impl is None else original._call_impl


def _is_stock(model: Any, classes: Collection[str]) -> bool:
    return any(base.__name__ in classes for base in type(model).__mro__)


def _parts(model: Any) -> Iterator[nn.Module]:
    """The modules that an object is made of."""
    if isinstance(model, nn.Module):
        yield from model.modules()
        return
    found = {id(part): part for value in _held(model, _DEPTH) for part in value.modules()}
    yield from found.values()


def _held(holder: Any, depth: int) -> Iterator[nn.Module]:
    """The modules that a plain object holds, in attributes, lists, dicts, or other plain objects."""
    if isinstance(holder, nn.Module):
        yield holder
    elif depth and not isinstance(holder, type | ModuleType):
        slots = (
            getattr(holder, name, None) for kind in type(holder).__mro__ for name in getattr(kind, "__slots__", ())
        )
        inside = holder.values() if isinstance(holder, dict) else holder if isinstance(holder, list | tuple) else slots
        for value in (*inside, *getattr(holder, "__dict__", {}).values()):
            yield from _held(value, depth - 1)


def _check_adapters(model: Any) -> None:
    """Raise `ModelError` for PEFT adapters that do not work on the prompt's own tokens."""
    adapters = getattr(model, "peft_config", None)
    for name, config in adapters.items() if isinstance(adapters, dict) else ():
        if getattr(config, "is_prompt_learning", False):
            raise ModelError(
                f"adapter {name!r} of {type(model).__name__} learns a prompt: it puts embeddings of its own before the "
                "user's, which cannot be compressed along; adapters inside the layers (LoRA and its kind) can. Without "
                "the adapter: model.get_base_model()"
            )


def _check_around(model: Any, stock: nn.Module) -> None:
    """Raise `ModelError` where what is around a stock model would call copies of it, or go around it."""
    own = {*map(id, stock.modules()), *map(id, compiled_around(model, stock))}
    for part in _parts(model):
        if id(part) in own:
            continue
        if is_compiled(part):
            raise ModelError(
                "a torch.compile'd model cannot be compressed: its compiled graph would bypass compression; "
                "pass the model as it was before torch.compile"
            )
        if isinstance(part, nn.DataParallel) and len(part.device_ids) > 1:
            raise ModelError(
                f"nn.DataParallel runs copies of the model on {len(part.device_ids)} devices, which compression does "
                "not reach; pass its .module, or use one process a device"
            )
