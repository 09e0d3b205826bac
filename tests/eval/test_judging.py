"""When an answer counts as right."""

from __future__ import annotations

import pytest

from earlytom.eval.judging import is_right, read_letter


@pytest.mark.parametrize(
    "reply", ["b", "B", " b ", "b.", "B.", "(b)", "(B)", "( b )", "b)", "B. red", "(B) red circle", "b: red", "b ."]
)
def test_letters_are_read_in_every_usual_form(reply) -> None:
    assert read_letter(reply) == "b"
    assert is_right(reply, "b", letters=True)
    assert not is_right(reply, "c", letters=True)


@pytest.mark.parametrize("reply", ["", "red", "a red circle", "ab", "b c", "1", "the answer is b", "blue."])
def test_other_replies_name_no_letter(reply) -> None:
    assert read_letter(reply) is None
    assert not is_right(reply, "b", letters=True)


@pytest.mark.parametrize("reply", ["top left", "Top Left", " top left ", "top left.", "top left ."])
def test_free_answers_are_compared_as_words(reply) -> None:
    assert is_right(reply, "top left", letters=False)


@pytest.mark.parametrize("reply", ["top", "left", "the top left", "top-left", "a. top left", ""])
def test_other_words_are_wrong(reply) -> None:
    assert not is_right(reply, "top left", letters=False)
