"""All methods by name. Classes are imported when asked for, so that listing names costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from earlytom.errors import MethodError, shown

if TYPE_CHECKING:
    from earlytom.methods.base import Method

__all__ = ["METHODS", "find_method", "make_method", "method_names", "parse_method"]

METHODS: Mapping[str, str] = {
    "none": "earlytom.methods.none:Uncompressed",
    "earlytom": "earlytom.methods.earlytom:EarlyTom",
    "random": "earlytom.methods.random:RandomSelection",
    "uniform": "earlytom.methods.uniform:UniformSubsampling",
    "average-pooling": "earlytom.methods.average_pooling:AveragePooling",
    "visionzip": "earlytom.methods.visionzip:VisionZip",
    "holitom": "earlytom.methods.holitom:HoliTom",
    "fastvid": "earlytom.methods.fastvid:FastVID",
    "prunevid": "earlytom.methods.prunevid:PruneVid",
    "dycoke": "earlytom.methods.dycoke:DyCoke",
    "evs": "earlytom.methods.evs:EVS",
    "vidcom2": "earlytom.methods.vidcom2:VidCom2",
    "inner-merging": "earlytom.methods.inner_merging:InnerMerging",
    "fastv": "earlytom.methods.fastv:FastV",
    "pyramiddrop": "earlytom.methods.pyramiddrop:PyramidDrop",
    "tome": "earlytom.methods.tome:ToMe",
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
    raise MethodError(f"unknown method {shown(name)}; the methods are: {', '.join(method_names())}")


def parse_method(text: str, options: Mapping[str, object] | None = None) -> Method:
    """Read a method from text: ``name:option=value,option=value``, or several joined by ``+``.

    Examples: ``earlytom:retention=0.1,ema=0.9,merge_layers=6/14/20``; ``earlytom+visionzip:retention=0.2``, frame
    merging of the one and token selection of the other (`earlytom.methods.compose`; `earlytom.methods.grammar` has
    the grammar in full).

    Args:
        text: the method.
        options: more of its options, as if they were written at the end; values may be text.

    Raises:
        MethodError: unknown method or option, a value that cannot be read or is not allowed, or parts that cannot go
            together.
    """
    from earlytom.methods.grammar import read_method

    return read_method(text, options or {})


def make_method(method: Method | str) -> Method:
    """``method`` itself, or the method that a text names (see `parse_method`)."""
    from earlytom.methods.base import Method

    if isinstance(method, str):
        return parse_method(method)
    if not isinstance(method, Method):
        raise MethodError(
            f"method must be an earlytom method (an instance, such as EarlyTom(retention=0.25)) or its name, got "
            f"{shown(method)}; "
            f"the methods are: {', '.join(method_names())}"
        )
    return method
