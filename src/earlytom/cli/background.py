"""What shortens the start of a command: work beside the loading of a model, imports without garbage collection."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["in_background", "without_collection"]

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> Future[T]:
    """Do some work in a thread of its own, whose result or error is there when it is asked for.

    The thread does not keep the process alive: where the model cannot be loaded, nobody waits for the video.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # it belongs to whoever asks for the result
            result.set_exception(error)

    threading.Thread(target=run, name="earlytom-background", daemon=True).start()
    return result


@contextmanager
def without_collection() -> Iterator[None]:
    """Let no cyclic garbage be looked for inside.

    Importing torch and transformers makes millions of objects, none of them garbage, which the collector would go
    through again and again.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
