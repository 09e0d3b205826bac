"""Threads that answer with one model take turns."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn

from earlytom.errors import CompressionError

__all__ = ["Taker", "Turns", "current_taker", "turns_of", "work_inside"]


@dataclass(eq=False)
class Taker:
    """Who has a turn or waits for one, in which thread, and the one from inside whose turn he asks."""

    outer: Taker | None
    waits_for: Turns | None = None
    thread: int = field(default_factory=threading.get_ident)

    def is_inside(self, other: Taker) -> bool:
        """Whether ``other`` is this one, or goes on only when this one is done."""
        return self is other or (self.outer is not None and self.outer.is_inside(other))


_THREAD = threading.local()
# One condition for all turns, since who waits for whom may go over several of them.
_CHANGED = threading.Condition()
_WAITING: set[Taker] = set()
_ALL: weakref.WeakSet[Turns] = weakref.WeakSet()
# After as many seconds a thread that waits looks whether it is itself waited for.
_LOOK = 1.0


def current_taker() -> Taker | None:
    """From inside whose turn this thread would ask."""
    return getattr(_THREAD, "taker", None)


def work_inside(taker: Taker | None) -> None:
    """Let this thread ask from inside somebody's turn, who waits for it."""
    _THREAD.taker = taker


class Turns:
    """One thread at a time, and never one inside itself."""

    def __init__(self) -> None:
        self._holder: Taker | None = None
        with _CHANGED:  # under which they are looked through
            _ALL.add(self)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for this thread's turn.

        Raises:
            CompressionError: it would never come, since whoever has it waits for this thread.
        """
        outer = current_taker()
        taker = Taker(outer=outer)
        self._wait(taker)
        work_inside(taker)
        try:
            yield
        finally:
            work_inside(outer)
            with _CHANGED:
                self._holder = None
                _CHANGED.notify_all()

    def _wait(self, taker: Taker) -> None:
        taker.waits_for = self
        with _CHANGED:
            try:
                _WAITING.add(taker)
                while self._holder is not None:
                    if self._never_comes(taker):
                        raise CompressionError(
                            "a question was asked from inside the answer to another one (from on_text, a stopping "
                            "criterion or a logits processor), which would wait for itself; ask it behind that answer, "
                            "or of another model"
                        )
                    if not _CHANGED.wait(_LOOK) and taker.outer is None:
                        taker.outer = _joining(taker)
                self._holder = taker
            finally:
                _WAITING.discard(taker)

    def _never_comes(self, taker: Taker) -> bool:
        """Whether the one who has the turn waits, over however many others, for ``taker``."""
        held_up, looked_at = [self], set[Turns]()
        while held_up:
            turns = held_up.pop()
            holder = turns._holder
            if holder is None or turns in looked_at:
                continue
            looked_at.add(turns)
            if taker.is_inside(holder):
                return True
            held_up += [one.waits_for for one in _WAITING if one.waits_for is not None and one.is_inside(holder)]
        return False


def _joining(taker: Taker) -> Taker | None:
    """Who, in his turn or waiting for one, has joined this thread and goes on only when it ends.

    Nothing tells a thread who started it and waits for it; where he stands says so as long as he waits.
    """
    frames, thread = sys._current_frames(), threading.current_thread()
    for other in {turns._holder for turns in _ALL} | _WAITING:
        frame = None if other is None or other is taker else frames.get(other.thread)
        while frame is not None:
            if frame.f_code is threading.Thread.join.__code__:
                here = frame.f_locals
                if here.get("self") is thread and here.get("timeout") is None:
                    return other
            frame = frame.f_back
    return None


_TURNS: weakref.WeakKeyDictionary[nn.Module, Turns] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def turns_of(model: nn.Module) -> Turns:
    """The turns of a model, the same for everybody who holds it."""
    with _LOCK:
        return _TURNS.setdefault(model, Turns())
