"""Calls that stand before a module's own, on one instance: put in by one assignment, taken out by another.

A hook will not do. torch registers one that takes keyword arguments in two steps and removes it in two, and a thread
that runs the module in between calls it without them. An entry of the instance's ``__dict__`` is there or is not.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, NoReturn

import torch
from torch import nn

from earlytom.errors import ModelError
from earlytom.runtime.generation import brings_pixels

__all__ = ["BoundToModel", "Shadow"]

_NOTHING = object()


class BoundToModel:
    """What belongs to one very model, and so can be neither copied nor pickled with it."""

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise ModelError("a model cannot be copied inside an earlytom.compress block; copy it before")

    def __reduce__(self) -> NoReturn:
        raise ModelError("a model cannot be pickled inside an earlytom.compress block; save it before")


class Shadow(BoundToModel):
    """A call before one of a module's own.

    Others (accelerate, for one) shadow ``forward`` on the instance too. Theirs is put back; and where they have put one
    before this call, that is left alone, and goes on calling what was there before both.

    Args:
        module: the instance.
        name: of its call.
        serve: takes the call that was there, and then the arguments.
    """

    def __init__(self, module: nn.Module, name: str, serve: Callable[..., Any]) -> None:
        self._module, self._name = module, name
        self.stock: Callable[..., Any] = getattr(module, name)
        self.serve = serve
        self._before = vars(module).get(name, _NOTHING)
        # A method of this object: copying or pickling the module copies or pickles the object first.
        self._call = MethodType(_looking_like(self.stock), self)

    def put_in(self) -> None:
        """From now on the module's callers meet this call first."""
        vars(self._module)[self._name] = self._call

    def take_out(self) -> None:
        """Leave the module as it was; whoever stands before this call from now on meets the stock call behind it."""
        self.serve = _pass_on
        if vars(self._module).get(self._name) is not self._call:
            return
        if self._before is _NOTHING:
            del vars(self._module)[self._name]
        else:
            vars(self._module)[self._name] = self._before

    def __deepcopy__(self, memo: dict[int, Any]) -> Shadow | PassingOn:  # type: ignore[override]
        return PassingOn(copy.deepcopy(self.stock, memo)) if self.serve is _pass_on else super().__deepcopy__(memo)

    def __reduce__(self) -> Any:
        return (PassingOn, (self.stock,)) if self.serve is _pass_on else super().__reduce__()


class PassingOn:
    """What a copy of a module has where others hold a call of ours that is over: the copy's own call.

    Args:
        stock: that call.
    """

    def __init__(self, stock: Callable[..., Any]) -> None:
        self.stock, self.serve = stock, _pass_on

    def __getattr__(self, name: str) -> Any:
        # A method is pickled as its object and its name, which is that of the stock call.
        if name.startswith("__") or "stock" not in vars(self):
            raise AttributeError(name)
        return self.stock


def _pass_on(stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return stock(*args, **kwargs)


def _met_first(shadow: Shadow, /, *args: Any, **kwargs: Any) -> Any:
    """Let a shadow serve a call.

    Inside ``torch.compile`` (transformers compiles the decoding steps behind a static cache) it is nothing but the
    stock call, so that no graph breaks, and none is compiled again in the next block; a video is never passed by.
    """
    if torch.compiler.is_compiling() and not brings_pixels(kwargs):
        return shadow.stock(*args, **kwargs)
    return shadow.serve(shadow.stock, *args, **kwargs)


def _looking_like(stock: Callable[..., Any]) -> Callable[..., Any]:
    """`_met_first` with the name, the words and the signature of ``stock``."""
    if isinstance(stock, MethodType) and inspect.isfunction(stock.__func__):
        return _looking_like_method(stock.__func__)
    signature = inspect.signature(stock)
    owner = inspect.Parameter("shadow", inspect.Parameter.POSITIONAL_ONLY)
    return _dressed(stock, signature.replace(parameters=[owner, *signature.parameters.values()]))


@functools.lru_cache(maxsize=64)
def _looking_like_method(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a method's function, whose first parameter stands for the shadow; layers of a kind share it."""
    return _dressed(function, inspect.signature(function))


def _dressed(stock: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """A copy of `_met_first`, without a closure: what a closure holds not every torch can trace past."""
    call = FunctionType(_met_first.__code__, globals())
    functools.update_wrapper(call, stock)
    del call.__dict__["__wrapped__"]  # it would be looked through, but has no ``shadow`` in front
    call.__dict__["__signature__"] = signature
    return call
