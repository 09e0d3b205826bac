"""What may come of an input, and how that is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from earlytom import EarlyTomError

ERROR = "clear errors"
EQUAL = "equal pictures"
ANSWER = "answers"
MARKED = "pictures of files in which plain decoding meets damage"
OUTCOMES = (ERROR, EQUAL, ANSWER, MARKED)

_MOST_CHARACTERS = 2000
_MOST_QUOTED = 200


class FindingError(Exception):
    """What must not be: other pictures than there are, an error that is too long."""


@dataclass(frozen=True)
class Trial:
    """An input, ready to be tried.

    Attributes:
        run: tries it; one of `OUTCOMES`.
        given: text in it that an error could quote.
        error: what it may raise.
        one_line: whether such an error is one line.
    """

    run: Callable[[], str]
    given: str = ""
    error: type[EarlyTomError] = EarlyTomError
    one_line: bool = True


def judged(trial: Trial) -> tuple[str, str]:
    """The outcome of a trial, and what its error says. Whatever is raised is a finding."""
    try:
        return trial.run(), ""
    except EarlyTomError as error:
        message = str(error)
        if not isinstance(error, trial.error):
            raise
        if fault := _fault(message, trial):
            raise FindingError(f"the error {fault}: {message[:_MOST_CHARACTERS]}") from error
        return ERROR, message


def _fault(message: str, trial: Trial) -> str | None:
    if len(message) > _MOST_CHARACTERS:
        return f"has {len(message)} characters"
    if trial.one_line and len(message.splitlines()) != 1:
        return f"has {len(message.splitlines())} lines"
    windows = range(len(trial.given) - _MOST_QUOTED)
    if any(trial.given[at : at + _MOST_QUOTED + 1] in message for at in windows):
        return f"quotes more than {_MOST_QUOTED} characters of what was given"
    return None
