"""A conversation about videos: each question prefills its own tokens only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from earlytom.errors import CompressionError
from earlytom.models import open_model
from earlytom.runtime.answer import Answer
from earlytom.runtime.asking import check_questions, generation_options
from earlytom.runtime.devices import computing_devices, synchronize
from earlytom.runtime.router import check_outside
from earlytom.runtime.sessions.prefix import VideoPrefix, check_head, placement
from earlytom.runtime.sessions.seen import Seen
from earlytom.runtime.sessions.talk import Talk, head_and_tail
from earlytom.runtime.sessions.turn import Behind, Generated, check_context, check_options, generate_behind
from earlytom.runtime.streaming import Cancellation, Watch, streamed
from earlytom.runtime.turns import turns_of
from earlytom.trace import CallTrace, Trace

if TYPE_CHECKING:
    from torch import nn

    from earlytom.models.base import Host

__all__ = ["SessionState", "VideoSession"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SessionState:
    """What a session is at one moment; never written to, so that forks and answers share it.

    Attributes:
        method: as text.
        prefix: the prompt up to the end of its videos.
        seen: what the videos were and cost.
        talk: what has been said.
        behind: the cache.
    """

    method: str
    prefix: VideoPrefix
    seen: Seen
    talk: Talk
    behind: Behind


class VideoSession:
    """A conversation about one video or several, which were read, encoded and prefilled once; made by `VideoQA.open`.

    Questions and answers stay in the history, so that later questions may refer to them. Threads may share a session;
    all that work with one model take turns. The model itself is left as it was.

    Args:
        model: the model, or the wrapper around it, that answers.
        processor: its processor.
        state: how it begins.
        trace: of opening it; empty where it was loaded from a file.
    """

    def __init__(self, model: nn.Module, processor: Any, state: SessionState, trace: Trace) -> None:
        self.trace = trace
        self._model, self._processor = model, processor
        self._host: Host = open_model(model)
        self._turns = turns_of(self._host.model)
        self._state: SessionState | None = state
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = self._state
        if state is None:
            return "<VideoSession, closed>"
        return f"<VideoSession, {state.method}, {len(state.talk.turns)} turns, {state.behind.cache.bytes:,} bytes>"

    def close(self) -> None:
        """Let go of the cache; forks go on. An answer that is being given ends, and is not added to the history."""
        with self._lock:
            self._state = None

    @property
    def method(self) -> str:
        """The compression method, as text. Raises `CompressionError` behind `close`, as all below do."""
        return self._open_state().method

    @property
    def history(self) -> tuple[tuple[str, str], ...]:
        """The questions and answers that stand before the next question, oldest first."""
        return self._open_state().talk.turns

    @property
    def memory(self) -> int:
        """Bytes of the cache: of the videos, and of the text behind them. Forks share those of the videos at first."""
        return self._open_state().behind.cache.bytes

    @property
    def visual_tokens(self) -> int:
        """Visual tokens in the cache, newline embeddings not counted."""
        return self._open_state().seen.visual_tokens

    def fork(self) -> VideoSession:
        """Another line of talk from here on about the same videos; nothing is copied before something is said in it."""
        return VideoSession(self._model, self._processor, self._open_state(), self.trace)

    def save(self, path: str | Path) -> None:
        """Write the session into one file, tensors and JSON, which `VideoQA.load_session` reads.

        Raises:
            CompressionError: it is closed, or the file cannot be written.
        """
        from earlytom.runtime.sessions.files import write_session

        state = self._open_state()
        with self._turns.take():
            self._check_model(state)
            write_session(Path(path), state, self._host.model)

    def ask(
        self,
        question: str,
        *,
        on_text: Callable[[str], None] | None = None,
        cancelled: Cancellation | None = None,
        max_new_tokens: int = 64,
        **generation: Any,
    ) -> Answer:
        """Answer a question, knowing what was said before. Where that fails, the session is as it was.

        Args:
            question: the question.
            on_text: called with pieces of the answer as they come (not with beams).
            cancelled: set it from another thread to stop after the next token; what there is goes into the history.
            max_new_tokens: most tokens to generate.
            **generation: further options of ``generate``; greedy unless ``do_sample`` is set.

        Returns:
            The answer. ``prefill_tokens`` and ``ttft`` are those of this question, ``decoding`` is 0, and ``trace``
            holds this call alone; `trace` tells what happened to the videos.

        Raises:
            CompressionError: the session is closed; the question is empty or holds a placeholder; the context is full;
                the model has been moved or cast; an option cannot be had; or it is asked from inside an answer.
            ModelError: the model is inside an `earlytom.compress` block.
        """
        check_questions(self._processor, [question])
        options = generation | {"max_new_tokens": max_new_tokens}
        check_options(options, self._host.model.generation_config)
        watch = Watch(cancelled)
        options = generation_options(self._processor, options, watch, on_text)
        with self._turns.take():
            state = self._open_state()
            self._check_model(state)
            started = time.perf_counter()
            tail = self._tail(state, question)
            check_context(self._host.config, state.prefix, len(tail), max_new_tokens)
            devices = computing_devices(self._model)
            synchronize(devices)
            ready = time.perf_counter()
            made = generate_behind(self._model, self._host.model, state.prefix, state.behind, tail, options)
            synchronize(devices)
            finished = time.perf_counter()
            text = self._processor.tokenizer.decode(made.ids, skip_special_tokens=True).strip()
            self._go_on(state, question, text, made)
        seconds = {
            "ttft": (watch.time or finished) - ready,
            "generation": finished - ready,
            "preprocessing": ready - started,
        }
        return self._answer(state, text, made, len(tail), seconds)

    def stream(
        self,
        question: str,
        *,
        on_text: Callable[[str], None] | None = None,
        cancelled: Cancellation | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Like `ask`, but yields the answer piece by piece; errors are raised in the caller's thread.

        Closing the iterator early stops the generation after its next token; what there is goes into the history. So
        does ``cancelled``. ``on_text`` gets the same pieces, in the thread that generates.
        """
        return streamed(partial(self.ask, question, **options), on_text, cancelled)

    def _open_state(self) -> SessionState:
        state = self._state
        if state is None:
            raise CompressionError("this session has been closed; open the video again, or load a saved session")
        return state

    def _check_model(self, state: SessionState) -> None:
        check_outside(self._host.model)
        now = placement(self._host.language.layers)
        moved = [
            number for number, (then, here) in enumerate(zip(state.prefix.placement, now, strict=True)) if then != here
        ]
        if moved:
            then, here = state.prefix.placement[moved[0]], now[moved[0]]
            raise CompressionError(
                f"layer {moved[0]} of the language model was {_placed(then)} when the session's cache was made, and is "
                f"{_placed(here)} now; move the model back, or open the video again"
            )

    def _tail(self, state: SessionState, question: str) -> list[int]:
        prompt = state.talk.prompt(self._processor, question)
        head, tail = head_and_tail(self._processor, prompt, state.talk.videos)
        check_head(state.prefix.head, head)
        return tail

    def _go_on(self, state: SessionState, question: str, text: str, made: Generated) -> None:
        talk = state.talk.with_turn(self._processor, question, text)
        with self._lock:
            if self._state is not None:
                self._state = replace(state, talk=talk, behind=made.behind)

    def _answer(self, state: SessionState, text: str, made: Generated, tail: int, seconds: dict[str, float]) -> Answer:
        trace = Trace(method=state.method)
        trace.calls.append(
            CallTrace(
                prompt_tokens=state.prefix.prompt_tokens + tail,
                prefill_tokens=made.prefilled,
                decoder_layers=len(self._host.language.layers),
                outside={"preprocessing": seconds["preprocessing"] * 1000},
            )
        )
        return Answer(
            text=text,
            new_tokens=len(made.ids),
            prefill_tokens=made.prefilled,
            decoding=0.0,
            trace=trace,
            ttft=seconds["ttft"],
            generation=seconds["generation"],
            preprocessing=seconds["preprocessing"],
            **state.seen.counts(),
        )


def _placed(where: tuple[Any, Any] | None) -> str:
    return "offloaded" if where is None else f"{where[1]} on {where[0]}"
