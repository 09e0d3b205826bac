"""Turns come, or an error says why they never will."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

import earlytom
from earlytom.runtime.streaming import pieces_of
from earlytom.runtime.turns import Turns

QUESTION = "What colour is the circle?"


@pytest.fixture(scope="module")
def qa() -> earlytom.VideoQA:
    return earlytom.VideoQA.load(earlytom.shipped_model(), device="cpu")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (4, 96, 96, 3), dtype=np.uint8)


def within(seconds: float, run: Callable[[], object]) -> list[object]:
    """What ``run`` returns or raises; it fails where that takes longer, without waiting for it."""
    results: list[object] = []

    def collect() -> None:
        try:
            results.append(run())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits forever"
    return results


ways = pytest.mark.parametrize(
    "ask_again",
    [
        lambda qa, frames: qa.ask(frames, QUESTION, max_new_tokens=1),
        lambda qa, frames: qa.ask_all(frames, [QUESTION, "What?"], max_new_tokens=1),
        lambda qa, frames: list(qa.stream(frames, QUESTION, max_new_tokens=1)),
        lambda qa, frames: earlytom.VideoQA(qa.model, qa.processor).ask(frames, QUESTION, max_new_tokens=1),
    ],
    ids=["ask", "ask_all", "stream", "another VideoQA"],
)


@ways
@pytest.mark.parametrize("outer", ["ask", "stream"])
def test_asking_again_from_on_text_is_an_error(qa, frames, ask_again, outer) -> None:
    def again(text: str) -> None:
        ask_again(qa, frames)

    def run() -> object:
        options = {"on_text": again, "max_new_tokens": 4}
        return qa.ask(frames, QUESTION, **options) if outer == "ask" else list(qa.stream(frames, QUESTION, **options))

    (error,) = within(60, run)
    assert isinstance(error, earlytom.CompressionError)
    assert "from inside the answer to another one" in str(error)
    assert qa.ask(frames, QUESTION, max_new_tokens=1).new_tokens == 1


@pytest.mark.parametrize("outer", ["ask", "stream"])
def test_a_thread_that_asks_from_inside_an_answer_and_is_joined_there_is_an_error(qa, frames, outer) -> None:
    errors: list[Exception] = []

    def again(text: str) -> None:
        def ask() -> None:
            try:
                qa.ask(frames, QUESTION, max_new_tokens=1)
            except earlytom.CompressionError as error:
                errors.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join()

    def run() -> object:
        options = {"on_text": again, "max_new_tokens": 2}
        return qa.ask(frames, QUESTION, **options) if outer == "ask" else list(qa.stream(frames, QUESTION, **options))

    assert not isinstance(within(60, run)[0], Exception)
    assert errors
    assert all("from inside the answer to another one" in str(error) for error in errors)


def test_a_thread_that_is_joined_for_a_while_waits_for_its_turn(qa, frames) -> None:
    """Nor is one refused that is started inside an answer and joined behind it."""
    threads: list[threading.Thread] = []
    answers: list[object] = []

    def again(text: str) -> None:
        if not threads:
            threads.append(threading.Thread(target=lambda: answers.append(qa.ask(frames, QUESTION, max_new_tokens=1))))
            threads[0].start()
            threads[0].join(2.5)

    within(60, lambda: qa.ask(frames, QUESTION, on_text=again, max_new_tokens=2))
    threads[0].join(60)
    assert len(answers) == 1


def test_a_ring_over_a_thread_that_is_joined_is_broken() -> None:
    """One holds the first and joins a thread that wants the second, whose holder wants the first."""
    first, second = Turns(), Turns()
    held = threading.Barrier(2)
    outcomes: list[str] = []

    def take(turns: Turns) -> None:
        try:
            with turns.take():
                outcomes.append("taken")
        except earlytom.CompressionError:
            outcomes.append("refused")

    def join() -> None:
        with first.take():
            held.wait()
            thread = threading.Thread(target=take, args=(second,), daemon=True)
            thread.start()
            thread.join()

    def hold() -> None:
        with second.take():
            held.wait()
            take(first)

    threads = [threading.Thread(target=target, daemon=True) for target in (join, hold)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["refused", "taken"]


@ways
def test_asking_again_from_a_stopping_criterion_is_an_error(qa, frames, ask_again) -> None:
    def again(ids, scores, **_):
        ask_again(qa, frames)

    (error,) = within(60, lambda: qa.ask(frames, QUESTION, stopping_criteria=[again]))
    assert "from inside the answer" in str(error)


def test_asking_between_the_pieces_of_a_stream_waits_for_its_end(qa, frames) -> None:
    def run() -> int:
        return sum(
            qa.ask(frames, QUESTION, max_new_tokens=1).new_tokens
            for _ in qa.stream(frames, QUESTION, max_new_tokens=4, min_new_tokens=4)
        )

    assert within(60, run)[0] >= 1


def test_two_who_hold_what_the_other_wants_do_not_wait_forever() -> None:
    one, other = Turns(), Turns()
    both = threading.Barrier(2)
    outcomes: list[str] = []

    def take(first: Turns, second: Turns) -> None:
        try:
            with first.take():
                both.wait()
                with second.take():
                    outcomes.append("taken")
        except earlytom.CompressionError:
            outcomes.append("refused")

    threads = [threading.Thread(target=take, args=pair, daemon=True) for pair in ((one, other), (other, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == ["refused", "taken"]
    for turns in (one, other):
        with turns.take():
            pass


def test_a_ring_of_three_is_broken_over_a_stream() -> None:
    """Each holds one and wants the next, the last by way of a thread that it waits for."""
    ring = [Turns() for _ in range(3)]
    all_hold = threading.Barrier(3)
    outcomes: list[str] = []

    def take(number: int) -> None:
        def want(put: Callable[[str], None]) -> None:
            with ring[(number + 1) % 3].take():
                put("taken")

        try:
            with ring[number].take():
                all_hold.wait()
                outcomes.extend(pieces_of(want, threading.Event()))
        except earlytom.CompressionError:
            outcomes.append("refused")

    threads = [threading.Thread(target=take, args=(number,), daemon=True) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == ["refused", "taken", "taken"]


def test_other_threads_wait_for_their_turn_without_an_error() -> None:
    turns, inside, most = Turns(), [0], [0]

    def take() -> None:
        for _ in range(20):
            with turns.take():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=take, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1]


def test_a_turn_that_fails_is_over() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.take():
        raise KeyError
    with turns.take(), pytest.raises(earlytom.CompressionError), turns.take():
        pass
    with turns.take():
        pass
