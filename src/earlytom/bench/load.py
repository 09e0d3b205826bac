"""A model under load: callers that ask again as soon as they have their answer, more and more of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from earlytom.bench.quartiles import percentile
from earlytom.bench.rounds import take_turns
from earlytom.bench.tables import Table
from earlytom.errors import EarlyTomError
from earlytom.runtime.compression import compress
from earlytom.runtime.streaming import Watch

if TYPE_CHECKING:
    from earlytom.methods.base import Method

__all__ = [
    "SCHEMA",
    "Ask",
    "Level",
    "Request",
    "Round",
    "closed_loop",
    "load_table",
    "measure_load",
    "model_callers",
    "percentile",
]

SCHEMA = "earlytom.load/1"

Ask = Callable[[], float]
"""Makes one request, waits for its answer, and returns the moment (``time.perf_counter``) of its first token."""

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request: seconds from when it was made to its first token on the host, and to its whole answer."""

    ttft: float
    whole: float


@dataclass(frozen=True, kw_only=True)
class Round:
    """Some requests that were made under one load.

    Attributes:
        concurrency: callers at the same time.
        seconds: from the first request to the last answer.
        requests: each of them.
    """

    concurrency: int
    seconds: float
    requests: tuple[Request, ...]

    @property
    def requests_per_second(self) -> float:
        """Answers in a second."""
        return len(self.requests) / self.seconds


@dataclass(frozen=True, kw_only=True)
class Level:
    """What was measured of one variant with so many callers.

    Attributes:
        name: the variant.
        concurrency: callers at the same time.
        rounds: what was measured; empty where it failed.
        failure: why it did, or ``None``.
    """

    name: str
    concurrency: int
    rounds: tuple[Round, ...]
    failure: str | None = None

    @property
    def requests(self) -> list[Request]:
        """Those of all rounds."""
        return [request for round_ in self.rounds for request in round_.requests]

    @property
    def requests_per_second(self) -> float:
        """All requests over the time of all rounds."""
        return len(self.requests) / sum(round_.seconds for round_ in self.rounds)

    def ttft(self, share: float) -> float:
        """Seconds to the first token that ``share`` of the requests did not exceed."""
        return percentile([request.ttft for request in self.requests], share)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON; times in milliseconds."""
        plain: dict[str, Any] = {"name": self.name, "concurrency": self.concurrency, "failure": self.failure}
        if not self.rounds:
            return plain
        return plain | {
            "requests": len(self.requests),
            "requests_per_second": self.requests_per_second,
            "requests_per_second_of_rounds": [round_.requests_per_second for round_ in self.rounds],
            "ttft": {name: 1000 * self.ttft(share) for name, share in _SHARES.items()},
            "ttft_values": [1000 * request.ttft for request in self.requests],
            "whole_values": [1000 * request.whole for request in self.requests],
        }


def closed_loop(ask: Ask, *, concurrency: int, requests: int) -> Round:
    """Let callers, each in a thread of its own, make requests until there have been enough.

    Each makes its next one as soon as it has its answer. They begin together.

    Args:
        ask: makes one request; called from several threads at the same time.
        concurrency: callers.
        requests: to be made by all of them together, at least one each.

    Raises:
        EarlyTomError: there are fewer requests than callers, or no callers.
        Exception: what a request raised first; the others make none any more.
    """
    if not 1 <= concurrency <= requests:
        raise EarlyTomError(f"concurrency must be from 1 to the number of requests ({requests}), got {concurrency}")
    turns, lock, begin = iter(range(requests)), threading.Lock(), threading.Barrier(concurrency + 1)

    def call() -> list[Request]:
        begin.wait()
        made = []
        while _took_turn(turns, lock):
            try:
                made.append(_request(ask))
            except BaseException:
                _exhaust(turns, lock)
                raise
        return made

    with ThreadPoolExecutor(concurrency, thread_name_prefix="earlytom-load") as pool:
        callers = [pool.submit(call) for _ in range(concurrency)]
        begin.wait()
        started = time.perf_counter()
        made = [request for caller in callers for request in caller.result()]
        seconds = time.perf_counter() - started
    return Round(concurrency=concurrency, seconds=seconds, requests=tuple(made))


def _took_turn(turns: Iterator[int], lock: threading.Lock) -> bool:
    with lock:
        return next(turns, None) is not None


def _exhaust(turns: Iterator[int], lock: threading.Lock) -> None:
    with lock:
        deque(turns, maxlen=0)


def _request(ask: Ask) -> Request:
    started = time.perf_counter()
    first = ask()
    return Request(ttft=first - started, whole=time.perf_counter() - started)


def measure_load(
    variants: Mapping[str, Callable[[], AbstractContextManager[Ask]]],
    *,
    levels: Sequence[int],
    requests: int,
    rounds: int = 3,
    warm_up: bool = True,
    on_round: Callable[[str, int], object] = lambda name, level: None,
) -> list[Level]:
    """Measure variants under rising load, in turns.

    A variant whose device has no room for a load is left out from there on, and its level says so.

    Args:
        variants: by name, each opens what callers ask.
        levels: numbers of callers, ascending.
        requests: of a round, for each caller.
        rounds: of each level.
        warm_up: whether each variant first gets a round that is not kept.
        on_round: told the variant and the level before each round.

    Raises:
        EarlyTomError: no variants, no rounds, or levels that are not ascending from at least 1.
    """
    _check_load(variants, levels, requests, rounds)
    loads = _Loads(variants, on_round)
    names = list(variants)
    if warm_up:
        for name in names:
            loads.run(name, levels[-1], levels[-1], keep=False)
    for turn in range(rounds):
        for level in levels:
            for name in take_turns(names, turn):
                loads.run(name, level, level * requests, keep=True)
    return [loads.level(name, level) for level in levels for name in names]


class _Loads:
    """Rounds of variants, and what became of them."""

    def __init__(
        self,
        variants: Mapping[str, Callable[[], AbstractContextManager[Ask]]],
        on_round: Callable[[str, int], object],
    ) -> None:
        self._variants, self._on_round = variants, on_round
        self._rounds: dict[tuple[str, int], list[Round]] = {}
        self._full: dict[str, int] = {}

    def run(self, name: str, level: int, requests: int, *, keep: bool) -> None:
        """One round, unless so many callers, or fewer, have been too many before."""
        if level >= self._full.get(name, level + 1):
            return
        self._on_round(name, level)
        try:
            with self._variants[name]() as ask:
                done = closed_loop(ask, concurrency=level, requests=requests)
        except torch.OutOfMemoryError:
            self._full[name] = level
        else:
            if keep:
                self._rounds.setdefault((name, level), []).append(done)

    def level(self, name: str, level: int) -> Level:
        """What was measured."""
        full = self._full.get(name, level + 1)
        failure = f"the device's memory is full with {full} callers" if level >= full else None
        rounds = () if failure else tuple(self._rounds.get((name, level), ()))
        return Level(name=name, concurrency=level, rounds=rounds, failure=failure)


def _check_load(variants: Mapping[str, object], levels: Sequence[int], requests: int, rounds: int) -> None:
    if not variants:
        raise EarlyTomError("there is no variant to put under load")
    if not levels or list(levels) != sorted(set(levels)) or levels[0] < 1:
        raise EarlyTomError(f"levels must be ascending numbers of callers from 1 on, got {list(levels)}")
    for name, value in (("requests", requests), ("rounds", rounds)):
        if value < 1:
            raise EarlyTomError(f"{name} must be at least 1, got {value}")


def model_callers(
    model: nn.Module,
    inputs: Mapping[str, Any],
    method: Method | str,
    *,
    new_tokens: int,
    in_turns: bool = False,
) -> Callable[[], AbstractContextManager[Ask]]:
    """A variant for `measure_load`: callers that share one model in one `compress` block.

    Args:
        model: a supported stock model.
        inputs: the processor's output of every request, on the model's device.
        method: a method, or its name and options as text.
        new_tokens: tokens of every answer.
        in_turns: whether one call runs at a time, as in `earlytom.VideoQA`; else all of them compute at the same time.
    """

    @contextmanager
    def opened() -> Iterator[Ask]:
        turn: AbstractContextManager[object] = threading.Lock() if in_turns else nullcontext()
        with compress(model, method):
            yield lambda: _ask(model, inputs, new_tokens, turn)

    return opened


def _ask(model: Any, inputs: Mapping[str, Any], new_tokens: int, turn: AbstractContextManager[object]) -> float:
    from transformers import StoppingCriteriaList

    watch = Watch(None)
    with turn:
        ids = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            stopping_criteria=StoppingCriteriaList([watch]),
        )
        ids.cpu()  # the answer has arrived when its last token is on the host
    if watch.time is None:
        raise EarlyTomError("generate() ended without a first token")
    return watch.time


def load_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """All levels, one below the other.

    Args:
        results: each as `Level.to_dict` gives it.
    """
    columns = ("method", "callers", "requests", "requests/s", *(f"TTFT {name} ms" for name in _SHARES))
    return Table(title="Load", columns=columns, right=columns[1:], cells=tuple(map(_cells, results)))


def _cells(level: Mapping[str, Any]) -> tuple[str, ...]:
    if level["failure"] is not None:
        return (level["name"], str(level["concurrency"]), "0", level["failure"], "", "", "")
    times = (f"{level['ttft'][name]:.4g}" for name in _SHARES)
    rate = f"{level['requests_per_second']:.4g}"
    return (level["name"], str(level["concurrency"]), str(level["requests"]), rate, *times)
