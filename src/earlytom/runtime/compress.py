"""The user's one line: ``with earlytom.compress(model, method) as trace: model.generate(**inputs)``."""

from __future__ import annotations

import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from earlytom.errors import CompressionError, MethodError, ModelError
from earlytom.methods import make_method
from earlytom.models import find_adapter
from earlytom.runtime.encode import encode_videos, plan_encoder
from earlytom.runtime.generation import check_generation, named_arguments, with_mask, with_new_token_limits
from earlytom.runtime.language import language_model_stages, plan_language_model
from earlytom.trace import CallTrace, Stopwatch, Trace, VideoTrace
from earlytom.types import FrameGrid, KeptTokens, PrefillInputs

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import ModelAdapter
    from earlytom.models.prompt import HostPrompt

__all__ = ["compress", "prepare"]

_LOCK = threading.Lock()


def prepare(model: nn.Module, inputs: Mapping[str, Any], method: Method | str) -> PrefillInputs:
    """Compress the videos of a prompt and return what stock ``model.generate`` needs; the model is not touched.

    ``model.generate(**prepare(model, inputs, method).arguments)`` returns the original prompt's ids followed by the new
    ones. A prompt without video comes back as it is.

    Args:
        model: a supported stock model.
        inputs: the processor's output.
        method: a method, or its name and options as text (`earlytom.methods.parse_method`).

    Raises:
        ModelError: the model is not supported.
        MethodError: the method does not fit the model, or acts inside the language model (that needs `compress`).
        CompressionError: prompt and videos do not match.
    """
    method, adapter = make_method(method), find_adapter(model)
    plan = plan_language_model(adapter, model, method)
    if plan.reduce_before:
        raise MethodError(
            f"method {method.name!r} acts inside the language model (before layer {plan.reduce_before[0]}), which "
            "prepare() cannot do; use earlytom.compress"
        )
    masked = with_mask(inputs, cast(Any, model).generation_config)
    prompt = adapter.prompt(model, masked)
    if prompt is None:
        return PrefillInputs(arguments=dict(inputs), visual_positions=(), dropped=())
    call = CallTrace(stopwatch=Stopwatch(next(model.parameters()).device))
    with torch.no_grad():
        prepared = _prepare(adapter, model, masked, prompt, method, call)
    if prepared.language_arguments:
        raise ModelError(
            f"the language model of {type(model).__name__} gets more than embeddings "
            f"({', '.join(prepared.language_arguments)}), which prepare() cannot hand over; use earlytom.compress"
        )
    return prepared


@contextmanager
def compress(model: nn.Module, method: Method | str) -> Iterator[Trace]:
    """Switch a compression method on for a model; on leaving the model is exactly as it was.

    Inside, ``model.generate(**inputs)`` and ``model(**inputs)`` work with the processor's ordinary outputs. The
    returned ids start with the original prompt. Prompts without video pass through unchanged. Several prompts about one
    clip cost one encoding when the clip is expanded over the batch instead of copied
    (``pixel_values_videos[:1].expand(n, -1, -1, -1, -1)``, done last: moving a tensor copies it). A cache that comes
    back (``return_dict_in_generate``) belongs to the shortened prompt: for a further turn send the whole history with
    its video again, not the cache.

    Args:
        model: a supported stock model, loaded by ``from_pretrained``.
        method: a method, or its name and options as text, such as ``"earlytom:retention=0.1"``.

    Yields:
        The trace: one entry per call, with frames, tokens, decisions and times.

    Raises:
        ModelError: the model is not supported, or already inside a `compress` block.
        MethodError: the method is unknown or does not fit the model.
        CompressionError: (from the calls inside) compression could not run as promised.
    """
    method, adapter = make_method(method), find_adapter(model)
    plan_encoder(adapter, model, method)
    plan_language_model(adapter, model, method)
    trace = Trace(method=method.describe())
    with _shadowed(model, _Compressor(adapter, model, method, trace)):
        yield trace


@contextmanager
def _shadowed(model: nn.Module, compressor: _Compressor) -> Iterator[None]:
    """Put the compressor's calls before the model's own, on this instance only."""
    names = tuple(compressor.calls)
    # Others (accelerate, for one) shadow forward on the instance too; theirs are put back afterwards.
    previous = {name: model.__dict__[name] for name in names if name in model.__dict__}
    with _LOCK:
        if any(isinstance(value, _Call) for value in previous.values()):
            raise ModelError(
                "this model is already inside an earlytom.compress block; leave it before entering another one"
            )
        inner = getattr(model, str(getattr(model, "base_model_prefix", "")))
        # A function, since copying a model would copy a method's object first, before _Call can say why it must not.
        guard = inner.register_forward_pre_hook(lambda *call: compressor.refuse_pixels(*call), with_kwargs=True)
        model.__dict__.update(compressor.calls)
    try:
        yield
    finally:
        guard.remove()
        compressor.closed = True
        for name, call in compressor.calls.items():
            if model.__dict__.get(name) is call:
                del model.__dict__[name]
                model.__dict__.update({name: previous[name]} if name in previous else {})


class _Call:
    """A call that stands before one of the model's own. It belongs to this very model, so it cannot be copied."""

    def __init__(self, original: Callable[..., Any], serve: Callable[..., Any]) -> None:
        functools.update_wrapper(self, original)
        self._serve = serve

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._serve(*args, **kwargs)

    def __deepcopy__(self, memo: object) -> _Call:
        raise ModelError("a model cannot be copied inside an earlytom.compress block; copy it before")

    def __reduce__(self) -> str:
        raise ModelError("a model cannot be pickled inside an earlytom.compress block; save it before")


@dataclasses.dataclass(frozen=True)
class _Shortened:
    """A prompt of ``length`` tokens that was shortened to ``mask``; see `PrefillInputs.next_position`."""

    length: int
    mask: torch.Tensor
    next_position: torch.Tensor | None

    def arguments(self, given: Mapping[str, Any], cached: int) -> dict[str, Any]:
        """What replaces the arguments of a step behind this prompt, when ``cached`` tokens are in the cache."""
        changed: dict[str, Any] = {}
        new = given["input_ids"] if given.get("input_ids") is not None else given["inputs_embeds"]
        behind = cached - self.mask.shape[1]
        if given.get("attention_mask") is not None:
            newer = given["attention_mask"][:, self.length :].to(self.mask)
            changed["attention_mask"] = torch.cat([self.mask, newer], dim=1)
        elif bool((self.mask == 0).any()):
            # Prompts that needed no padding may have been shortened to unequal lengths, which do.
            newer = self.mask.new_ones(self.mask.shape[0], behind + new.shape[1])
            changed["attention_mask"] = torch.cat([self.mask, newer], dim=1)
        if self.next_position is not None and given.get("position_ids") is None:
            steps = torch.arange(new.shape[1], device=self.next_position.device) + behind
            changed["position_ids"] = (self.next_position + steps).expand(3, -1, -1)
        return changed


class _Serving(threading.local):
    """The call that this thread is being served; the model's calls to itself are stock then."""

    call: CallTrace | None = None


class _Compressor:
    """The calls that replace the model's own inside a `compress` block."""

    def __init__(self, adapter: ModelAdapter, model: nn.Module, method: Method, trace: Trace) -> None:
        self._adapter, self._model, self._method, self._trace = adapter, model, method, trace
        self._reduces_in_llm = bool(plan_language_model(adapter, model, method).reduce_before)
        self._serving = _Serving()
        # Prompts that forward() shortened, for callers who go on decoding by hand.
        self._prompts: weakref.WeakKeyDictionary[Any, _Shortened] = weakref.WeakKeyDictionary()
        self.closed = False
        stock: Any = model
        self._generate, self._forward, self._make_inputs = (
            stock.generate,
            stock.forward,
            stock.prepare_inputs_for_generation,
        )
        self.calls = {
            "generate": _Call(self._generate, self._serve_generate),
            "forward": _Call(self._forward, self._serve_forward),
            "prepare_inputs_for_generation": _Call(self._make_inputs, self._serve_make_inputs),
        }

    @contextmanager
    def _serve(self) -> Iterator[CallTrace]:
        call = CallTrace(stopwatch=Stopwatch(next(self._model.parameters()).device))
        self._serving.call = call
        try:
            yield call
        finally:
            self._serving.call = None
        self._trace.calls.append(call)

    @torch.no_grad()
    def _serve_generate(self, *args: Any, **kwargs: Any) -> Any:
        if self.closed or self._serving.call is not None:
            return self._generate(*args, **kwargs)
        defaults = self._model.generation_config
        arguments = with_mask(named_arguments(self._generate, args, kwargs), defaults)
        prompt = self._adapter.prompt(self._model, arguments)
        with self._serve() as call:
            if prompt is None:
                return self._generate(*args, **kwargs)
            check_generation(arguments, defaults, reduces_in_llm=self._reduces_in_llm)
            arguments = with_new_token_limits(arguments, defaults)
            call.clock.start("ttft")
            prepared = _prepare(self._adapter, self._model, arguments, prompt, self._method, call)
            with language_model_stages(self._adapter, self._model, self._method, prepared, call):
                output = self._generate(**prepared.arguments)
            call.clock.stop("ttft")
            return output

    def _serve_forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.closed:
            return self._forward(*args, **kwargs)
        if self._serving.call is not None:
            return self._stock_forward(self._serving.call, *args, **kwargs)
        arguments = named_arguments(self._forward, args, kwargs)
        prompt = self._adapter.prompt(self._model, arguments)
        if prompt is None:
            return self._forward(**self._behind_short_prompt(arguments))
        if self._reduces_in_llm:
            if arguments.get("use_cache") or arguments.get("past_key_values") is not None:
                raise CompressionError(
                    "forward() cannot fill a cache with a method that acts in the LLM; use generate()"
                )
            arguments["use_cache"] = False
        with self._serve() as call:
            call.clock.start("ttft")
            prepared = _prepare(self._adapter, self._model, arguments, prompt, self._method, call)
            short = {key: value for key, value in prepared.arguments.items() if key != "input_ids"}
            with language_model_stages(self._adapter, self._model, self._method, prepared, call):
                output = self._stock_forward(call, **short)
            call.clock.stop("ttft")
        cache = getattr(output, "past_key_values", None)
        if cache is not None:
            self._prompts[cache] = _Shortened(prompt.ids.shape[1], short["attention_mask"], prepared.next_position)
        return output

    def _stock_forward(self, call: CallTrace, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward: a call's first one is its prefill, the second one ends the time to first token."""
        if call.clock.seen("prefill"):
            call.clock.stop("ttft")
            return self._forward(*args, **kwargs)
        with call.clock.stage("prefill"):
            return self._forward(*args, **kwargs)

    def _behind_short_prompt(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """When a caller decodes by hand behind a shortened prompt: the mask and the positions that fit it."""
        cache = arguments.get("past_key_values")
        known = None if cache is None else self._prompts.get(cache)
        if cache is None or known is None:
            return arguments
        return arguments | known.arguments(arguments, cache.get_seq_length())

    def refuse_pixels(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Inside a block no video may reach the inner model: what is compressed gets there as embeddings."""
        if self._brings_video(kwargs):
            raise CompressionError(
                f"{type(module).__name__} was called with a video inside a compress block, which would not be "
                "compressed; call the whole model or its generate()"
            )

    def _brings_video(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call brings a video; some families hand it over among the images, which only the adapter tells."""
        encoded = arguments.get("mm_encoder_outputs") or {}
        if arguments.get("pixel_values_videos") is not None or encoded.get("video") is not None:
            return True
        if "pixel_values_videos" in self._adapter.clip_arguments:
            return False
        images = arguments.get("pixel_values") is not None or encoded.get("image") is not None
        return images and self._adapter.prompt(self._model, arguments) is not None

    def _serve_make_inputs(self, *args: Any, **kwargs: Any) -> Any:
        alone = not self.closed and self._serving.call is None
        if alone and self._brings_video(named_arguments(self._make_inputs, args, kwargs)):
            raise CompressionError(
                "this generate() was taken from the model before the compress block, so it would not be compressed; "
                "call model.generate inside the block"
            )
        return self._make_inputs(*args, **kwargs)


def _prepare(
    adapter: ModelAdapter,
    model: nn.Module,
    inputs: Mapping[str, Any],
    prompt: HostPrompt,
    method: Method,
    call: CallTrace,
) -> PrefillInputs:
    """Stages I and II of one call, and its shortened prompt."""
    grids = adapter.grids(model, inputs, prompt)
    kept, call.videos = _encode(adapter, model, inputs, grids, method, call.clock)
    with call.clock.stage("assembly"):
        prepared = adapter.assemble(model, inputs, prompt, grids, kept)
    call.prompt_tokens = prompt.ids.shape[1]
    call.prefill_tokens = prepared.arguments["inputs_embeds"].shape[1]
    return prepared


def _encode(
    adapter: ModelAdapter,
    model: nn.Module,
    inputs: Mapping[str, Any],
    grids: Sequence[FrameGrid],
    method: Method,
    clock: Stopwatch,
) -> tuple[list[KeptTokens], list[VideoTrace]]:
    """The kept tokens of every clip, and what happened to it; one clip that is given several times is encoded once."""
    if not _is_one_clip(inputs.get("pixel_values_videos"), grids):
        return encode_videos(adapter, model, inputs, grids, method, clock)
    alone = {**inputs, **{name: inputs[name][:1] for name in adapter.clip_arguments if inputs.get(name) is not None}}
    kept, traces = encode_videos(adapter, model, alone, grids[:1], method, clock)
    # A trace may be written to by whoever gets it, so each prompt has its own.
    return kept * len(grids), [dataclasses.replace(traces[0]) for _ in grids]


def _is_one_clip(pixels: object, grids: Sequence[FrameGrid]) -> bool:
    """Whether all clips are one in memory, as ``pixels[:1].expand(n, ...)`` makes them; told without reading any."""
    if not isinstance(pixels, torch.Tensor) or len(grids) < 2 or len(set(grids)) > 1:
        return False
    return pixels.shape[0] == len(grids) and pixels.stride(0) == 0
