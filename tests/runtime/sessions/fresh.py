"""What a session must equal: a prompt with the whole history and its videos, compressed afresh."""

from __future__ import annotations

import torch
from transformers import LogitsProcessorList

import earlytom
from earlytom.runtime.preprocessing import preprocess

QUARTER = "earlytom:retention=0.25"
FIRST, SECOND, THIRD = "what moves here", "is there anything else", "what is here"


class Recorder:
    """A logits processor that keeps what it sees."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen.append(scores.clone())
        return scores

    @property
    def logits(self) -> torch.Tensor:
        return torch.stack(self.seen)


def said(role: str, text: str) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def conversation(qa, videos, turns, question: str, system: str | None = None) -> list[dict]:
    """Written out by hand: system, then questions and answers in turn, the videos in the first one."""
    messages = []
    for asked, answered in turns:
        messages += [said("user", asked), said("assistant", answered)]
    messages.append(said("user", question))
    instruct = getattr(qa.processor, "instruction", None)
    words = "" if instruct is None else "".join(instruct(video) for video in videos)
    first = messages[0]["content"][0]["text"]
    messages[0]["content"] = [{"type": "video"} for _ in videos] + [{"type": "text", "text": words + first}]
    return ([] if system is None else [said("system", system)]) + messages


def fresh(qa, videos, turns, question, *, method=QUARTER, system=None, **options) -> tuple[str, torch.Tensor]:
    """The answer and the logits of a prompt that is encoded and prefilled from its beginning."""
    prompt = qa.processor.apply_chat_template(
        conversation(qa, videos, turns, question, system), add_generation_prompt=True
    )
    inputs = dict(preprocess(qa.processor, prompt, *videos))
    recorder = Recorder()
    options = {"do_sample": False, **options, "logits_processor": LogitsProcessorList([recorder])}
    with earlytom.compress(qa.model, method):
        output = qa.model.generate(**inputs, **options)
    new = output[0, inputs["input_ids"].shape[1] :]
    return qa.processor.tokenizer.decode(new, skip_special_tokens=True).strip(), recorder.logits


def asked(session, question, **options) -> tuple[str, torch.Tensor]:
    """The same of a session."""
    recorder = Recorder()
    answer = session.ask(question, logits_processor=LogitsProcessorList([recorder]), **options)
    return answer.text, recorder.logits
