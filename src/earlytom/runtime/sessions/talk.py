"""What is said in a session, and the token ids that the chat template makes of it behind the videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from earlytom.errors import CompressionError, shown
from earlytom.runtime.asking import conversation_prompt, placeholders

__all__ = ["Talk", "check_history", "head_and_tail"]


def check_history(limit: object) -> None:
    """Raise `CompressionError` unless ``limit`` is a number of turns, 0 or more, or ``None`` for all of them."""
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise CompressionError(
            f"max_history must be a number of past questions, 0 or more, or None (all), got {shown(limit)}"
        )


@dataclass(frozen=True, kw_only=True)
class Talk:
    """A conversation about some videos: what stands in the next prompt besides the question.

    Attributes:
        videos: their number; they stand in the first message of the user.
        instruction: what the model expects to read before the first question.
        system: the system prompt; ``None``: what the chat template has by itself.
        limit: how many past questions a prompt holds, with their answers; ``None``: all.
        turns: these questions and answers, oldest first.
    """

    videos: int
    instruction: str = ""
    system: str | None = None
    limit: int | None = None
    turns: tuple[tuple[str, str], ...] = ()

    def with_turn(self, processor: Any, question: str, answer: str) -> Talk:
        """The same behind one more answer, without placeholders, which would stand for videos that are not there."""
        for token in placeholders(processor):
            answer = answer.replace(token, "")
        turns = (*self.turns, (question, answer))
        return replace(self, turns=turns if self.limit is None else turns[len(turns) - min(self.limit, len(turns)) :])

    def messages(self, question: str) -> list[dict[str, Any]]:
        """The conversation up to ``question``, as chat templates take it."""
        head = [] if self.system is None else [_message("system", self.system)]
        spoken = [(question, None) if turn is None else turn for turn in (*self.turns, None)]
        messages: list[dict[str, Any]] = []
        for asked, answered in spoken:
            messages.append(_message("user", asked))
            messages += [] if answered is None else [_message("assistant", answered)]
        first = messages[0]["content"][0]["text"]
        messages[0]["content"] = [{"type": "video"}] * self.videos + [
            {"type": "text", "text": self.instruction + first}
        ]
        return head + messages

    def prompt(self, processor: Any, question: str) -> str:
        """The prompt up to where the answer begins, each video one placeholder. Raises `ModelError`: see there."""
        return conversation_prompt(processor, self.messages(question))


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def head_and_tail(processor: Any, prompt: str, videos: int) -> tuple[list[int], list[int]]:
    """A prompt's token ids up to the last video's placeholder, and behind it.

    Args:
        processor: the model's processor.
        prompt: as the chat template wrote it, each video one placeholder.
        videos: their number.

    Raises:
        CompressionError: the prompt holds another number of placeholders.
    """
    (ids,) = processor.tokenizer([prompt])["input_ids"]
    found = getattr(processor, "video_token_id", None)
    placeholder = processor.tokenizer.convert_tokens_to_ids(processor.video_token) if found is None else found
    places = _places(ids, placeholder)
    if len(places) != videos:
        raise CompressionError(
            f"the chat template wrote {len(places)} placeholders (token {placeholder}) for {videos} video(s); the "
            "system prompt and questions must hold none"
        )
    return list(ids[: places[-1] + 1]), list(ids[places[-1] + 1 :])


def _places(ids: Sequence[int], wanted: int) -> list[int]:
    return [place for place, token in enumerate(ids) if token == wanted]
