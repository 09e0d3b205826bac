"""From videos to a session: processor, encoder, and one prefill."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from earlytom.errors import CompressionError, shown
from earlytom.models import open_model
from earlytom.runtime.answer import describe_source
from earlytom.runtime.asking import check_no_placeholder
from earlytom.runtime.devices import computing_devices, synchronize
from earlytom.runtime.preprocessing import preprocess, to_model
from earlytom.runtime.router import check_outside
from earlytom.runtime.sessions.prefix import VideoPrefix, check_session_method, prefill_videos
from earlytom.runtime.sessions.seen import Seen
from earlytom.runtime.sessions.session import SessionState, VideoSession
from earlytom.runtime.sessions.talk import Talk, check_history, head_and_tail
from earlytom.runtime.sessions.turn import Behind, check_context
from earlytom.runtime.token_budget import check_kept_to, check_max_tokens, fit
from earlytom.runtime.turns import turns_of
from earlytom.trace import CallTrace, Stopwatch, Trace

if TYPE_CHECKING:
    from torch import nn

    from earlytom.methods.base import Method
    from earlytom.runtime.sessions.kept_cache import KeptCache
    from earlytom.video import Video

__all__ = ["check_opening", "open_session"]

# What is asked decides nothing before the end of the videos; any question serves to see what the template writes there.
_ANY_QUESTION = "?"


def check_opening(
    model: nn.Module,
    processor: Any,
    videos: int,
    method: Method,
    *,
    system: str | None,
    max_history: int | None,
    max_tokens: int | None,
) -> None:
    """Refuse what can be refused before a video is read.

    Raises:
        CompressionError: there is no video, the system prompt is no text or holds a placeholder, ``max_history`` or
            ``max_tokens`` is no number, or the latter is given for several videos.
        MethodError: the method does not fit the model, or acts inside the language model.
        ModelError: the language model forgets.
    """
    if not videos:
        raise CompressionError("open() needs a video to talk about; several are given one by one")
    check_history(max_history)
    check_max_tokens(max_tokens)
    if max_tokens is not None and videos > 1:
        raise CompressionError(f"max_tokens is for one video, got {videos}; choose fewer or smaller frames by sampling")
    if system is not None and not isinstance(system, str):
        raise CompressionError(f"the system prompt must be text or None, got {shown(system)}")
    if system is not None:
        check_no_placeholder(processor, "system prompt", system)
    check_session_method(method, open_model(model))


def open_session(
    model: nn.Module,
    processor: Any,
    videos: Sequence[Video],
    method: Method,
    *,
    system: str | None,
    max_history: int | None,
    max_tokens: int | None,
    seconds: float,
) -> VideoSession:
    """Encode and prefill videos, and open a conversation about them.

    Args:
        model: a supported stock model, or a wrapper around one.
        processor: its processor.
        videos: one or several.
        method: which passed `check_opening`.
        system: the system prompt; ``None``: what the chat template has by itself.
        max_history: how many past questions a prompt holds; ``None``: all.
        max_tokens: see `VideoQA.ask`.
        seconds: that reading the videos took, for the trace.

    Raises:
        VideoError: the processor refuses the frames.
        ModelError: its chat template fails, or the model is inside an `earlytom.compress` block.
        CompressionError: the template or the processor writes what cannot be kept, or the context is too small.
    """
    host, devices, started = open_model(model), computing_devices(model), time.perf_counter()
    videos, options = _fit(model, processor, _talk(processor, videos, system, max_history), videos, max_tokens)
    talk = _talk(processor, videos, system, max_history)
    prompt = talk.prompt(processor, _ANY_QUESTION)
    head, tail = head_and_tail(processor, prompt, len(videos))
    made = preprocess(processor, prompt, *videos, options=options)
    check_kept_to(model, made, max_tokens)
    inputs = to_model(made, model)
    synchronize(devices)
    outside = {"decoding": seconds * 1000, "preprocessing": (time.perf_counter() - started) * 1000}
    trace, call = Trace(method=method.describe()), CallTrace(stopwatch=Stopwatch(*devices), outside=outside)
    with turns_of(host.model).take():
        check_outside(host.model)
        prefix, cache = prefill_videos(host, method, inputs, head, tail, call)
        synchronize(devices)
    check_context(host.config, prefix, 0, 1)
    trace.calls.append(call)
    return VideoSession(model, processor, _state(trace, videos, talk, prefix, cache), trace)


def _state(trace: Trace, videos: Sequence[Video], talk: Talk, prefix: VideoPrefix, cache: KeptCache) -> SessionState:
    """How a session begins; the trace is told where its clips came from."""
    for clip, video in zip(trace.videos, videos, strict=True):
        clip.source = describe_source(video)
    seen = Seen.of(videos, trace.videos)
    return SessionState(method=trace.method, prefix=prefix, seen=seen, talk=talk, behind=Behind(cache))


def _talk(processor: Any, videos: Sequence[Video], system: str | None, max_history: int | None) -> Talk:
    """Nothing has been said. A processor may offer ``instruction(video)``: what its model expects to read first."""
    instruct = getattr(processor, "instruction", None)
    instruction = "" if instruct is None else "".join(instruct(video) for video in videos)
    return Talk(videos=len(videos), instruction=instruction, system=system, limit=max_history)


def _fit(
    model: nn.Module, processor: Any, talk: Talk, videos: Sequence[Video], max_tokens: int | None
) -> tuple[Sequence[Video], Mapping[str, Any]]:
    """The videos within the budget, and the processor's options by which they are."""
    if max_tokens is None:
        return videos, {}
    (video,) = videos
    fitted = fit(processor, model, lambda _: talk.prompt(processor, _ANY_QUESTION), video, max_tokens)
    return [fitted.video], fitted.options
