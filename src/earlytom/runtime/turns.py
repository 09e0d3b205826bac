"""Threads that answer with one model take turns."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from earlytom.errors import CompressionError

__all__ = ["Turns", "turns_of"]


class Turns:
    """One thread at a time, and never one inside itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for this thread's turn.

        Raises:
            CompressionError: it is this thread's turn already, so that it would wait for itself.
        """
        if self._holder == threading.get_ident():
            raise CompressionError(
                "a question was asked from inside the answer to another one (from on_text, a stopping criterion or a "
                "logits processor), which would wait for itself; ask it behind that answer, or of another model"
            )
        with self._lock:
            self._holder = threading.get_ident()
            try:
                yield
            finally:
                self._holder = None


_TURNS: weakref.WeakKeyDictionary[nn.Module, Turns] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def turns_of(model: nn.Module) -> Turns:
    """The turns of a model, the same for everybody who holds it."""
    with _LOCK:
        return _TURNS.setdefault(model, Turns())
