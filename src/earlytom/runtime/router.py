"""One router a model: everything of ours that stands before the calls of the model and its parts.

It is put in when somebody first holds it and taken out when nobody does any more: a `compress` block holds it, and so
does every call that is being served, so that a block may end while another thread is still inside a call. What stands
before a part says nothing by itself. It looks for the call that its thread is being served, which travels in a context
variable, and is stock where there is none.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import nn

from earlytom.errors import CompressionError, ModelError
from earlytom.models.caches import given_cache
from earlytom.models.wrapping import is_compiled, uncompiled
from earlytom.runtime.generation import brings_pixels, named_arguments
from earlytom.runtime.shadow import BoundToModel, Shadow

if TYPE_CHECKING:
    from earlytom.runtime.llm_stage import LlmStage
    from earlytom.trace import CallTrace

__all__ = ["ActiveCall", "Block", "Router", "call_being_served", "check_outside", "enter"]

Stock = Callable[..., Any]
"""A call of the model as it was before."""

_ROUTER = "_earlytom_router"
_LOCK = threading.RLock()


class Block(Protocol):
    """Who serves the calls of a model."""

    @property
    def acts_in_llm(self) -> bool:
        """Whether something acts inside the language model, so that its layers are to be watched."""

    def generate(self, stock: Stock, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Serve ``model.generate``."""

    def forward(self, stock: Stock, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Serve ``model.forward``."""

    def check_base_model(self, base: nn.Module, arguments: Mapping[str, Any]) -> None:
        """Raise `CompressionError` for a call of ``model.model`` that would go around compression."""

    def check_inputs(self, stock: Stock, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """The same for ``prepare_inputs_for_generation``, called by a ``generate`` that is not ours."""


@dataclass
class ActiveCall:
    """A call of ``generate`` or ``forward`` that a thread is being served.

    Attributes:
        trace: of the call.
        stage: what reduces tokens inside the language model, or ``None``.
        further: arguments that the language model's next call, its prefill, gets besides, by name: each a function of
            what the call has in place of every sample (beams).
        samples: prompts of the call.
        router: of the model.
        compressed: whether its prefill starts from embeddings of ours.
        over: whether it has ended; a context that was copied during the call may still speak of it.
    """

    trace: CallTrace
    router: Router
    stage: LlmStage | None = None
    further: Mapping[str, Callable[[int], Any]] = field(default_factory=dict)
    samples: int = 1
    compressed: bool = False
    over: bool = False
    thread: int = field(default_factory=threading.get_ident)
    _prefilling: bool = False
    _inside: bool = False
    _cache: Any = None

    @property
    def goes_inside(self) -> bool:
        """Whether something of ours is still to be met inside the language model, where a graph would go around it."""
        return self.stage is not None or bool(self.further)

    def owns(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call of the model's forward is this call's own, and not one that a callback of it makes.

        A compressed call prefills embeddings, and then goes on behind the cache that it prefilled.
        """
        if not self.compressed:
            return not (self.trace.clock.seen("prefill") and brings_pixels(arguments))
        if not self._prefilling:
            return arguments.get("inputs_embeds") is not None
        return given_cache(arguments) is self._cache

    def forward(self, stock: Stock, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward: a call's first one is its prefill, a second one ends the time to first token."""
        if self._inside:  # a compiled call that was met already, now without its graph
            return stock(*args, **kwargs)
        if self.trace.clock.seen("prefill"):
            self.trace.clock.stop("ttft")
            return stock(*args, **kwargs)
        self._prefilling, self._cache, self._inside = True, given_cache(kwargs), True
        try:
            with self.trace.clock.stage("prefill"):
                return stock(*args, **kwargs)
        finally:
            self._inside = False

    def begin_step(self) -> None:
        """A decoding step is being prepared, so the first token is there (a compiled step calls no forward here)."""
        if self.trace.clock.seen("prefill"):
            self.trace.clock.stop("ttft")

    def language_model(self, stock: Stock, *args: Any, **kwargs: Any) -> Any:
        """The language model, with further arguments where it is called first."""
        further, self.further = self.further, {}
        if not further:
            return stock(*args, **kwargs)
        repeats = kwargs["inputs_embeds"].shape[0] // self.samples
        return stock(*args, **kwargs | {name: make(repeats) for name, make in further.items()})


_ACTIVE: ContextVar[ActiveCall | None] = ContextVar("earlytom_active_call", default=None)


def call_being_served() -> ActiveCall | None:
    """The call, of whichever model, that this thread is being served; for those who look on."""
    call = _ACTIVE.get()
    return None if call is None or call.over or call.thread != threading.get_ident() else call


class Router(BoundToModel):
    """What stands before the calls of one model, counted by those who hold it.

    Args:
        model: a stock model.
        layers: of its language model.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module]) -> None:
        self._model, self._layers = model, layers
        self._compiled: list[nn.Module] = []
        self.block: Block | None = None
        self._held = {"model": 0, "layers": 0}
        self._in: dict[str, list[Shadow]] = {"model": [], "layers": []}

    @property
    def active(self) -> ActiveCall | None:
        """The call of this model that this thread is being served.

        Who copies a context into another thread does not take the call along.
        """
        call = call_being_served()
        return call if call is not None and call.router is self else None

    def hold(self, *, layers: bool, compiled: Sequence[nn.Module] = ()) -> None:
        """Keep everything in, the layers' part only with ``layers``, until `release` is called likewise.

        Wrappers may come later than the router, which a call of an earlier block can still hold; what stands before
        them stays in as long as what stands before the model.

        Args:
            layers: whether the layers' part is held too.
            compiled: what ``torch.compile(model)`` made, as far as the caller holds it.
        """
        make = {"model": self._model_shadows, "layers": self._layer_shadows}
        with _LOCK:
            made = {group: make[group]() for group in _groups(layers) if not self._held[group]}
            new = [wrapper for wrapper in compiled if not any(wrapper is known for known in self._compiled)]
            before_new = [shadow for wrapper in new for shadow in _before(wrapper, self._forward, self)]
            self._in |= made
            self._in["model"].extend(before_new)
            self._compiled.extend(new)
            for shadow in (*(shadow for shadows in made.values() for shadow in shadows), *before_new):
                shadow.put_in()
            for group in _groups(layers):
                self._held[group] += 1
            vars(self._model)[_ROUTER] = self

    def release(self, *, layers: bool) -> None:
        """See `hold`."""
        with _LOCK:
            for group in _groups(layers):
                self._held[group] -= 1
                if not self._held[group]:
                    for shadow in reversed(self._in[group]):
                        shadow.take_out()
                    self._in[group] = []
            if not self._held["model"]:
                del vars(self._model)[_ROUTER]

    @contextmanager
    def serving(self, block: Block, trace: CallTrace) -> Iterator[ActiveCall]:
        """Serve this thread one call of a block.

        Raises:
            CompressionError: the block has been closed meanwhile; a router that nobody holds is no model's any more.
        """
        with _LOCK:
            if self.block is not block:
                raise CompressionError("this earlytom.compress block was closed while a call was about to begin")
            self.hold(layers=block.acts_in_llm)
        call = ActiveCall(trace=trace, router=self)
        token = _ACTIVE.set(call)
        try:
            yield call
        finally:
            call.over = True
            _ACTIVE.reset(token)
            self.release(layers=block.acts_in_llm)

    def leave(self, block: Block) -> None:
        """The block is over; nothing happens where it is already."""
        with _LOCK:
            if self.block is block:
                self.block = None
                self.release(layers=block.acts_in_llm)

    def _model_shadows(self) -> list[Shadow]:
        model: Any = self._model
        language = model.model.language_model
        return [
            Shadow(model, "generate", self._generate),
            *_before(model, self._forward, self),
            Shadow(model, "prepare_inputs_for_generation", self._make_inputs),
            *_before(model.model, partial(self._base_model, model.model), self),
            *_before(language, self._language_model, self),
        ]

    def _layer_shadows(self) -> list[Shadow]:
        return [
            Shadow(layer, _entry(layer), partial(self._layer, index, layer)) for index, layer in enumerate(self._layers)
        ]

    def _generate(self, stock: Stock, *args: Any, **kwargs: Any) -> Any:
        block = self.block
        with _outside():
            return stock(*args, **kwargs) if block is None else block.generate(stock, args, kwargs)

    def _forward(self, stock: Stock, *args: Any, **kwargs: Any) -> Any:
        block, active = self.block, self.active
        if active is not None and active.owns(kwargs):
            return active.forward(stock, *args, **kwargs)
        with _outside():
            return stock(*args, **kwargs) if block is None else block.forward(stock, args, kwargs)

    def _make_inputs(self, stock: Stock, *args: Any, **kwargs: Any) -> Any:
        block, active = self.block, self.active
        if active is not None:
            active.begin_step()
        elif block is not None:
            block.check_inputs(stock, args, kwargs)
        return stock(*args, **kwargs)

    def _base_model(self, base: nn.Module, stock: Stock, *args: Any, **kwargs: Any) -> Any:
        block = self.block
        if block is not None:
            block.check_base_model(base, named_arguments(stock, args, kwargs) if args else kwargs)
        return stock(*args, **kwargs)

    def _language_model(self, stock: Stock, *args: Any, **kwargs: Any) -> Any:
        call = self.active
        return stock(*args, **kwargs) if call is None else call.language_model(stock, *args, **kwargs)

    def _layer(self, index: int, layer: nn.Module, stock: Stock, *args: Any, **kwargs: Any) -> Any:
        call = self.active
        if call is not None and call.stage is not None:
            args, kwargs = call.stage.before_layer(index, layer, args, kwargs)
        return stock(*args, **kwargs)


def _entry(part: nn.Module) -> str:
    """What callers of a part meet first: its graph, where ``part.compile()`` made one."""
    return "forward" if part._compiled_call_impl is None else "_compiled_call_impl"


def _before(part: nn.Module, serve: Stock, router: Router) -> list[Shadow]:
    """What stands before the calls of a part; a compiled one is stood before its graph too."""
    if not is_compiled(part):
        return [Shadow(part, "forward", serve)]
    graph = Shadow(part, _entry(part), partial(_before_graph, part, serve, router))
    return [graph] if _entry(part) == "forward" else [graph, Shadow(part, "forward", serve)]


def _before_graph(part: nn.Module, serve: Stock, router: Router, stock: Stock, *args: Any, **kwargs: Any) -> Any:
    """Serve a call of a compiled part, which runs its graph unless something of ours is to be met inside."""

    def call(*given: Any, **named: Any) -> Any:
        active = router.active
        chosen = uncompiled(part) if active is not None and active.goes_inside else stock
        return chosen(*given, **named)

    call.__signature__ = inspect.signature(getattr(part, "_orig_mod", part).forward)  # type: ignore[attr-defined]
    return serve(call, *args, **kwargs)


@contextmanager
def _outside() -> Iterator[None]:
    """What runs inside is no part of the call that this thread is being served: a callback asks the model anew."""
    token = _ACTIVE.set(None)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def _groups(layers: bool) -> tuple[str, ...]:
    return ("model", "layers") if layers else ("model",)


def _check_free(router: Router | None) -> None:
    if router is not None and router.block is not None:
        raise ModelError(
            "this model is already inside an earlytom.compress block; leave it (or close() it) before entering "
            "another one"
        )


def check_outside(model: nn.Module) -> None:
    """Raise `ModelError` where a block serves the calls of a stock model."""
    _check_free(vars(model).get(_ROUTER))


def enter(model: nn.Module, layers: Sequence[nn.Module], block: Block, compiled: Sequence[nn.Module] = ()) -> Router:
    """Let a block serve the calls of a model until `Router.leave`.

    Args:
        model: a stock model.
        layers: of its language model.
        block: who serves the calls.
        compiled: what ``torch.compile(model)`` made, as far as the caller holds it.

    Raises:
        ModelError: another block serves them.
    """
    with _LOCK:
        router = cast("Router", vars(model).get(_ROUTER) or Router(model, layers))
        _check_free(router)
        router.hold(layers=block.acts_in_llm, compiled=compiled)
        router.block = block
    return router
