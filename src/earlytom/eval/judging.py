"""When an answer is right."""

from __future__ import annotations

import re

__all__ = ["is_right", "read_letter"]

_LETTER = re.compile(r"\(?\s*([a-z])\s*(?:[.):].*)?", re.DOTALL)


def is_right(reply: str, expected: str, *, letters: bool) -> bool:
    """Whether a reply is the expected answer: the letter of an option, or the words, case and a last full stop aside.

    Args:
        reply: what the model said.
        expected: the right answer; in lower case the letter of the right option if ``letters``.
        letters: whether the question was multiple choice.
    """
    if letters:
        return read_letter(reply) == expected.strip().lower()
    return _words(reply) == _words(expected)


def read_letter(reply: str) -> str | None:
    """The letter that a reply names, in lower case: ``b``, ``B``, ``b.``, ``(b)``, ``B. red``; otherwise ``None``."""
    match = _LETTER.fullmatch(reply.strip().lower())
    return match[1] if match else None


def _words(text: str) -> str:
    return text.strip().removesuffix(".").rstrip().lower()
