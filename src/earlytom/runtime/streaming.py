"""An answer piece by piece: generation in a thread of its own, and what stops it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any, Protocol

import torch

from earlytom.errors import CompressionError, shown
from earlytom.runtime.turns import current_taker, work_inside

__all__ = ["AnyOf", "Cancellation", "Watch", "pieces_of", "streamed"]


class Cancellation(Protocol):
    """What `threading.Event` is, as far as it is asked here."""

    def is_set(self) -> bool:
        """Whether to stop."""


class AnyOf:
    """Set as soon as one of several is; ``None`` never is. Raises `CompressionError` for what cannot be set."""

    def __init__(self, *cancellations: Cancellation | None) -> None:
        self._cancellations = [one for one in cancellations if one is not None]
        for one in self._cancellations:
            if not callable(getattr(one, "is_set", None)):
                raise CompressionError(f"cancelled must be a threading.Event or have its is_set(), got {shown(one)}")

    def is_set(self) -> bool:
        """Whether one of them is."""
        return any(one.is_set() for one in self._cancellations)


class Watch:
    """A stopping criterion that notes when the first token reached the host, and stops when it is told to."""

    def __init__(self, cancelled: Cancellation | None) -> None:
        self.time: float | None = None
        self._cancelled = AnyOf(cancelled)

    def __call__(self, ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if self.time is None:
            ids[:, -1].cpu()  # waits for the token
            self.time = time.perf_counter()
        return torch.full((ids.shape[0],), self._cancelled.is_set(), dtype=torch.bool, device=ids.device)


def pieces_of(answer: Callable[[Callable[[str], None]], object], closed: threading.Event) -> Iterator[str]:
    """Run ``answer`` in a thread, and yield what it puts into the function that it gets; its errors are raised here.

    Args:
        answer: stops when ``closed`` is set.
        closed: set when nobody takes any more pieces.
    """
    pieces: Queue[str | None] = Queue()
    failure: list[BaseException] = []

    waiting = current_taker()  # whoever takes pieces from inside an answer waits for them there

    def run() -> None:
        work_inside(waiting)
        try:
            answer(pieces.put)
        except BaseException as error:  # handed over to the caller below
            failure.append(error)
        finally:
            pieces.put(None)

    thread = threading.Thread(target=run, name="earlytom-stream", daemon=True)
    thread.start()
    try:
        yield from iter(pieces.get, None)
    finally:
        closed.set()
        thread.join()
    if failure:
        raise failure[0]


def streamed(
    ask: Callable[..., object], on_text: Callable[[str], None] | None, cancelled: Cancellation | None
) -> Iterator[str]:
    """Yield an answer piece by piece.

    Args:
        ask: gets ``on_text`` and ``cancelled``.
        on_text: gets the same pieces, in the thread that generates.
        cancelled: stops the answer, as closing the iterator does.
    """
    closed = threading.Event()

    def answer(put: Callable[[str], None]) -> None:
        def both(text: str) -> None:
            put(text)
            if on_text is not None:
                on_text(text)

        ask(on_text=both, cancelled=AnyOf(closed, cancelled))

    return pieces_of(answer, closed)
