"""What a session's file says besides its tensors: plain data, checked field by field when it is read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earlytom.errors import CompressionError, shown
from earlytom.runtime.sessions.seen import Seen
from earlytom.runtime.sessions.talk import Talk, check_history

if TYPE_CHECKING:
    from earlytom.runtime.sessions.session import SessionState

__all__ = ["SessionRecord"]

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """A session without its tensors.

    Attributes:
        model: fingerprint of the weights that its cache was made by.
        method: as text, for display.
        head, next_position, prompt_tokens: see `VideoPrefix`.
        tail: see `Behind`.
        seen, talk: see there.
    """

    model: str
    method: str
    head: tuple[int, ...]
    next_position: int
    prompt_tokens: int
    tail: tuple[int, ...]
    seen: Seen
    talk: Talk

    @classmethod
    def of(cls, state: SessionState, model: str) -> SessionRecord:
        """Of a session of the model with that fingerprint."""
        prefix = state.prefix
        return cls(
            model=model,
            method=state.method,
            head=prefix.head,
            next_position=prefix.next_position,
            prompt_tokens=prefix.prompt_tokens,
            tail=state.behind.tail,
            seen=state.seen,
            talk=state.talk,
        )

    def to_dict(self) -> dict[str, object]:
        """Plain data, which `from_text` reads."""
        return {"format": _FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_text(cls, text: str | None) -> SessionRecord:
        """Read JSON. Raises `CompressionError` where it is none, of another format, or a field cannot be."""
        if text is None:
            raise CompressionError("it says nothing of a session")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CompressionError("what it says of the session is no JSON") from error
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            found = data.get("format") if isinstance(data, dict) else data
            raise CompressionError(f"its format must be {_FORMAT}, got {shown(found)}")
        return cls(
            model=_field(data, "model", _is_text),
            method=_field(data, "method", _is_text),
            head=tuple(_field(data, "head", _are_counts)),
            next_position=_field(data, "next_position", _is_count),
            prompt_tokens=_field(data, "prompt_tokens", _is_count),
            tail=tuple(_field(data, "tail", _are_counts)),
            seen=_seen(_field(data, "seen", _is_object)),
            talk=_talk(_field(data, "talk", _is_object)),
        )

    def check_model(self, found: str) -> None:
        """Raise `CompressionError` for a model with another fingerprint."""
        if found != self.model:
            raise CompressionError(
                f"it was written with another model, other weights or another dtype (fingerprint "
                f"{shown(self.model[:12])}, this model's is {found[:12]!r}), for which its cache means nothing"
            )


def _seen(data: dict[str, Any]) -> Seen:
    return Seen(**{field.name: _field(data, field.name, _is_count) for field in dataclasses.fields(Seen)})


def _talk(data: dict[str, Any]) -> Talk:
    limit = data.get("limit")
    check_history(limit)
    turns = _field(data, "turns", _are_turns)
    system = None if data.get("system") is None else _field(data, "system", _is_text)
    return Talk(
        videos=_field(data, "videos", lambda value: _is_count(value) and value > 0),
        instruction=_field(data, "instruction", _is_text),
        system=system,
        limit=limit,
        turns=tuple((question, answer) for question, answer in turns),
    )


def _field(data: dict[str, Any], name: str, fits: Callable[[Any], bool]) -> Any:
    if not fits(data.get(name)):
        raise CompressionError(f"its {name} is not what it must be, got {shown(data.get(name))}")
    return data[name]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(map(_is_text, turn)) for turn in value
    )
