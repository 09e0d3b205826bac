"""The calls of a model inside a block."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cached_property

from earlytom.trace.records import LanguageReduction, VideoTrace, video_to_dict
from earlytom.trace.stopwatch import Stopwatch

__all__ = ["CallTrace", "Trace"]


@dataclass(kw_only=True)
class CallTrace:
    """One call of ``generate`` or ``forward``: its clips, and where its time went.

    Attributes:
        videos: the clips, in order; empty for a prompt without video.
        language: reductions inside the language model.
        prompt_tokens: length of the prompt as the user wrote it.
        prefill_tokens: length of what was prefilled.
        visual_tokens: visual tokens of each sample that entered the language model, newline embeddings counted.
        decoder_layers: layers of the language model.
        outside: milliseconds that were spent before the call (``decoding``, ``preprocessing``), where known.
    """

    videos: list[VideoTrace] = field(default_factory=list)
    language: list[LanguageReduction] = field(default_factory=list)
    prompt_tokens: int = 0
    prefill_tokens: int = 0
    visual_tokens: tuple[int, ...] = ()
    decoder_layers: int = 0
    outside: dict[str, float] = field(default_factory=dict)
    stopwatch: Stopwatch | None = field(default=None, repr=False)

    @property
    def clock(self) -> Stopwatch:
        """The stopwatch of a call that is being timed. Raises `LookupError` where there is none."""
        if self.stopwatch is None:
            raise LookupError("this call has not been timed")
        return self.stopwatch

    @property
    def average_visual_tokens(self) -> float:
        """Visual tokens that a layer of the language model works on at prefill: mean over its layers, all samples.

        What methods that act inside the language model are to be compared by; newline embeddings are counted.
        """
        total, tokens, start = 0, sum(self.visual_tokens), 0
        for step in self.language:
            total += tokens * (step.layer - start)
            tokens, start = sum(step.tokens_after), step.layer
        total += tokens * (self.decoder_layers - start)
        return total / max(1, self.decoder_layers)

    @property
    def layer_share(self) -> float:
        """The share of the visual tokens entering the language model that a layer works on: mean over its layers."""
        return self.average_visual_tokens / max(1, sum(self.visual_tokens))

    @cached_property
    def milliseconds(self) -> dict[str, float]:
        """Milliseconds per stage, in detail.

        ``encoder`` (with what follows inside it), of that ``attention`` (the scores) and ``merging``; then
        ``projection``, ``selection``, ``assembly``, ``prefill``; ``ttft`` is all of it.
        """
        return {} if self.stopwatch is None else self.stopwatch.milliseconds()

    def split(self) -> dict[str, float]:
        """Milliseconds as the paper splits them; the first four add up to ``ttft``.

        ``vision_encoding`` (the encoder's own layers), ``token_processing`` (scores, merging, projector, pooling,
        selection, assembly), ``prefill`` of the language model, ``overhead`` (the rest up to the first token),
        ``ttft``, and ``decoding`` and ``preprocessing`` of the video, which come before, where known.
        """
        spent = self.milliseconds
        if "ttft" not in spent:
            return dict(self.outside)
        inside = spent.get("attention", 0.0) + spent.get("merging", 0.0)
        parts = {
            "vision_encoding": spent.get("encoder", 0.0) - inside,
            "token_processing": inside + sum(spent.get(name, 0.0) for name in ("projection", "selection", "assembly")),
            "prefill": spent.get("prefill", 0.0),
        }
        overhead = spent["ttft"] - sum(parts.values())
        return parts | {"overhead": overhead, "ttft": spent["ttft"]} | self.outside


# A service that keeps a block open for long must not keep every call's tensors.
_CALLS_KEPT = 64


@dataclass
class Trace:
    """What happened inside one `earlytom.compress` block: its newest 64 calls."""

    method: str = ""
    calls: deque[CallTrace] = field(default_factory=lambda: deque(maxlen=_CALLS_KEPT), repr=False)

    @property
    def last(self) -> CallTrace:
        """The newest call.

        Raises:
            LookupError: no call has succeeded yet.
        """
        if not self.calls:
            raise LookupError("the trace is empty: no call of the model has succeeded inside this compress block yet")
        return self.calls[-1]

    @property
    def videos(self) -> list[VideoTrace]:
        """The clips of the newest call."""
        return self.last.videos

    def to_dict(self) -> dict[str, object]:
        """The newest call as plain data, for JSON."""
        call = self.last
        return {
            "method": self.method,
            "prompt_tokens": call.prompt_tokens,
            "prefill_tokens": call.prefill_tokens,
            "average_visual_tokens": round(call.average_visual_tokens, 3),
            "split_milliseconds": {name: round(value, 3) for name, value in call.split().items()},
            "milliseconds": {name: round(value, 3) for name, value in call.milliseconds.items()},
            "videos": [video_to_dict(video) for video in call.videos],
            "language": [
                {"layer": step.layer, "tokens_before": step.tokens_before, "tokens_after": step.tokens_after}
                for step in call.language
            ],
        }
