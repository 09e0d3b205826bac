"""From videos to a session: processor, encoder, and one prefill."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from earlytom.errors import CompressionError, shown
from earlytom.models import open_model
from earlytom.runtime.answer import describe_source
from earlytom.runtime.asking import check_no_placeholder, model_inputs
from earlytom.runtime.devices import computing_devices, synchronize
from earlytom.runtime.router import check_outside
from earlytom.runtime.sessions.prefix import check_session_method, prefill_videos
from earlytom.runtime.sessions.seen import Seen
from earlytom.runtime.sessions.session import SessionState, VideoSession
from earlytom.runtime.sessions.talk import Talk, check_history, head_and_tail
from earlytom.runtime.sessions.turn import Behind, check_context
from earlytom.runtime.turns import turns_of
from earlytom.trace import CallTrace, Stopwatch, Trace

if TYPE_CHECKING:
    from torch import nn

    from earlytom.methods.base import Method
    from earlytom.video import Video

__all__ = ["check_talk", "open_session"]

# What is asked decides nothing before the end of the videos; any question serves to see what the template writes there.
_ANY_QUESTION = "?"


def check_talk(model: nn.Module, processor: Any, method: Method, system: str | None, max_history: int | None) -> None:
    """Refuse what no video is needed to refuse, before one is read.

    Raises:
        CompressionError: the system prompt is no text or holds a placeholder, or ``max_history`` is no number of turns.
        MethodError: the method does not fit the model, or acts inside the language model.
        ModelError: the language model forgets.
    """
    check_history(max_history)
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
    seconds: float,
) -> VideoSession:
    """Encode and prefill videos, and open a conversation about them.

    Args:
        model: a supported stock model, or a wrapper around one.
        processor: its processor.
        videos: one or several.
        method: which passed `check_talk`.
        system: the system prompt; ``None``: what the chat template has by itself.
        max_history: how many past questions a prompt holds; ``None``: all.
        seconds: that reading the videos took, for the trace.

    Raises:
        VideoError: the processor refuses the frames.
        ModelError: its chat template fails, or the model is inside an `earlytom.compress` block.
        CompressionError: the template or the processor writes what cannot be kept, or the context is too small.
    """
    host, devices, started = open_model(model), computing_devices(model), time.perf_counter()
    instruct = getattr(processor, "instruction", None)
    instruction = "" if instruct is None else "".join(instruct(video) for video in videos)
    talk = Talk(videos=len(videos), instruction=instruction, system=system, limit=max_history)
    prompt = talk.prompt(processor, _ANY_QUESTION)
    head, tail = head_and_tail(processor, prompt, len(videos))
    inputs = model_inputs(model, processor, prompt, *videos)
    synchronize(devices)
    outside = {"decoding": seconds * 1000, "preprocessing": (time.perf_counter() - started) * 1000}
    trace, call = Trace(method=method.describe()), CallTrace(stopwatch=Stopwatch(*devices), outside=outside)
    with turns_of(host.model).take():
        check_outside(host.model)
        prefix, cache = prefill_videos(host, method, inputs, head, tail, call)
        synchronize(devices)
    check_context(host.config, prefix, 0, 1)
    for clip, video in zip(call.videos, videos, strict=True):
        clip.source = describe_source(video)
    trace.calls.append(call)
    state = SessionState(
        method=method.describe(), prefix=prefix, seen=Seen.of(videos, call.videos), talk=talk, behind=Behind(cache)
    )
    return VideoSession(model, processor, state, trace)
