"""The user's one line: ``with earlytom.compress(model, method) as trace: model.generate(**inputs)``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from earlytom.errors import CompressionError, ModelError
from earlytom.methods import make_method
from earlytom.models import open_model
from earlytom.models.caches import given_cache, returned_cache
from earlytom.models.wrapping import compiled_around
from earlytom.runtime.acting_in_llm import acting_in_llm
from earlytom.runtime.devices import computing_devices
from earlytom.runtime.generation import (
    check_generation,
    named_arguments,
    warn_about_cache,
    with_mask,
    with_new_token_limits,
)
from earlytom.runtime.hand_decoding import ShortenedPrompts, is_decoding_step
from earlytom.runtime.in_parts import check_grids_at_once
from earlytom.runtime.plans import Plans
from earlytom.runtime.prefix import CachedPrefix, cached_prefix
from earlytom.runtime.preparing import prepare_call
from earlytom.runtime.router import ActiveCall, Router, enter
from earlytom.stages import LayerRequests
from earlytom.trace import CallTrace, Stopwatch, Trace

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import VideoCall
    from earlytom.types import PrefillInputs

__all__ = ["Compression", "compress"]

# Frames from a warning to the user's ``model.generate(...)``.
_USERS_CALL = 6


def compress(model: nn.Module, method: Method | str, *, grids_at_once: int | None = None) -> Compression:
    """Switch a compression method on for a model; on leaving the model is exactly as it was.

    Inside, ``model.generate(**inputs)`` and ``model(**inputs)`` work with the processor's ordinary outputs, from any
    thread. The returned ids start with the original prompt. Prompts without video pass through unchanged. Several
    prompts about one clip cost one encoding when the clip is expanded over the batch instead of copied
    (``pixel_values_videos[:1].expand(n, -1, -1, -1, -1)``, done last: moving a tensor copies it). A cache that comes
    back (``return_dict_in_generate``) belongs to the shortened prompt: for a further turn send the whole history with
    its video again, not the cache.

    Args:
        model: a supported stock model, loaded by ``from_pretrained``, or a wrapper around one (PEFT's, for example).
        method: a method, or its name and options as text, such as ``"earlytom:retention=0.1"``.
        grids_at_once: for long clips on small devices, how many temporal grids (frames, in the Qwen families pairs of
            them) are in a layer of the vision encoder together, at most. ``None``: all, as in stock. Rounding differs,
            so that ties may be decided otherwise.

    Returns:
        What ``with`` takes, or a service holds: `Compression`.

    Raises:
        ModelError: the model is not supported.
        MethodError: the method is unknown or does not fit the model.
        CompressionError: ``grids_at_once`` is no number of grids, or the method cannot do with a part of them.
    """
    return Compression(model, method, grids_at_once=grids_at_once)


class Compression:
    """A method for the calls of one model, from entering until it is left or closed.

    As long as it is entered the model holds it, so that it cannot end unnoticed because nobody else does.

    Attributes:
        trace: what happened: one entry per call, with frames, tokens, decisions and times.

    Raises:
        ModelError: (on entering) the model is inside such a block already, or this one has been entered before.
        CompressionError: (from the calls inside) compression could not run as promised.
    """

    def __init__(self, model: nn.Module, method: Method | str, *, grids_at_once: int | None = None) -> None:
        self._forgotten = False  # nothing to warn about until it is made
        self._method = make_method(method)
        self._host = open_model(model)
        self._plans = Plans.of(self._method, self._host)
        check_grids_at_once(grids_at_once, LayerRequests.of([self._plans.encoder]))
        self._grids_at_once = grids_at_once
        self.trace = Trace(method=self._method.describe())
        # Prompts that forward() shortened, for callers who go on decoding by hand.
        self._prompts = ShortenedPrompts()
        self._router: Router | None = None
        self._compiled = compiled_around(model, self._host.model)
        self._devices = computing_devices(self._host.model)
        self._over = False
        self._forgotten = True

    def __enter__(self) -> Trace:
        self._forgotten = False
        if self._over or self._router is not None:
            raise ModelError(
                "this earlytom.compress block has been entered before, and serves once; make another one by "
                "earlytom.compress(model, method)"
            )
        self._router = enter(self._host.model, self._host.language.layers, self, self._compiled)
        return self.trace

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the model as it was; calls that other threads are inside still end as they began."""
        self._over, self._forgotten = True, False
        if self._router is not None:
            self._router.leave(self)

    def __del__(self) -> None:
        if self._forgotten:
            warnings.warn(
                "earlytom.compress(model, method) was never entered, so that nothing was compressed; write: with "
                "earlytom.compress(model, method) as trace: ...",
                RuntimeWarning,
                stacklevel=2,
            )

    @property
    def acts_in_llm(self) -> bool:
        """Whether the method acts inside the language model."""
        return self._plans.acts_in_llm

    def generate(self, stock: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Serve ``model.generate``."""
        with torch.no_grad():
            return self._generate(stock, args, kwargs)

    def _generate(self, stock: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        defaults = self._host.model.generation_config
        given = named_arguments(stock, args, kwargs)
        prefix = cached_prefix(given, generating=True)
        arguments = prefix.without(with_mask(given, defaults))
        opened = self._host.open(arguments)
        with self._serving() as call:
            if opened is None:
                return stock(*args, **kwargs)
            check_generation(arguments, defaults, reduces_in_llm=self.acts_in_llm)
            self._check_prefix(prefix, arguments, generating=True)
            warn_about_cache(arguments, defaults, stacklevel=_USERS_CALL)
            opened.inputs = with_new_token_limits(arguments, defaults)
            call.trace.clock.start("ttft")
            prepared = prefix.before(self._prepare(opened, call.trace), generating=True)
            with self._acting_in_llm(call, prepared):
                output = stock(**prepared.arguments)
            call.trace.clock.stop("ttft")
            return output

    def forward(self, stock: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Serve ``model.forward``."""
        given = named_arguments(stock, args, kwargs)
        if is_decoding_step(given):
            return stock(**self._prompts.fitting(given))
        prefix = cached_prefix(given, generating=False)
        arguments = prefix.without(given)
        opened = self._host.open(arguments)
        if opened is None:
            return stock(**self._prompts.fitting(given))
        self._check_prefix(prefix, arguments, generating=False)
        if self.acts_in_llm:
            if arguments.get("use_cache") or given_cache(arguments) is not None:
                raise CompressionError(
                    "forward() cannot fill a cache with a method that acts in the LLM; use generate()"
                )
            opened.inputs = {**arguments, "use_cache": False}
        with self._serving() as call:
            call.trace.clock.start("ttft")
            prepared = prefix.before(self._prepare(opened, call.trace), generating=False)
            short = {key: value for key, value in prepared.arguments.items() if key != "input_ids"}
            with self._acting_in_llm(call, prepared):
                output = call.forward(stock, **short)
            call.trace.clock.stop("ttft")
        cache = returned_cache(output)
        if cache is not None:
            self._prompts.add(cache, opened.prompt, prepared, prefix)
        return output

    def _prepare(self, opened: VideoCall, trace: CallTrace) -> PrefillInputs:
        return prepare_call(opened, self._method, self._plans.encoder, trace, self._grids_at_once)

    def _acting_in_llm(self, call: ActiveCall, prepared: PrefillInputs) -> AbstractContextManager[None]:
        return acting_in_llm(call, self._host.language, self._method, self._plans.language, prepared)

    def _check_prefix(self, prefix: CachedPrefix, arguments: Mapping[str, Any], *, generating: bool) -> None:
        sequential = self._host.sequential_positions
        prefix.check(arguments, generating=generating, sequential=sequential, reduces_in_llm=self.acts_in_llm)

    @contextmanager
    def _serving(self) -> Iterator[ActiveCall]:
        router = self._router
        if router is None:
            raise LookupError("only an entered block serves calls")
        trace = CallTrace(stopwatch=Stopwatch(*self._devices))
        with router.serving(self, trace) as call:
            yield call
        self.trace.calls.append(trace)

    def _brings_video(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call brings a video; some families hand it over among the images, which only opening it tells."""
        encoded = arguments.get("mm_encoder_outputs") or {}
        if arguments.get("pixel_values_videos") is not None or encoded.get("video") is not None:
            return True
        if not self._host.videos_among_images:
            return False
        images = arguments.get("pixel_values") is not None or encoded.get("image") is not None
        return images and self._host.open(arguments) is not None

    def check_base_model(self, base: nn.Module, arguments: Mapping[str, Any]) -> None:
        """Inside a block no video may reach ``model.model``: what is compressed gets there as embeddings."""
        if self._brings_video(arguments):
            raise CompressionError(
                f"{type(base).__name__} was called with a video inside a compress block, which would not be "
                "compressed; call the whole model or its generate()"
            )

    def check_inputs(self, stock: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """A ``generate`` from before the block prepares its inputs here, and would not be compressed."""
        if self._brings_video(named_arguments(stock, args, kwargs)):
            raise CompressionError(
                "this generate() was taken from the model before the compress block, so it would not be compressed; "
                "call model.generate inside the block"
            )
