"""What error messages quote is short, whatever it is."""

from __future__ import annotations

from earlytom.errors import shortened, shown, shown_cause


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError


def test_short_values_are_quoted_as_they_are() -> None:
    for value in ("a", 5, None, [1, 2], "x" * 198):
        assert shown(value) == repr(value)
    assert shortened("clip.mp4") == "clip.mp4"


def test_long_values_are_cut() -> None:
    for value in ("x" * 10**6, list(range(10**5)), 10**400):
        assert len(shown(value)) == 200
        assert repr(value).startswith(shown(value).removesuffix("..."))
    assert len(shortened("y" * 201)) == 200


def test_values_without_a_text_are_named_by_their_type() -> None:
    assert shown(10**5000) == "<int that cannot be written>"
    assert shown(Mute()) == "<Mute that cannot be written>"


def test_the_cause_is_one_line() -> None:
    assert shown_cause(ValueError("\n first\nsecond")) == "first"
    assert shown_cause(KeyError()) == "KeyError"
    assert len(shown_cause(ValueError("z" * 5000))) == 200
