"""All methods by name. Classes are imported when asked for, so that listing names costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from earlytom.errors import MethodError

if TYPE_CHECKING:
    from earlytom.methods.base import Method

__all__ = ["METHODS", "find_method", "make_method", "method_names", "parse_method"]

METHODS: Mapping[str, str] = {
    "none": "earlytom.methods.none:Uncompressed",
    "earlytom": "earlytom.methods.earlytom:EarlyTom",
}
"""Name of each method -> ``module:Class``. Other packages add theirs by the entry point group ``earlytom.methods``."""

_ENTRY_POINTS = "earlytom.methods"


def method_names() -> list[str]:
    """The names of all methods, those of other installed packages included."""
    return [*METHODS, *sorted(entry.name for entry in entry_points(group=_ENTRY_POINTS) if entry.name not in METHODS)]


def find_method(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        MethodError: no such method; the message lists the known ones.
    """
    if name in METHODS:
        module, _, attribute = METHODS[name].partition(":")
        found: type[Method] = getattr(importlib.import_module(module), attribute)
        return found
    for entry in entry_points(group=_ENTRY_POINTS):
        if entry.name == name:
            loaded: type[Method] = entry.load()
            return loaded
    raise MethodError(f"unknown method {name!r}; the methods are: {', '.join(method_names())}")


def parse_method(text: str) -> Method:
    """Read a method from text: ``name`` or ``name:option=value,option=value``.

    Example: ``earlytom:retention=0.1,ema=0.9,merge_layers=6/14/20``.

    Raises:
        MethodError: unknown method or option, or a value that cannot be read or is not allowed.
    """
    name, _, rest = text.strip().partition(":")
    options: dict[str, object] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, separator, value = part.partition("=")
        if not separator:
            raise MethodError(f"method {text!r}: expected option=value, got {part!r}")
        if key.strip() in options:
            raise MethodError(f"method {text!r}: option {key.strip()!r} is given twice")
        options[key.strip()] = value
    return find_method(name.strip()).from_options(options)


def make_method(method: Method | str) -> Method:
    """``method`` itself, or the method that a text names (see `parse_method`)."""
    from earlytom.methods.base import Method

    if isinstance(method, str):
        return parse_method(method)
    if not isinstance(method, Method):
        raise MethodError(
            f"method must be an earlytom method (an instance, such as EarlyTom(retention=0.25)) or its name, got "
            f"{method!r}; "
            f"the methods are: {', '.join(method_names())}"
        )
    return method
