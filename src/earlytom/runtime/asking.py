"""What every way of asking shares: questions checked, inputs, options of ``generate``, the new ids of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from earlytom.errors import CompressionError, EarlyTomError, ModelError, shown, shown_cause
from earlytom.models.checkpoint.templates import write_prompt

if TYPE_CHECKING:
    from earlytom.runtime.streaming import Watch

__all__ = [
    "check_no_placeholder",
    "check_questions",
    "conversation_prompt",
    "generation_options",
    "new_tokens",
    "placeholders",
]


def placeholders(processor: Any) -> list[str]:
    """The texts that stand for pictures and videos in a model's prompts."""
    named = (getattr(processor, name, None) for name in ("video_token", "image_token"))
    return [token for token in named if token]


def check_no_placeholder(processor: Any, what: str, text: str) -> None:
    """Raise `CompressionError` where a text of the user's, named ``what``, holds one of the model's placeholders."""
    for token in placeholders(processor):
        if token in text:
            raise CompressionError(f"the {what} holds the model's own placeholder {token!r}; leave it out")


def check_questions(processor: Any, questions: Sequence[str]) -> None:
    """Raise `CompressionError` for a question that is no text, is empty, or holds a placeholder."""
    for question in questions:
        if not isinstance(question, str):
            raise CompressionError(f"a question must be text, got {shown(question)}")
    if not all(question.strip() for question in questions):
        raise CompressionError("the question is empty")
    for question in questions:
        check_no_placeholder(processor, "question", question)


def conversation_prompt(processor: Any, conversation: Sequence[dict[str, Any]]) -> str:
    """What the chat template makes of a conversation.

    Raises:
        ModelError: the processor has no chat template, or one that fails.
    """
    try:
        return write_prompt(processor, conversation)
    except EarlyTomError:
        raise
    except Exception as error:  # a template is a program that came with the checkpoint
        raise ModelError(f"the processor's chat template cannot write the prompt: {shown_cause(error)}") from error


def generation_options(
    processor: Any, generation: Mapping[str, Any], watch: Watch, on_text: Callable[[str], None] | None
) -> dict[str, Any]:
    """The caller's options of ``generate``, with the watch and, where text is wanted, a streamer.

    Raises:
        CompressionError: text is wanted of beam search.
    """
    from transformers import StoppingCriteriaList, TextStreamer

    criteria = [*(generation.get("stopping_criteria") or []), watch]
    options = {"do_sample": False, **generation, "stopping_criteria": StoppingCriteriaList(criteria)}
    if on_text is None:
        return options
    if (generation.get("num_beams") or 1) > 1:
        raise CompressionError("text cannot be streamed from beam search; leave num_beams or on_text out")
    streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    streamer.on_finalized_text = lambda text, stream_end=False: on_text(text) if text else None
    return options | {"streamer": streamer}


def new_tokens(model: Any, output: Any, prompts: torch.Tensor, options: Mapping[str, Any]) -> list[list[int]]:
    """The generated ids of each prompt (its first sequence), up to its end token where it has one.

    Args:
        model: that generated.
        output: of ``generate``.
        prompts: [B, S] ids that it was given.
        options: that it was given.
    """
    sequences = output if isinstance(output, torch.Tensor) else output.sequences
    count, length = prompts.shape
    end = options.get("eos_token_id", model.generation_config.eos_token_id)
    ends = set(end if isinstance(end, list) else [end])
    rows = sequences[:: sequences.shape[0] // count, length:].tolist()
    return [row[: next((place for place, new in enumerate(row, 1) if new in ends), None)] for row in rows]
